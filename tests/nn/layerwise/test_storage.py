import numpy as np
import pytest
import torch

from bitgnn.nn.layerwise.storage import Storage


def test_in_memory():
    with Storage() as storage:
        matrix = storage.empty(3, 2, torch.float32)
        storage.free(matrix)
        assert storage.keep(matrix) is matrix
    assert matrix.shape == (3, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_last_one_stays(tmp_path, dtype):
    out = tmp_path / "new" / "out.npy"
    with Storage(out) as storage:
        first, second = (storage.empty(3, 2, dtype).fill_(value) for value in (1, 2))
        assert len(list(out.parent.rglob("*.npy"))) == 2
        storage.free(first)
        storage.free(torch.ones(1))  # a caller's
        assert len(list(out.parent.rglob("*.npy"))) == 1
        assert not out.exists()
        kept = storage.keep(second)
        assert kept is second and bool((first == 1).all())  # whoever has it may read it
    assert [path.name for path in out.parent.iterdir()] == ["out.npy"]
    assert (
        np.array_equal(np.load(out), np.full((3, 2), 2))
        and np.load(out).dtype == kept.numpy().dtype
    )
    kept[0, 0] = 7  # It is the file.
    assert np.load(out)[0, 0] == 7


def test_no_numbers(tmp_path):
    with Storage(tmp_path / "out.npy") as storage:
        storage.keep(storage.empty(0, 4, torch.float32))
    assert np.load(tmp_path / "out.npy").shape == (0, 4)


def test_nothing_is_left_behind(tmp_path):
    out = tmp_path / "out.npy"
    out.write_bytes(b"before")
    with pytest.raises(KeyError), Storage(out) as storage:
        storage.empty(3, 2, torch.float32)
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
    assert out.read_bytes() == b"before"


def test_only_regular_files_are_replaced(tmp_path):
    link, target = tmp_path / "link.npy", tmp_path / "target.npy"
    link.symlink_to(target)
    with Storage(link) as storage:
        matrix = storage.empty(2, 3, torch.float32)
        matrix.fill_(1.0)
        storage.keep(matrix)
    assert link.is_symlink() and np.load(target).tolist() == [[1.0] * 3] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.npy", "target.npy"]
    with pytest.raises(ValueError, match="'/dev/null' is a device"), Storage("/dev/null"):
        pass
