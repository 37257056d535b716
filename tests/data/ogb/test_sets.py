import shutil

import pytest

from bitgnn.data import DataNotFoundError, task
from bitgnn.data.ogb import SETS, OGBSource
from bitgnn.data.ogb.package import facts
from tests.data.ogb_files import write_ogb, write_split_dict


@pytest.mark.parametrize("name", SETS)
def test_sets_are_those_of_the_package(name):
    ours, theirs = SETS[name], facts(name)
    assert ours.folder == name.replace("-", "_")
    assert ours.url == theirs["url"]
    assert ours.archive == theirs["download_name"]
    assert ours.release == int(theirs["version"])
    assert ours.split == theirs["split"]
    assert ours.hetero == (theirs["is hetero"] == "True")
    assert (ours.graph is None) == (theirs["binary"] == "True")
    assert ours.several == (int(theirs["num tasks"]) > 1)
    assert ours.num_outputs == int(theirs["num tasks" if ours.several else "num classes"])


@pytest.mark.parametrize("name", SETS)
def test_two_layouts(name, tmp_path):
    files = SETS[name]
    direct = write_ogb(name, tmp_path / "a")
    below = write_ogb(name, tmp_path / "b" / "OGB")
    assert files.find([tmp_path, tmp_path / "a"]) == (tmp_path / "a", direct)
    assert files.find([tmp_path / "b", tmp_path / "a"]) == (tmp_path / "b", below)
    assert files.find([tmp_path]) is None


@pytest.mark.parametrize("name", SETS)
def test_each_file_is_needed(name, tmp_path):
    files, folder = SETS[name], write_ogb(name, tmp_path)
    assert files.lacking(folder) == []
    for each, path in {**files.files(folder), files.release_file: None}.items():
        place = folder / each if path is None else path
        content = place.read_bytes()
        place.unlink()
        assert files.lacking(folder) == [each]
        place.write_bytes(content)


def test_a_file_that_ogb_renamed_has_either_name(tmp_path):
    files, folder = SETS["ogbn-proteins"], write_ogb("ogbn-proteins", tmp_path)
    before = files.files(folder)
    (folder / "raw" / "species.csv.gz").rename(folder / "raw" / "node_species.csv.gz")
    after = files.files(folder)
    assert before.keys() == after.keys()
    assert before["raw/node_species.csv.gz"].name == "species.csv.gz"
    assert after["raw/node_species.csv.gz"].name == "node_species.csv.gz"
    assert files.lacking(folder) == []


def test_other_form_of_the_split(tmp_path):
    files, folder = SETS["ogbn-arxiv"], write_ogb("ogbn-arxiv", tmp_path)
    write_split_dict(folder)
    split = [name for name in files.files(folder) if name.startswith("split")]
    assert split == ["split/time/split_dict.pt"]


def test_missing(tmp_path, offline):
    (tmp_path / "root").mkdir()
    with pytest.raises(DataNotFoundError) as info:
        task("ogbn-papers100m", root=tmp_path / "root")
    assert str(info.value) == (
        f"'ogbn-papers100M' is to be fetched by hand, and it is not in '{tmp_path}/root', "
        f"'{tmp_path}/cache/data': unpack "
        "http://snap.stanford.edu/ogb/data/nodeproppred/papers100M-bin.zip and move its folder "
        f"'papers100M-bin' to '{tmp_path}/root/ogbn_papers100M', so that 'RELEASE_v1.txt', 'raw' "
        "and 'split' are in it, or set $BITGNN_DATA to a folder that has 'ogbn_papers100M'"
    )
    assert not any((tmp_path / "root").iterdir())


def test_incomplete(tmp_path, offline):
    folder = write_ogb("ogbn-mag", tmp_path / "OGB")
    (folder / "raw" / "num-node-dict.csv.gz").unlink()
    with pytest.raises(DataNotFoundError, match=f"'{folder}' lacks raw/num-node-dict.csv.gz: "):
        task("ogbn-mag", root=tmp_path)
    shutil.rmtree(folder / "split")
    with pytest.raises(DataNotFoundError, match=r"paper/train\.csv\.gz and 2 more: unpack"):
        task("ogbn-mag", root=tmp_path)


def test_an_older_release_is_refused(tmp_path, offline):
    folder = write_ogb("ogbn-mag", tmp_path)
    (folder / "RELEASE_v2.txt").rename(folder / "RELEASE_v1.txt")
    with pytest.raises(DataNotFoundError, match=r"lacks RELEASE_v2\.txt"):
        task("ogbn-mag", root=tmp_path)


def test_source_finds_the_root(tmp_path, offline):
    source = OGBSource("ogbn-arxiv")
    assert source.find(tmp_path) is None
    write_ogb("ogbn-arxiv", tmp_path)
    assert source.find(tmp_path) == tmp_path
