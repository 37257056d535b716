import pickle
from pathlib import Path

import pytest

from bitgnn.data import DataNotFoundError
from bitgnn.data.locate import built_once, cache_dir, find, not_found, search_path, writable


def test_cache_dir(monkeypatch, tmp_path):
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BITGNN_CACHE", "a/../b")
    assert cache_dir() == tmp_path / "b"
    monkeypatch.delenv("BITGNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/bitgnn")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_dir() == Path("/home/someone/.cache/bitgnn")


def test_writable(tmp_path):
    assert writable(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"Cannot create .*file/b'.*set \$BITGNN_CACHE"):
        writable(tmp_path / "file" / "b")


def test_search_path(monkeypatch, tmp_path):
    downloads = tmp_path / "cache" / "data"
    monkeypatch.setenv("BITGNN_DATA", "/env")
    given = tmp_path / "graphs"
    given.mkdir()
    assert search_path(str(given)) == [given, Path("/env"), downloads]
    assert search_path() == [Path("/env"), downloads]
    monkeypatch.setenv("BITGNN_DATA", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert search_path(Path("~/graphs")) == [given, downloads]
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", "~/lost"):
        with pytest.raises(ValueError, match=f"^The root '{root}' is no folder"):
            search_path(root)


def test_find_wants_all_files(tmp_path):
    roots = [tmp_path / name for name in ("missing", "partial", "whole", "later")]
    for root in roots[1:]:
        root.mkdir()
        (root / "a").touch()
    for root in roots[2:]:
        (root / "b").touch()
    files = [Path("a"), Path("b")]
    assert find(files, roots) == tmp_path / "whole"
    assert find(files, roots[:2]) is None


def test_not_found_is_one_line():
    files = [Path("F/N/raw/x.txt"), Path("F/N/raw/y.txt")]
    error = not_found("N", files, [Path("/one"), Path("/two")], "no network")
    assert str(error) == (
        "The raw files of 'N' are not in '/one', '/two' and cannot be downloaded (no network): "
        "put x.txt, y.txt into '/one/F/N/raw', or set $BITGNN_DATA to a folder that has 'F/N/raw'"
    )
    assert isinstance(error, FileNotFoundError) and isinstance(error, ValueError)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is DataNotFoundError and str(copy) == str(error)


def test_built_once(tmp_path):
    seen = []

    def build(place):
        assert not place.exists()
        place.mkdir()
        (place.parent / "beside").mkdir()
        (place / "file").write_text("whole")
        seen.append(place)
        if len(seen) == 1:
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        built_once(tmp_path / "built", build)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        assert (built_once(tmp_path / "built", build) / "file").read_text() == "whole"
        assert [path.name for path in tmp_path.iterdir()] == ["built"]
    assert len(seen) == 2
