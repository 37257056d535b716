import pickle
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score

from bitgnn.data import available, registry, task
from bitgnn.data.registry import ENTRIES

REAL = ["Cora", "CiteSeer", "PubMed", "Computers", "CS", "Texas"]
OTHERS = ("Planetoid", "OGB", "scikit-learn")  # Not laid out by `write_raw`.
TINY = [entry.name for entry in ENTRIES if entry.family not in OTHERS]


@pytest.fixture(scope="module")
def digits():
    return task("Digits")


@pytest.fixture
def binary(tmp_path, write_raw):
    return task("Minesweeper", root=write_raw("Minesweeper", tmp_path / "root"))


@pytest.mark.parametrize("name", REAL)
def test_real_statistics(name, data_root):
    t = task(name.lower(), root=data_root)
    info = next(info for info in available() if info.name == name)
    assert t.name == name
    assert set(t.data.keys()) == {"x", "edge_index", "y"}
    sizes = (t.num_nodes, t.data.num_edges, t.num_features, t.num_classes)
    assert sizes == (info.nodes, info.edges, info.features, info.classes)
    assert t.split_kind == info.splits[0]
    assert t.data.is_undirected() == (name != "Texas")


@pytest.mark.parametrize("name", ["Cora", "CiteSeer", "PubMed"])
def test_planetoid_splits(name, data_root):
    public = task(name, root=data_root)
    first, second = public.split(0), public.split(1)
    assert first.name == "public"
    assert torch.equal(first.train, second.train)
    sizes = [int(mask.sum()) for mask in (first.train, first.val, first.test)]
    assert sizes == [20 * public.num_classes, 500, 1000]

    full = task(name, root=data_root, split="full").split(0)
    assert full.name == "full"
    assert int(full.train.sum()) == public.num_nodes - 1500
    assert torch.equal(full.val, first.val) and torch.equal(full.test, first.test)

    random = task(name, root=data_root, split="random").split(3)
    assert random.name == "random-3"
    assert int(random.train.sum()) == 20 * public.num_classes
    assert int(random.val.sum()) == 30 * public.num_classes
    assert int(random.test.sum()) == public.num_nodes - 50 * public.num_classes


def test_citeseer_has_isolated_nodes(data_root):
    data = task("CiteSeer", root=data_root).data
    degree = torch.bincount(data.edge_index.flatten(), minlength=data.num_nodes)
    assert int((degree == 0).sum()) == 48
    assert data.x.isfinite().all()
    assert int((data.x.sum(dim=1) == 0).sum()) == 15


def test_texas_has_ten_published_splits(data_root):
    t = task("Texas", root=data_root)
    assert len({tuple(t.split(seed).train.tolist()) for seed in range(10)}) == 10
    assert t.split(13).name == "published-3"
    assert torch.equal(t.split(13).test, t.split(3).test)
    assert task("Texas", root=data_root, split="random").split(3).name == "random-3"


def test_cora_checksum(data_root):
    assert task("Cora", root=data_root).checksum.startswith("1be035e71ba57239")


@pytest.mark.parametrize("name", TINY)
def test_every_family_opens(name, tmp_path, write_raw, offline, monkeypatch):
    monkeypatch.setattr("bitgnn.data.checksum.KNOWN", {})
    t = task(name, root=write_raw(name, tmp_path / "root"))
    assert t.name == name
    assert t.num_nodes == 12
    assert t.num_classes == 2
    assert t.data.x.dtype == torch.float
    assert t.data.y.dtype == torch.long
    assert len(t.checksum) == 64
    for split in (t.split(4), task(name, root=tmp_path / "root", split="random").split(4)):
        total = split.train.int() + split.val.int() + split.test.int()
        assert split.train.any()
        assert total.max() == 1
        assert not (total.bool() & (t.data.y < 0)).any()
    if t.split_kind == "published":
        assert t.split(4).name == "published-4"
        assert t.split(4).train[:8].nonzero().flatten().tolist() == [4, 5]
        assert t.split(4).val.nonzero().flatten().tolist() == [6, 7]


