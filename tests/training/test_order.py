from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bitgnn.training.distributed import Group
from bitgnn.training.order import Order

totals, sizes, processes = st.integers(1, 60), st.integers(1, 20), st.integers(1, 4)


def shares(total, batch_size, count, number=3, seed=7):
    groups = [Group(rank, count) for rank in range(count)]
    return [list(Order(total, batch_size, seed, group).of(number)) for group in groups]


@given(totals, sizes, processes)
def test_all_positions_are_dealt_out_evenly(total, batch_size, count):
    found = shares(total, batch_size, count)
    assert {len(share) for share in found} == {-(-total // count)}
    counts = Counter(position for share in found for position in share)
    assert set(counts) == set(range(total))
    assert sum(counts.values()) - total < count  # No more is filled up than must be.


@given(totals, sizes, processes)
def test_a_step_of_a_group_is_that_of_one_process(total, batch_size, count):
    total = total * count  # nothing to fill up
    found = shares(total, batch_size, count)
    (alone,) = shares(total, batch_size * count, 1)
    step = batch_size * count
    for start in range(0, total, step):
        size = min(step, total - start) // count
        first = start // count
        parts = [share[first : first + size] for share in found]
        assert [position for part in parts for position in part] == alone[start : start + step]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [
        tuple(Order(50, 8, seed).of(number))
        for seed, number in [(0, 1), (0, 2), (1, 1), (1, 2), (0, 1)]
    ]
    assert len(set(orders)) == 4
    assert orders[0] == orders[-1]


def test_no_positions():
    assert list(Order(0, 4)) == []
    assert len(Order(0, 4)) == 0
