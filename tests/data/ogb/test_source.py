import gzip
import os
import pickle
import shutil
import stat

import numpy as np
import pytest
import torch
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage
from torch_geometric.utils import to_undirected

from bitgnn.data import task
from bitgnn.data.ogb import SETS
from bitgnn.data.ogb.package import nodeproppred
from tests.data.ogb_files import RELATIONS, write_csv, write_ogb, write_split_dict

# NumPy's own number is in what OGB's loader writes of ogbn-papers100M.
TYPES = [DataEdgeAttr, DataTensorAttr, GlobalStorage, type(np.dtype(np.int64)), np.dtype]
TYPES += [np.int64(0).__reduce__()[0]]
SIZES = {
    "ogbn-arxiv": (600, 16, 40),
    "ogbn-products": (300, 10, 47),
    "ogbn-proteins": (300, 8, 112),
    "ogbn-mag": (300, 12, 349),
    "ogbn-papers100M": (150, 16, 172),
}


def listing(root):
    return {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}


def of_ogb(name, root):
    r"""Lets OGB's loader do what it does, in a copy of its own."""
    with torch.serialization.safe_globals(TYPES):
        dataset = nodeproppred().PygNodePropPredDataset(name, str(root))
        return dataset[0], dataset.get_idx_split()


@pytest.mark.parametrize("name", SETS)
def test_the_graph_is_ogbs(name, tmp_path, offline):
    write_ogb(name, tmp_path / "root")
    shutil.copytree(tmp_path / "root", tmp_path / "copy")
    t, (data, split) = task(name, root=tmp_path / "root"), of_ogb(name, tmp_path / "copy")
    edges, features, outputs = SIZES[name]
    assert (t.name, t.root, t.split_kind) == (name, tmp_path / "root", "public")
    assert (t.num_nodes, t.num_features, t.num_classes) == (60, features, outputs)
    assert t.data.edge_index.shape == (2, edges)
    assert set(t.data.keys()) == {"x", "edge_index", "y"}
    assert (t.data.x.dtype, t.data.y.dtype) == (torch.float, torch.long)
    assert t.multilabel == (name == "ogbn-proteins")
    assert t.metric == ("rocauc" if t.multilabel else "accuracy")

    x, edge_index, y = data.x, data.edge_index, data.y
    if name == "ogbn-mag":
        x, y = data.x_dict["paper"], data.y_dict["paper"]
        edge_index = data.edge_index_dict[("paper", "cites", "paper")]
        split = {part: nodes["paper"] for part, nodes in split.items()}
    if name in ("ogbn-arxiv", "ogbn-mag"):
        edge_index = to_undirected(edge_index, num_nodes=60)
    if name != "ogbn-proteins":
        assert torch.equal(t.data.x, x)
    assert torch.equal(t.data.edge_index, edge_index)
    assert t.data.is_undirected() == (name != "ogbn-papers100M")
    expected = y if t.multilabel else y.nan_to_num(-1).view(-1)
    assert torch.equal(t.data.y, expected.long())
    ours = t.split(0)
    for mask, part in ((ours.train, "train"), (ours.val, "valid"), (ours.test, "test")):
        assert mask.nonzero().flatten().tolist() == sorted(split[part].tolist())
    assert ours.name == "public"
    assert t.split(5) is ours


def test_unlabelled_nodes(tmp_path, offline):
    write_ogb("ogbn-papers100M", tmp_path)
    t = task("ogbn-papers100M", root=tmp_path)
    split = t.split(0)
    assert (t.data.y < 0).nonzero().flatten().tolist() == list(range(0, 60, 3))
    assert torch.equal(split.train | split.val | split.test, t.data.y >= 0)


def test_heterogeneous_graph(tmp_path, offline):
    write_ogb("ogbn-mag", tmp_path / "root")
    shutil.copytree(tmp_path / "root", tmp_path / "copy")
    t, (data, _) = task("ogbn-mag", root=tmp_path / "root"), of_ogb("ogbn-mag", tmp_path / "copy")
    found = t.hetero
    found.validate()
    assert t.hetero is found
    assert found.edge_types == list(RELATIONS)
    for relation in RELATIONS:
        assert torch.equal(found[relation].edge_index, data.edge_index_dict[relation])
    assert {kind: found[kind].num_nodes for kind in found.node_types} == data.num_nodes_dict
    paper, split = found["paper"], t.split(0)
    assert torch.equal(paper.x, t.data.x) and torch.equal(paper.y, t.data.y)
    assert torch.equal(paper.year, data.node_year["paper"].view(-1))
    assert torch.equal(paper.train_mask, split.train)
    assert torch.equal(paper.val_mask, split.val)
    assert torch.equal(paper.test_mask, split.test)


