import numpy as np
import pytest
import torch

from bitgnn.data.ogb.arrays import map_array, open_array, unpack_array, write_arrays


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(5, 3),
        torch.arange(4),
        torch.tensor([True, False]),
        torch.randn(3, 4).t(),
        torch.randn(6, 4)[::2, 1:],
    ],
    ids=["matrix", "integers", "mask", "transposed", "slice"],
)
def test_round_trip(tensor, tmp_path):
    write_arrays(tmp_path, {"a.b": tensor})
    assert torch.equal(open_array(tmp_path / "a.b.npy"), tensor)


def test_a_file_is_mapped_and_never_changed(tmp_path):
    write_arrays(tmp_path, {"x": torch.zeros(3)})
    first, second = map_array(tmp_path / "x.npy"), map_array(tmp_path / "x.npy")
    # What is written to the file by others is seen, what is written to the tensor is not kept.
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r+")
    mapped[0] = 1
    mapped.flush()
    assert first[0] == second[0] == 1
    first[1] = 2
    assert second[1] == map_array(tmp_path / "x.npy")[1] == 0


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_unpack(save, tmp_path):
    features, others = np.random.rand(700, 300).astype(np.float32), np.arange(3)
    save(tmp_path / "data.npz", others=others, node_feat=features)
    unpack_array(tmp_path / "data.npz", "node_feat", tmp_path / "x.npy")
    assert np.array_equal(np.load(tmp_path / "x.npy"), features)
    with pytest.raises(KeyError, match="edge_index"):
        unpack_array(tmp_path / "data.npz", "edge_index", tmp_path / "e.npy")


class Mark:
    r"""Leaves a trace where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([Mark(tmp_path / "mark")], dtype=object))
    with pytest.raises(ValueError, match=f"x.npy' is damaged.*delete the folder '{tmp_path}'"):
        open_array(tmp_path / "x.npy")
    assert not (tmp_path / "mark").exists()


def test_damaged(tmp_path):
    write_arrays(tmp_path, {"x": torch.zeros(100)})
    content = (tmp_path / "x.npy").read_bytes()
    for part in (content[:-8], content[:50], b""):
        (tmp_path / "x.npy").write_bytes(part)
        with pytest.raises(ValueError, match=r"x\.npy' is damaged"):
            open_array(tmp_path / "x.npy")
