import pytest
from torch_geometric import datasets

from bitgnn.data import registry
from bitgnn.data.ogb import SETS, OGBSource
from bitgnn.data.registry import ENTRIES, lookup
from bitgnn.data.source import PyGSource


def test_names_are_unique_without_regard_to_case():
    names = {entry.name.casefold().replace("_", "-") for entry in ENTRIES}
    assert len(names) == len(ENTRIES)
    assert not names & registry.REFUSED.keys()


@pytest.mark.parametrize("name", ["cora", "CORA", "Cora"])
def test_lookup_ignores_case(name):
    assert lookup(name).name == "Cora"
    assert lookup(name).family == "Planetoid"


def test_lookup_tells_families_apart():
    assert lookup("citationfull-cora").family == "CitationFull"
    assert lookup("cora-ml").name == "Cora_ML"
    assert lookup("roman_empire").name == "Roman-empire"


def test_lookup_unknown():
    with pytest.raises(ValueError, match=r"'Corra': did you mean 'Cora'.*`bitgnn datasets`"):
        lookup("Corra")
    with pytest.raises(ValueError, match=r"no data set 'xyzzy': `bitgnn datasets` lists all \d+"):
        lookup("xyzzy")
    with pytest.raises(TypeError, match="is a string"):
        lookup(None)


@pytest.mark.parametrize("name", ["crocodile", "Wiki"])
def test_lookup_refuses_with_a_reason(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot be used: "):
        lookup(name)


def test_linkx_is_complete():
    ours = {entry.name for entry in ENTRIES if entry.family == "LINKXDataset"}
    assert ours | {"wiki"} == set(datasets.LINKXDataset.datasets)
    with_splits = {name for name in ours if lookup(name).splits[0] == "published"}
    assert with_splits == set(datasets.LINKXDataset.splits)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_pyg_knows_every_entry(entry):
    if entry.family in ("OGB", "scikit-learn"):
        assert not isinstance(entry.load, PyGSource)
        return
    assert entry.load.family == entry.family
    folders = {str(file.parent) for file in entry.load.raw_files()}
    assert len(folders) == 1
    assert folders.pop().startswith(f"{entry.family}/")


def test_binary_sets_are_measured_by_rocauc():
    rocauc = {entry.name for entry in ENTRIES if entry.metric == "rocauc"}
    assert rocauc == {"Minesweeper", "Tolokers", "Questions", "genius", "ogbn-proteins"}


def test_ogb_is_complete():
    entries = [entry for entry in ENTRIES if entry.family == "OGB"]
    assert [entry.name for entry in entries] == list(SETS)
    for entry in entries:
        assert entry.load == OGBSource(entry.name)
        assert entry.splits == ("public",)
        assert entry.size[3] == SETS[entry.name].num_outputs
    assert lookup("OGBN_Papers100m").name == "ogbn-papers100M"