def test_only_one_set_is_heterogeneous(tmp_path, offline):
    write_ogb("ogbn-arxiv", tmp_path)
    assert task("ogbn-arxiv", root=tmp_path).hetero is None


@pytest.mark.parametrize("name", SETS)
def test_read_only_root(name, tmp_path, offline):
    root = tmp_path / "root"
    write_ogb(name, root)
    for path in [root, *root.rglob("*")]:
        path.chmod(path.stat().st_mode & ~stat.S_IWUSR & ~stat.S_IWGRP & ~stat.S_IWOTH)
    before = listing(root)
    task(name, root=root)
    assert listing(root) == before
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["processed"]
    [built] = (tmp_path / "cache" / "processed").iterdir()
    assert {path.suffix for path in built.iterdir()} == {".npy"}


@pytest.mark.parametrize("name", SETS)
def test_second_opening_uses_the_cache(name, tmp_path, offline, monkeypatch):
    def used(*args, **kwargs):
        raise AssertionError("read twice")

    write_ogb(name, tmp_path)
    first = task(name, root=tmp_path)
    for each in ("read_graph", "read_split", "unpack_array"):
        monkeypatch.setattr(f"bitgnn.data.ogb.source.{each}", used)
    second = task(name, root=tmp_path)
    assert torch.equal(first.data.edge_index, second.data.edge_index)
    assert first.checksum == second.checksum


def test_changed_files_are_read_again(tmp_path, offline):
    folder = write_ogb("ogbn-arxiv", tmp_path)
    first = task("ogbn-arxiv", root=tmp_path)
    write_csv(folder / "raw" / "node-label.csv.gz", np.zeros(60, dtype=int))
    second = task("ogbn-arxiv", root=tmp_path)
    assert first.checksum != second.checksum
    assert int(second.data.y.max()) == 0
    write_split_dict(folder)
    third = task("ogbn-arxiv", root=tmp_path)
    assert third.checksum not in (first.checksum, second.checksum)
    assert third.split(0).train.nonzero().flatten().tolist() == list(range(0, 60, 2))


def test_checksum_is_of_what_is_read(tmp_path, offline):
    folder = write_ogb("ogbn-proteins", tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "OGB")
    (folder / "mapping" / "README.md").write_text("other words")
    # OGB's loader renames this file.
    (folder / "raw" / "species.csv.gz").rename(folder / "raw" / "node_species.csv.gz")
    checksums = {task("ogbn-proteins", root=tmp_path / each).checksum for each in "ab"}
    assert len(checksums) == 1


def test_environment(tmp_path, offline, monkeypatch):
    write_ogb("ogbn-arxiv", tmp_path / "env")
    monkeypatch.setenv("BITGNN_DATA", str(tmp_path / "env"))
    (tmp_path / "empty").mkdir()
    assert task("OGBN_arxiv", root=tmp_path / "empty").root == tmp_path / "env"


def test_another_process_may_be_faster(tmp_path, offline, monkeypatch):
    rename = os.rename

    def slow_rename(source, target):
        shutil.copytree(source, target)
        rename(source, target)

    write_ogb("ogbn-arxiv", tmp_path)
    monkeypatch.setattr("bitgnn.data.locate.os.rename", slow_rename)
    assert task("ogbn-arxiv", root=tmp_path).num_nodes == 60
    assert len(list((tmp_path / "cache" / "processed").iterdir())) == 1


def test_failure_leaves_nothing(tmp_path, offline, monkeypatch):
    def process(self):
        raise RuntimeError("interrupted")

    write_ogb("ogbn-arxiv", tmp_path)
    with monkeypatch.context() as context:
        context.setattr(nodeproppred().PygNodePropPredDataset, "process", process)
        with pytest.raises(RuntimeError, match="interrupted"):
            task("ogbn-arxiv", root=tmp_path)
    assert not list((tmp_path / "cache" / "processed").iterdir())
    assert task("ogbn-arxiv", root=tmp_path).num_nodes == 60


