import gzip
import pickle

import pytest
import torch

from bitgnn.data import DataNotFoundError
from bitgnn.data.text import TEXTS, text_task

# Documents, training documents and classes, as published with TextGCN.
SIZES = {
    "20ng": (18846, 11314, 20),
    "R8": (7674, 5485, 8),
    "R52": (9100, 6532, 52),
    "ohsumed": (7400, 3357, 23),
    "MR": (10662, 7108, 2),
}
ENTRIES = ["a\ttrain\tearn", "b\ttest\tacq", "data/c/training/2\ttraining\tacq", "d\ttrain\tearn"]
# A line separator of Unicode, which is no end of a line, in bytes that are not UTF-8.
TEXTS_OF = [b"stock split", b"a \x85 b", b"caf\xe9 stock", b"split the stock"]


def write_corpus(root, name="R8", entries=ENTRIES, texts=TEXTS_OF, packed=False, last=b"\n"):
    contents = {
        f"{name}.txt": "\n".join(entries).encode() + last,
        f"corpus/{name}.txt": b"\n".join(texts) + last,
    }
    for file, content in contents.items():
        path = root / "text_gcn" / f"{file}{'.gz' if packed else ''}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
    return root


@pytest.fixture
def unknown(monkeypatch, tmp_path):
    """Takes files for what they are, and looks nowhere else."""
    monkeypatch.setattr("bitgnn.data.checksum.KNOWN", {})
    monkeypatch.delenv("BITGNN_DATA", raising=False)
    return tmp_path / "root"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("last", [b"", b"\n"])
def test_reads_documents_and_labels(unknown, packed, last):
    t = text_task("r8", write_corpus(unknown, packed=packed, last=last))
    assert t.name == "R8"
    assert t.documents == ("stock split", "a \x85 b", "caf\xe9 stock", "split the stock")
    assert t.classes == ("acq", "earn")
    assert t.y.tolist() == [1, 0, 0, 1]
    assert t.trains.tolist() == [True, False, True, True]
    assert t.root == unknown
    assert pickle.loads(pickle.dumps(t)).documents == t.documents  # It goes to other processes.


def test_checksum_does_not_depend_on_packing(unknown):
    plain = text_task("R8", write_corpus(unknown / "plain"))
    packed = text_task("R8", write_corpus(unknown / "packed", packed=True))
    other = text_task("R8", write_corpus(unknown / "other", texts=[*TEXTS_OF[:-1], b"split"]))
    assert plain.checksum == packed.checksum != other.checksum


def test_published_split_trains_on_all(unknown):
    t = text_task("R8", write_corpus(unknown))
    first, second = t.split(0), t.split(1)
    assert first.name == second.name == "published"
    assert first.train.tolist() == [True, False, True, True]
    assert first.test.tolist() == [False, True, False, False]
    assert not first.val.any()


def test_held_out_split_is_a_tenth_drawn_by_the_seed(unknown):
    entries = ["a\ttrain\tx"] * 47 + ["b\ttest\ty"] * 20
    root = write_corpus(unknown, entries=entries, texts=[b"text"] * 67)
    t = text_task("R8", root, split="held-out")
    splits = [t.split(seed) for seed in range(5)]
    for seed, split in enumerate(splits):
        assert split.name == f"held-out-{seed}"
        assert int(split.val.sum()) == 5
        assert torch.equal(split.train.int() + split.val.int(), t.trains.int())
        assert torch.equal(split.test, ~t.trains)
        assert torch.equal(split.val, t.split(seed).val)
    assert len({tuple(split.val.tolist()) for split in splits}) == 5
    with pytest.raises(ValueError, match="non-negative"):
        t.split(-1)


