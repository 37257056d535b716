import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.quant import StrengthSchedule

shares = st.floats(0.0, 1.0)
kinds = st.sampled_from(["constant", "step", "linear", "cosine"])


@st.composite
def schedules(draw):
    start, end = sorted([draw(shares), draw(shares)])
    return StrengthSchedule(draw(kinds), start, end)


def test_strength_is_constant_by_default():
    schedule = StrengthSchedule()
    assert [schedule(progress) for progress in (0.0, 0.3, 1.0)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "schedule,values",
    [
        (StrengthSchedule("constant", 0.5), [1.0, 1.0, 1.0, 1.0, 1.0]),
        (StrengthSchedule("step", 0.5), [0.0, 0.0, 1.0, 1.0, 1.0]),
        (StrengthSchedule("step", 0.75, 0.2), [0.0, 0.0, 0.0, 1.0, 1.0]),  # `end` is not used.
        (StrengthSchedule("linear", 0.0, 1.0), [0.0, 0.25, 0.5, 0.75, 1.0]),
        (StrengthSchedule("linear", 0.25, 0.75), [0.0, 0.0, 0.5, 1.0, 1.0]),
        (StrengthSchedule("linear", 0.5, 0.5), [0.0, 0.0, 1.0, 1.0, 1.0]),
        (StrengthSchedule("cosine", 0.0, 1.0), [0.0, 0.5 - 8**-0.5, 0.5, 0.5 + 8**-0.5, 1.0]),
        (StrengthSchedule("cosine", 0.25, 0.75), [0.0, 0.0, 0.5, 1.0, 1.0]),
    ],
    ids=lambda value: f"{value.kind}-{value.start}-{value.end}" if callable(value) else "",
)
def test_strength_at_quarters(schedule, values):
    strengths = [schedule(progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert strengths == pytest.approx(values, abs=1e-12)


@given(schedules(), shares, shares)
def test_strength_lies_in_the_unit_interval_and_never_falls(schedule, first, second):
    first, second = sorted([first, second])
    assert 0.0 <= schedule(first) <= schedule(second) <= 1.0


@given(schedules())
def test_training_ends_fully_quantized(schedule):
    assert schedule(1.0) == 1.0
    if schedule.kind in ("linear", "cosine"):
        assert schedule(schedule.end) == 1.0


@given(schedules(), shares)
def test_strength_is_zero_until_it_starts(schedule, progress):
    if schedule.kind != "constant" and progress < schedule.start:
        assert schedule(progress) == 0.0


@given(st.floats(0.0, 1.0))
def test_cosine_is_the_half_wave_of_the_linear_strength(progress):
    linear = StrengthSchedule("linear", 0.2, 0.9)(progress)
    expected = math.sin(math.pi * linear / 2) ** 2
    assert StrengthSchedule("cosine", 0.2, 0.9)(progress) == pytest.approx(expected, abs=1e-12)


def test_progress_outside_of_training_is_clamped():
    schedule = StrengthSchedule("linear", 0.0, 1.0)
    assert (schedule(-0.5), schedule(1.5)) == (0.0, 1.0)


@given(schedules())
def test_schedule_goes_through_a_dict_and_back(schedule):
    assert set(schedule.to_dict()) == {"kind", "start", "end"}
    assert StrengthSchedule.from_dict(schedule.to_dict()) == schedule
    assert {schedule, StrengthSchedule.from_dict(schedule.to_dict())} == {schedule}


def test_schedule_of_an_unknown_kind():
    with pytest.raises(ValueError, match=r"'kind' must be one of .*'cosine'\) \(got 'exp'\)"):
        StrengthSchedule("exp")


@pytest.mark.parametrize(
    "kind,start,end",
    [("linear", 0.6, 0.5), ("cosine", -0.1, 1), ("linear", 0, 1.1), ("step", 2, 3)],
)
def test_schedule_with_impossible_shares(kind, start, end):
    message = rf"0 <= start <= end <= 1 \(got start={start}, end={end}\)"
    with pytest.raises(ValueError, match=message):
        StrengthSchedule(kind, start, end)


def test_schedule_with_nan():
    with pytest.raises(ValueError, match="got start=nan"):
        StrengthSchedule("linear", float("nan"))