def test_without_links(tmp_path, offline, monkeypatch):
    def symlink_to(self, target):
        raise OSError("a privilege is needed")

    monkeypatch.setattr("pathlib.Path.symlink_to", symlink_to)
    write_ogb("ogbn-proteins", tmp_path / "root")
    before = listing(tmp_path / "root")
    assert task("ogbn-proteins", root=tmp_path / "root").num_nodes == 60
    assert listing(tmp_path / "root") == before


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ogbn-arxiv", "raw/edge.csv.gz"),
        ("ogbn-arxiv", "raw/node-feat.csv.gz"),
        ("ogbn-arxiv", "split/time/test.csv.gz"),
        ("ogbn-mag", "raw/relations/author___writes___paper/edge.csv.gz"),
        ("ogbn-papers100M", "raw/data.npz"),
        ("ogbn-papers100M", "raw/node-label.npz"),
    ],
)
@pytest.mark.parametrize("keep", [0, 0.5], ids=["empty", "half"])
def test_damaged_file(name, file, keep, tmp_path, offline):
    path = write_ogb(name, tmp_path) / file
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=f"'{path}' is damaged .*: fetch {SETS[name].url} again"):
        task(name, root=tmp_path)
    assert not list((tmp_path / "cache" / "processed").iterdir())
    path.write_bytes(content)
    assert task(name, root=tmp_path).num_nodes == 60


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("raw/edge.csv.gz", "a,b\n1,2\n", "are not OGB's"),
        ("raw/edge.csv.gz", "0,1\n5,77\n", "an edge leads to none of the 60 nodes"),
        ("raw/node-label.csv.gz", "3\n4\n", "are not OGB's"),
        ("raw/node-label.csv.gz", "40\n" * 60, "a label stands for no class"),
        ("raw/num-node-list.csv.gz", "59\n", "59 nodes have features, 60 have labels"),
        ("split/time/valid.csv.gz", "60\n", "are not OGB's"),
        ("split/time/valid.csv.gz", "\n".join(map(str, range(60))), "in two parts of the split"),
    ],
)
def test_files_that_do_not_fit(file, content, message, tmp_path, offline):
    folder = write_ogb("ogbn-arxiv", tmp_path)
    (folder / file).write_bytes(gzip.compress(content.encode()))
    with pytest.raises(ValueError, match=message) as info:
        task("ogbn-arxiv", root=tmp_path)
    assert str(info.value).startswith(f"The files of 'ogbn-arxiv' in '{folder}' are not OGB's (")


def test_damaged_cache(tmp_path, offline):
    write_ogb("ogbn-arxiv", tmp_path)
    task("ogbn-arxiv", root=tmp_path)
    [built] = (tmp_path / "cache" / "processed").iterdir()
    np.save(built / "x.npy", np.array([print], dtype=object))
    with pytest.raises(ValueError, match=f"delete the folder '{built}'"):
        task("ogbn-arxiv", root=tmp_path)
    shutil.rmtree(built)
    assert task("ogbn-arxiv", root=tmp_path).num_nodes == 60


def test_output_stays_clean(tmp_path, offline, capsys):
    write_ogb("ogbn-arxiv", tmp_path)
    task("ogbn-arxiv", root=tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Loading necessary files" in captured.err


@pytest.mark.parametrize("name", ["ogbn-proteins", "ogbn-mag"])
def test_task_survives_pickling(name, tmp_path, offline):
    write_ogb(name, tmp_path)
    t = task(name, root=tmp_path)
    copy = pickle.loads(pickle.dumps(t))
    out = torch.randn(60, t.num_classes)
    assert copy.evaluate(out, t.split(0).test) == t.evaluate(out, t.split(0).test)
    assert (copy.hetero is None) == (name == "ogbn-proteins")


def test_evaluate(tmp_path, offline):
    write_ogb("ogbn-arxiv", tmp_path)
    write_ogb("ogbn-proteins", tmp_path)
    arxiv, proteins = (task(name, root=tmp_path) for name in ("ogbn-arxiv", "ogbn-proteins"))
    mask = arxiv.split(0).train
    perfect = torch.nn.functional.one_hot(arxiv.data.y, 40).float()
    perfect[mask.nonzero()[:3]] = 0.0
    perfect[mask.nonzero()[:3].flatten(), (arxiv.data.y[mask][:3] + 1) % 40] = 1.0
    assert arxiv.evaluate(perfect, mask) == pytest.approx(100 * 27 / 30)
    labels = proteins.data.y.float()
    assert proteins.evaluate(labels, mask) == 100.0
    assert proteins.evaluate(-labels, mask) == 0.0
    with pytest.raises(ValueError, match=r"shape \(60, 112\) \(got \(60, 2\)\)"):
        proteins.evaluate(torch.zeros(60, 2), mask)
    labels[mask.nonzero()[0]] = float("nan")
    assert np.isnan(proteins.evaluate(labels, mask))