def test_digits(digits):
    info = next(info for info in available() if info.name == "Digits")
    sizes = (digits.num_nodes, digits.data.num_edges, digits.num_features, digits.num_classes)
    assert sizes == (info.nodes, info.edges, info.features, info.classes)
    assert digits.root is None
    assert digits.checksum == "fafd4f49c02d5ed8ec95daf14fec3af26963ab0881bd06b58d5ac2852ca03bd1"
    split = digits.split(7)
    assert split.name == "random-7"
    assert [int(mask.sum()) for mask in (split.train, split.val)] == [50, 100]


def test_unknown_split():
    with pytest.raises(ValueError, match="'Digits' has no split 'public': choose one of 'random'"):
        task("Digits", split="public")


def test_task_survives_pickling(digits):
    copy = pickle.loads(pickle.dumps(digits))
    assert copy.checksum == digits.checksum
    assert torch.equal(copy.split(1).train, digits.split(1).train)


def test_accuracy(digits):
    y = digits.data.y
    out = torch.nn.functional.one_hot(y, 10).float()
    out[:10] = out[:10].roll(1, dims=1)
    mask = torch.zeros(1797, dtype=torch.bool)
    mask[:40] = True
    assert digits.evaluate(out, mask) == 75.0
    assert digits.evaluate(out.bfloat16().requires_grad_(), mask) == 75.0


def test_rocauc(binary):
    assert binary.metric == "rocauc"
    out, mask = torch.randn(12, 2), torch.ones(12, dtype=torch.bool)
    expected = 100 * roc_auc_score(binary.data.y, out.softmax(dim=-1)[:, 1])
    assert binary.evaluate(out, mask) == pytest.approx(expected)
    perfect = torch.nn.functional.one_hot(binary.data.y, 2).half()
    assert binary.evaluate(perfect, mask) == 100.0
    with pytest.raises(ValueError, match="nodes of both classes"):
        binary.evaluate(out, binary.data.y == 1)


def test_evaluate_rejects_what_does_not_fit(digits):
    out, mask = torch.zeros(1797, 10), torch.ones(1797, dtype=torch.bool)
    with pytest.raises(ValueError, match="mask for 'Digits' is empty"):
        digits.evaluate(out, ~mask)
    with pytest.raises(ValueError, match=r"shape \(1797, 10\) \(got \(1797, 9\)\)"):
        digits.evaluate(out[:, :9], mask)
    with pytest.raises(ValueError, match=r"boolean with shape \(1797,\) \(got torch.int64"):
        digits.evaluate(out, mask.long())


def test_evaluate_does_not_read_predictions_from_nan(digits, binary):
    mask = torch.zeros(1797, dtype=torch.bool)
    mask[:5] = True
    out = torch.zeros(1797, 10)
    out[9] = float("nan")
    assert digits.evaluate(out, mask) >= 0  # The node does not count.
    mask[9] = True
    assert torch.tensor(digits.evaluate(out, mask)).isnan()
    out = torch.full((12, 2), float("nan"))
    assert torch.tensor(binary.evaluate(out, torch.ones(12, dtype=torch.bool))).isnan()


@pytest.mark.gpu
def test_evaluate_on_a_gpu(digits, binary):
    for t in (digits, binary):
        out, mask = torch.randn(t.num_nodes, t.num_classes), t.split(0).test
        assert t.evaluate(out.cuda(), mask) == pytest.approx(t.evaluate(out, mask))
        assert t.evaluate(out.cuda(), mask.cuda()) == pytest.approx(t.evaluate(out, mask))


def test_tasks_without_features_or_classes_are_refused(tmp_path, write_raw, monkeypatch):
    entry = next(entry for entry in ENTRIES if entry.name == "Photo")
    loaded = entry.load("Photo", write_raw("Photo", tmp_path / "root"))
    for key, reason in {"x": "no feature vectors", "y": "no single class each"}.items():
        data = loaded.data.clone()
        del data[key]
        broken = replace(entry, load=lambda name, root, data=data: loaded._replace(data=data))
        monkeypatch.setattr(registry, "ENTRIES", [broken])
        with pytest.raises(ValueError, match=f"'Photo' cannot be used: its nodes have {reason}"):
            task("Photo")
