import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from torch_geometric.datasets import Amazon

from bitgnn.data import DataNotFoundError, task
from bitgnn.data.registry import lookup
from bitgnn.data.source import PyGSource


def listing(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}


def test_raw_files_are_named_by_pyg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["x", "tx", "allx", "y", "ty", "ally", "graph", "test.index"]
    expected = [Path(f"Planetoid/Cora/raw/ind.cora.{name}") for name in names]
    assert lookup("Cora").load.raw_files() == expected
    assert lookup("chameleon").load.raw_files()[0].parent == Path(
        "WikipediaNetwork/chameleon/geom_gcn/raw"
    )
    assert listing(tmp_path).keys() == {tmp_path}


def test_read_only_root(tmp_path, write_raw, offline):
    root = write_raw("Photo", tmp_path / "root")
    for path in root.rglob("*"):
        path.chmod(path.stat().st_mode & ~stat.S_IWUSR & ~stat.S_IWGRP & ~stat.S_IWOTH)
    before = listing(root)
    t = task("Photo", root=root)
    assert t.root == root
    assert listing(root) == before


def test_real_root_is_not_written_to(data_root):
    before = listing(data_root / "Planetoid" / "Cora")
    task("Cora", root=data_root)
    assert listing(data_root / "Planetoid" / "Cora") == before


def test_processes_once(tmp_path, write_raw, offline, monkeypatch):
    root = write_raw("Photo", tmp_path / "root")
    first = task("Photo", root=root)

    def process(self):
        raise AssertionError("processed twice")

    monkeypatch.setattr(Amazon, "process", process)
    second = task("Photo", root=root)
    assert torch.equal(first.data.edge_index, second.data.edge_index)
    assert first.checksum == second.checksum


def test_damaged_processed_files(tmp_path, write_raw, offline):
    root = write_raw("Photo", tmp_path / "root")
    first = task("Photo", root=root)
    [folder] = (tmp_path / "cache" / "processed").iterdir()
    path = max(folder.rglob("*.pt"), key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for damaged in (b"", content[:-100], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"^'{folder}' is damaged .*: delete the folder, and"):
            task("Photo", root=root)
    (folder / "checksum").unlink()  # As an older version left it.
    path.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=rf"^'{folder}' is damaged .*: delete the folder, and"):
        task("Photo", root=root)
    path.write_bytes(content)
    assert torch.equal(task("Photo", root=root).data.x, first.data.x)


def test_root_that_does_not_exist(tmp_path):
    for name in ("Photo", "Digits", "ogbn-arxiv"):
        with pytest.raises(ValueError, match=f"The root '{tmp_path}/lost' is no folder"):
            task(name, root=tmp_path / "lost")


def test_changed_raw_files_are_processed_again(tmp_path, write_raw, offline):
    root = write_raw("Minesweeper", tmp_path / "root")
    other = write_raw("Questions", tmp_path / "other")
    first = task("Minesweeper", root=root)
    raw = root / lookup("Minesweeper").load.raw_files()[0]
    raw.write_bytes((other / lookup("Questions").load.raw_files()[0]).read_bytes() + b"\0")
    second = task("Minesweeper", root=root)
    assert first.checksum != second.checksum
    assert len(list((tmp_path / "cache" / "processed").iterdir())) == 2


def test_another_process_may_be_faster(tmp_path, write_raw, offline, monkeypatch):
    rename = os.rename

    def slow_rename(source, target):
        shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr("bitgnn.data.locate.os.rename", slow_rename)
    t = task("Photo", root=write_raw("Photo", tmp_path / "root"))
    assert t.num_nodes == 12
    assert len(list((tmp_path / "cache" / "processed").iterdir())) == 1


def test_failed_processing_leaves_nothing(tmp_path, write_raw, offline, monkeypatch):
    def process(self):
        raise RuntimeError("interrupted")

    root = write_raw("Photo", tmp_path / "root")
    with monkeypatch.context() as context:
        context.setattr(Amazon, "process", process)
        with pytest.raises(RuntimeError, match="interrupted"):
            task("Photo", root=root)
    assert not list((tmp_path / "cache" / "processed").iterdir())
    assert task("Photo", root=root).num_nodes == 12


def test_looks_in_root_then_environment(tmp_path, write_raw, offline, monkeypatch):
    root, env = write_raw("Photo", tmp_path / "root"), write_raw("Photo", tmp_path / "env")
    monkeypatch.setenv("BITGNN_DATA", str(env))
    assert task("Photo", root=root).root == root
    assert task("Photo").root == env
    (tmp_path / "empty").mkdir()
    assert task("Photo", root=tmp_path / "empty").root == env


def test_offline_and_missing(tmp_path, offline):
    (tmp_path / "root").mkdir()
    with pytest.raises(DataNotFoundError) as info:
        task("Photo", root=tmp_path / "root")
    message = str(info.value)
    assert "\n" not in message
    assert f"'{tmp_path}/root', '{tmp_path}/cache/data'" in message
    assert "(no network)" in message
    assert f"put amazon_electronics_photo.npz into '{tmp_path}/root/Amazon/Photo/raw'" in message
    assert info.value.__cause__ is None and info.value.__suppress_context__


def test_download(tmp_path, write_raw, monkeypatch):
    def download(self):
        shutil.copy(raw, self.raw_dir)

    raw = next(write_raw("Photo", tmp_path / "upstream").rglob("*.npz"))
    monkeypatch.delenv("BITGNN_DATA", raising=False)
    monkeypatch.setattr(PyGSource, "_ping", lambda self: None)
    monkeypatch.setattr(Amazon, "download", download)
    (tmp_path / "root").mkdir()
    t = task("Photo", root=tmp_path / "root")
    assert t.root == tmp_path / "cache" / "data"
    assert not any((tmp_path / "root").iterdir())
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["data", "processed"]
    raw.unlink()  # It is not fetched a second time:
    assert task("Photo").checksum == t.checksum


def test_interrupted_download_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
    def download(self):
        Path(self.raw_dir, self.raw_file_names).write_bytes(b"half of")
        raise ConnectionResetError("connection lost")

    monkeypatch.delenv("BITGNN_DATA", raising=False)
    monkeypatch.setattr(PyGSource, "_ping", lambda self: None)
    monkeypatch.setattr(Amazon, "download", download)
    with pytest.raises(DataNotFoundError, match="connection lost"):
        task("Photo")
    assert not list((tmp_path / "cache").rglob("*"))


def test_corrupt_file(tmp_path, offline):
    for file in lookup("Cora").load.raw_files():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"not what it was")
    with pytest.raises(ValueError, match=r"ind\.cora\.x' is \w{64}, expected 23cf\w+: delete"):
        task("Cora", root=tmp_path)
