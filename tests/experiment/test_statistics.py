import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bitgnn.experiment.statistics import pair_by_seed, paired_difference, summary

numbers = st.floats(0, 100)
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=20)


def oracle(a, b, confidence):
    d = [x - y for x, y in zip(a, b, strict=True)]
    n = len(d)
    mean = math.fsum(d) / n
    sd = math.sqrt(math.fsum((each - mean) ** 2 for each in d) / (n - 1))
    margin = stats.t.ppf(1 - (1 - confidence) / 2, df=n - 1) * sd / math.sqrt(n)
    return mean, mean - margin, mean + margin


def close(found, expected):
    return found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_summary():
    assert summary([1.0, 2.0, 4.0]) == (pytest.approx(7 / 3), pytest.approx(math.sqrt(7 / 3)))
    assert summary([5.0]) == (5.0, None)
    assert summary([]) == (None, None)


def test_paired_difference_of_a_published_example():
    # Ten pairs of extra hours of sleep, from Student's paper of 1908.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired_difference(first, second)
    assert found == pytest.approx((-1.58, -2.4598858, -0.7001142))


@given(pairs, st.floats(0.5, 0.999))
def test_paired_difference_equals_the_formula(values, confidence):
    a, b = zip(*values, strict=True)
    assert close(paired_difference(a, b, confidence), oracle(a, b, confidence))


@given(pairs, st.floats(-50, 50))
def test_shift_of_one_side_shifts_the_interval(values, shift):
    a, b = zip(*values, strict=True)
    moved = paired_difference([x + shift for x in a], b)
    assert close(moved, tuple(bound + shift for bound in paired_difference(a, b)))


@given(pairs)
def test_swapped_sides_negate_the_interval(values):
    a, b = zip(*values, strict=True)
    mean, low, high = paired_difference(a, b)
    assert close(paired_difference(b, a), (-mean, -high, -low))


@given(pairs, st.randoms())
def test_order_of_the_pairs_does_not_matter(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    before = paired_difference(*zip(*values, strict=True))
    assert close(paired_difference(*zip(*shuffled, strict=True)), before)


@given(pairs)
def test_interval_contains_the_mean(values):
    mean, low, high = paired_difference(*zip(*values, strict=True))
    assert low <= mean <= high


@given(pairs)
def test_more_confidence_never_narrows_the_interval(values):
    a, b = zip(*values, strict=True)
    _, low, high = paired_difference(a, b, 0.9)
    _, lower, higher = paired_difference(a, b, 0.99)
    assert lower <= low
    assert high <= higher


def test_few_pairs():
    assert paired_difference([3.0], [1.0]) == (2.0, None, None)
    assert paired_difference([], []) == (None, None, None)
    assert paired_difference([3.0, 4.0], [1.0, 2.0]) == (2.0, 2.0, 2.0)


def test_pairs_are_made_by_seed_not_by_position():
    a = {3: 30.0, 1: 10.0, 2: 20.0, 7: None}
    b = {1: 1.0, 2: None, 3: 3.0, 7: 7.0, 9: 9.0}
    assert pair_by_seed(a, b) == ([10.0, 30.0], [1.0, 3.0])


def test_errors():
    with pytest.raises(ValueError, match=r"same length \(got 2 and 1 values\)"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        paired_difference([1.0, 2.0], [1.0, 2.0], confidence=1.0)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="must be finite"):
            summary([1.0, value])
        with pytest.raises(ValueError, match="must be finite.*leave diverged seeds out"):
            paired_difference([1.0, 2.0], [value, 2.0])
