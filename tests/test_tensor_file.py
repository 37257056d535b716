import pytest
import safetensors.torch
import torch

from bitgnn.tensor_file import checksum, from_bytes, to_bytes

METADATA = {"about": '{"key": "é"}', "version": "2"}


def make_tensors():
    shared = torch.arange(6, dtype=torch.float32).view(2, 3)
    return {
        "weight": shared,
        "transposed": shared.t(),
        "scalar": torch.tensor(3),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "empty": torch.empty(0, 4),
    }


def test_round_trip_is_exact():
    tensors = make_tensors()
    found, metadata = from_bytes(to_bytes(tensors, METADATA))
    assert metadata.pop("sha256") == checksum(tensors, METADATA)
    assert metadata == METADATA
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


def test_every_flipped_bit_is_noticed():
    content = to_bytes({"a": torch.randn(3), "b": torch.arange(3)}, METADATA)
    tensors, metadata = from_bytes(content)
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            try:
                found, about = from_bytes(bytes(damaged))
            except ValueError:
                continue
            # Only a file without a checksum is none the wiser; or one that means the same.
            if "sha256" in about:
                assert about == metadata
                assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("keep", range(0, 400, 13))
def test_what_is_cut_is_refused(keep):
    content = to_bytes(make_tensors(), METADATA)
    with pytest.raises(ValueError):
        from_bytes(content[:keep])


def test_no_metadata():
    assert from_bytes(safetensors.torch.save({"a": torch.ones(1)}))[1] == {}


def test_a_larger_header_than_allowed_is_refused():
    content = to_bytes(make_tensors(), METADATA)
    length = int.from_bytes(content[:8], "little")
    assert from_bytes(content, length)[0].keys() == make_tensors().keys()
    with pytest.raises(ValueError, match=f"a header of {length} bytes; {length - 1} are allowed"):
        from_bytes(content, length - 1)
