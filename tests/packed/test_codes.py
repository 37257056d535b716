import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.packed.codes import from_codes, from_trits, to_codes, to_trits

FORMS = [(to_trits, from_trits, 5), (to_codes, from_codes, 4)]


def reference(values, per_byte, base):
    r"""The bytes by the formula, one value at a time."""
    flat = [int(value) + 1 for value in values.reshape(-1)]
    flat += [0] * (-len(flat) % per_byte)
    groups = [flat[start : start + per_byte] for start in range(0, len(flat), per_byte)]
    return [sum(digit * base**place for place, digit in enumerate(group)) for group in groups]


@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=3),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.int8, torch.int64, torch.float32]),
)
def test_round_trip_and_formula(shape, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-1, 2, shape, generator=generator).to(dtype)
    for pack, unpack, per_byte in FORMS:
        packed = pack(values)
        assert packed.tolist() == reference(values, per_byte, {5: 3, 4: 4}[per_byte])
        found = unpack(packed, values.shape)
        assert found.dtype == torch.int8
        assert torch.equal(found.to(dtype), values)


@pytest.mark.parametrize(("pack", "unpack", "per_byte"), FORMS)
def test_odd_shapes_of_real_layers(pack, unpack, per_byte):
    values = torch.randint(-1, 2, (1433, 7))
    packed = pack(values)
    assert packed.numel() == -(-1433 * 7 // per_byte)
    assert torch.equal(unpack(packed, values.shape), values.to(torch.int8))


@pytest.mark.parametrize(("pack", "unpack", "per_byte"), FORMS)
def test_values_that_are_not_ternary(pack, unpack, per_byte):
    for wrong in (2, -3, 0.5, float("nan")):
        with pytest.raises(ValueError, match="Ternary values are -1, 0 and 1 .got"):
            pack(torch.tensor([0.0, wrong]))


@pytest.mark.parametrize(("pack", "unpack", "per_byte"), FORMS)
def test_bytes_that_do_not_fit(pack, unpack, per_byte):
    packed = pack(torch.zeros(3, 7))
    with pytest.raises(ValueError, match="40 values of shape .5, 8. take"):
        unpack(packed, (5, 8))
    with pytest.raises(ValueError, match="got torch.int8"):
        unpack(packed.to(torch.int8), (3, 7))
    packed[0] = 255
    with pytest.raises(ValueError, match="the data is damaged"):
        unpack(packed, (3, 7))
