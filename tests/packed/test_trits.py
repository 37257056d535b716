import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.packed.trits import from_trits, to_trits


def reference(values):
    r"""The bytes by the formula, one value at a time."""
    flat = [int(value) + 1 for value in values.reshape(-1)]
    groups = [flat[start : start + 5] for start in range(0, len(flat), 5)]
    return [sum(digit * 3**place for place, digit in enumerate(group)) for group in groups]


@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=3),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.int8, torch.int64, torch.float32]),
)
def test_round_trip_and_formula(shape, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-1, 2, shape, generator=generator).to(dtype)
    packed = to_trits(values)
    assert packed.tolist() == reference(values)
    found = from_trits(packed, values.shape)
    assert found.dtype == torch.int8
    assert torch.equal(found.to(dtype), values)


def test_odd_shapes_of_real_layers():
    values = torch.randint(-1, 2, (1433, 7))
    packed = to_trits(values)
    assert packed.numel() == -(-1433 * 7 // 5)
    assert torch.equal(from_trits(packed, values.shape), values.to(torch.int8))


def test_values_that_are_not_ternary():
    for wrong in (2, -3, 0.5, float("nan")):
        with pytest.raises(ValueError, match="Ternary values are -1, 0 and 1 .got"):
            to_trits(torch.tensor([0.0, wrong]))


def test_bytes_that_do_not_fit():
    packed = to_trits(torch.zeros(3, 7))
    with pytest.raises(ValueError, match="40 values of shape .5, 8. take"):
        from_trits(packed, (5, 8))
    with pytest.raises(ValueError, match="got torch.int8"):
        from_trits(packed.to(torch.int8), (3, 7))
    packed[0] = 255
    with pytest.raises(ValueError, match="the data is damaged"):
        from_trits(packed, (3, 7))
