import hashlib

import numpy as np
import pytest

from bitgnn.data.checksum import (
    KNOWN,
    array_digest,
    check,
    combine,
    file_digest,
    npz_digest,
)


def test_known_files():
    assert len(KNOWN) == 3 * 8 + 12 + 2 + 2 * 5
    assert all(len(digest) == 64 and int(digest, 16) for digest in KNOWN.values())
    assert KNOWN["Planetoid/Cora/raw/ind.cora.x"].startswith("23cfa55d")
    assert "WebKB/texas/raw/texas_split_0.6_0.2_9.npz" in KNOWN


def test_file_digest(tmp_path):
    content = bytes(range(256)) * 5000  # More than one chunk.
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_npz_digest_ignores_packing_but_not_content(tmp_path, write_raw):
    path = next(write_raw("Photo", tmp_path).rglob("*.npz"))
    with np.load(path, allow_pickle=True) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "class_names"}
    np.savez_compressed(tmp_path / "repacked.npz", **arrays)
    assert npz_digest(tmp_path / "repacked.npz") == npz_digest(path)
    arrays["labels"] = arrays["labels"].astype(np.int32)
    np.savez(tmp_path / "narrow.npz", **arrays)
    assert npz_digest(tmp_path / "narrow.npz") == npz_digest(path)
    arrays["labels"][0] += 1
    np.savez(tmp_path / "changed.npz", **arrays)
    assert npz_digest(tmp_path / "changed.npz") != npz_digest(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04cut off"])
def test_npz_digest_of_a_damaged_file(tmp_path, content):
    (tmp_path / "file.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.npz' is damaged .* delete the file and fetch"):
        npz_digest(tmp_path / "file.npz")


def test_npz_digest_of_something_else(tmp_path):
    np.savez(tmp_path / "file.npz", labels=np.zeros(3))
    with pytest.raises(ValueError, match="not an archive of a sparse graph"):
        npz_digest(tmp_path / "file.npz")


def test_array_digest_covers_name_type_and_shape():
    array = np.arange(6)
    digests = {
        array_digest(x=array),
        array_digest(y=array),
        array_digest(x=array.astype(np.int32)),
        array_digest(x=array.reshape(2, 3)),
    }
    assert len(digests) == 4
    assert array_digest(x=array.astype(">i8")) == array_digest(x=array.astype("<i8"))


def test_combine_ignores_order():
    assert combine({"a": "1", "b": "2"}) == combine({"b": "2", "a": "1"})
    assert combine({"a": "1", "b": "2"}) != combine({"a": "2", "b": "1"})


def test_check(tmp_path):
    file = "Planetoid/Cora/raw/ind.cora.x"
    check(file, KNOWN[file], tmp_path)
    check("some/other/file", "0" * 64, tmp_path)
    with pytest.raises(ValueError, match=rf"'{tmp_path}' is 0{{64}}, expected 23cf\w+: delete"):
        check(file, "0" * 64, tmp_path)