def test_evaluate(unknown):
    t = text_task("R8", write_corpus(unknown))
    out = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert t.evaluate(out, t.trains) == pytest.approx(100 * 2 / 3)
    assert t.evaluate(out, ~t.trains) == 100.0
    nothing = t.evaluate(out, torch.zeros(4, dtype=torch.bool))
    broken = t.evaluate(out.masked_fill(out == 0, float("nan")), t.trains)
    assert nothing != nothing and broken != broken
    with pytest.raises(ValueError, match=r"shape \(4, 2\).*got \(4, 3\)"):
        t.evaluate(torch.zeros(4, 3), t.trains)


def test_features_know_training_documents_alone(unknown):
    t = text_task("R8", write_corpus(unknown))
    x = t.features(t.split(0))
    assert x.layout == torch.sparse_csr and x.shape == (4, 2)  # "split" and "stock"
    assert (x.to_dense() != 0).tolist() == [[True, True], [False, False], [False, True], [True] * 2]


def test_looks_in_every_root(unknown, monkeypatch):
    elsewhere = write_corpus(unknown / "elsewhere")
    monkeypatch.setenv("BITGNN_DATA", str(elsewhere))
    assert text_task("R8", unknown).root == elsewhere
    assert text_task("R8", write_corpus(unknown / "given")).root == unknown / "given"


def test_missing_files_say_where_they_are_had(unknown):
    unknown.mkdir()
    with pytest.raises(DataNotFoundError) as error:
        text_task("MR", unknown)
    for part in ("'MR'", str(unknown), "yao8839836/text_gcn", "'mr.txt' and 'corpus/mr.txt'"):
        assert part in str(error.value)
    (write_corpus(unknown, "mr") / "text_gcn" / "corpus" / "mr.txt").unlink()
    with pytest.raises(DataNotFoundError):
        text_task("MR", unknown)


def test_other_files_than_the_known_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"checksum of '.*R8.txt' is .*expected 4ab8362c508b"):
        text_task("R8", write_corpus(tmp_path / "root"))


def test_damaged_files(unknown):
    root = write_corpus(unknown, packed=True)
    path = root / "text_gcn" / "corpus" / "R8.txt.gz"
    whole = path.read_bytes()
    for content in (whole[:-12], b"no gzip", whole[:20] + b"\xff\xff\xff" + whole[23:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"R8.txt.gz' is damaged.*delete the file"):
            text_task("R8", root)


@pytest.mark.parametrize("line", ["a\ttrain", "a\tneither\tearn", "a\ttrain-test\tearn", "a", ""])
def test_lines_that_are_no_entries(unknown, line):
    root = write_corpus(unknown, entries=[line, *ENTRIES[1:]])
    with pytest.raises(ValueError, match=r"A line of .*R8.txt' is name, split"):
        text_task("R8", root)


def test_lists_of_different_length(unknown):
    with pytest.raises(ValueError, match=r"lists 4 documents, .* has 3"):
        text_task("R8", write_corpus(unknown, texts=TEXTS_OF[:3]))


def test_unknown_names(unknown):
    with pytest.raises(ValueError, match="no corpus 'oshumed': did you mean 'ohsumed'"):
        text_task("oshumed", unknown)
    with pytest.raises(ValueError, match="there are 20ng, R8, R52, ohsumed, MR"):
        text_task("imdb", unknown)
    with pytest.raises(TypeError, match=r"is a string \(got 8\)"):
        text_task(8, unknown)
    with pytest.raises(ValueError, match="'R8' has no split 'random'.*'published', 'held-out'"):
        text_task("R8", unknown, split="random")


@pytest.mark.parametrize("name", TEXTS)
def test_real_statistics(name, data_root):
    if not (data_root / "text_gcn").is_dir():
        pytest.skip(f"the corpora of TextGCN not found: put them into '{data_root / 'text_gcn'}'")
    t = text_task(name, data_root)
    assert (t.num_documents, int(t.trains.sum()), t.num_classes) == SIZES[name]
    assert int(t.y.min()) == 0 and int(t.y.max()) == t.num_classes - 1
    assert t.y.bincount().min() > 0
    assert all(len(document.strip()) > 0 for document in t.documents)
