import pytest

from bitgnn.experiment.format import (
    TO_DISTILLED,
    count,
    difference,
    excludes_zero,
    has_distilled,
    interval,
    mean_sd,
    memory,
    metric_name,
    notes,
    number,
    precision_name,
    seed_list,
    share,
)
from bitgnn.experiment.rows import rows_from_records


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (94_412, "92.2 KiB"),
     ((1 << 20) - 1, "1.00 MiB"), (3 << 20, "3.00 MiB"), (5 << 50, "5120 TiB"), (None, "–")],
)  # fmt: skip
def test_memory(value, text):
    assert memory(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1270, "1.27 k"), (9_999, "10.0 k"), (99_990, "100 k"),
     (999_999, "1.00 M"), (1e30, "1000000000000000 P"),
     (62_392_320, "62.4 M"), (1.25e9, "1.25 G"),
     (None, "–")],
)  # fmt: skip
def test_count(value, text):
    assert count(value) == text


def test_number_has_a_real_minus_and_no_negative_zero():
    assert number(-1.234, signed=True) == "−1.23"
    assert number(1.2, signed=True) == "+1.20"
    assert number(-0.001, signed=True) == number(-0.001) == "0.00"


@pytest.mark.parametrize(
    ("seeds", "text"),
    [([0], "seed 0"), ([1, 0], "seeds 0, 1"), ([0, 1, 2, 3], "seeds 0–3"),
     ([9, 0, 1, 2, 5], "seeds 0–2, 5, 9")],
)  # fmt: skip
def test_seed_list(seeds, text):
    assert seed_list(seeds) == text


def test_cells():
    row = {"precision": "absmean", "mean": 81.5, "sd": 0.604, "diff_mean": -0.5,
           "diff_low": -1.0, "diff_high": 0.25}  # fmt: skip
    assert mean_sd(row) == "81.50 ± 0.60"
    assert difference(row) == "−0.50 [−1.00, +0.25]"
    assert not excludes_zero(row)
    assert excludes_zero({**row, "diff_high": -0.1})
    assert excludes_zero({**row, "diff_low": 0.1})
    assert mean_sd({**row, "sd": None}) == "81.50"
    assert mean_sd({**row, "mean": None}) == "–"
    alone = {**row, "diff_low": None, "diff_high": None}
    assert difference(alone) == "−0.50"
    assert not excludes_zero(alone)
    assert interval(row) == "[−1.00, +0.25]"
    assert interval(alone) == ""
    nothing = {**alone, "diff_mean": None}
    assert difference(nothing) == "–"
    assert difference({**nothing, "precision": "fp32"}) == ""
    assert [share(value) for value in (0.314, 0.0, 1.0, None)] == ["31 %", "0 %", "100 %", "–"]


def test_difference_to_distilled():
    row = {"precision": "absmean", "diff_mean": None, "diff_distilled_mean": 0.5,
           "diff_distilled_low": 0.25, "diff_distilled_high": 0.75}  # fmt: skip
    assert difference(row, TO_DISTILLED) == "+0.50 [+0.25, +0.75]"
    assert excludes_zero(row, TO_DISTILLED)
    assert not excludes_zero(row)
    nothing = {**row, "diff_distilled_mean": None, "diff_distilled_low": None}
    assert difference(nothing, TO_DISTILLED) == ""  # Few rows have one: none is missing.
    assert has_distilled([nothing, row])
    assert not has_distilled([nothing])


def test_names():
    assert precision_name("fp32") == "32-bit"
    assert precision_name("fp32-distilled") == "32-bit distilled"
    assert precision_name("absmean") == "absmean"
    assert [metric_name(name) for name in ("accuracy", "rocauc", "f1")] == [
        "accuracy", "ROC AUC", "f1",
    ]  # fmt: skip


def test_notes(records):
    assert notes(rows_from_records(records(seeds=range(3)))) == []
    given = records(seeds=range(4), diverged=[("absmean", 1), ("fp32", 2)])
    assert notes(rows_from_records(given)) == [
        "Cora gcn 32-bit: seed 2 of 4 diverged; the mean is over the other 3.",
        "Cora gcn absmean: seed 1 of 4 diverged; the mean is over the other 3.",
        "Cora gcn absmean: the difference is over 2 seeds, finished on both sides.",
        "Cora gcn absmedian: the difference is over 3 seeds, finished on both sides.",
    ]
    taught = records(seeds=range(3), precisions=("fp32", "fp32-distilled", "absmean"),
                     diverged=[("fp32-distilled", 2)], teacher="same")  # fmt: skip
    assert notes(rows_from_records(taught)) == [
        "Cora gcn 32-bit distilled: seed 2 of 3 diverged; the mean is over the other 2.",
        "Cora gcn absmean: the difference to distilled is over 2 seeds, finished on both sides.",
    ]
    assert notes(rows_from_records(records(seeds=[0], precisions=["fp32", "absmean"]))) == [
        "Cora gcn absmean: one pair of runs gives no interval."
    ]
    lost = records(seeds=[0, 1], precisions=["fp32", "absmean"])
    for each in lost[2:]:
        each["diverged"] = True
    assert notes(rows_from_records(lost)) == [
        "Cora gcn absmean: no run finished, seeds 0, 1 diverged."
    ]
    assert notes(rows_from_records(records(precisions=["absmean"]))) == [
        "Cora gcn absmean: no finished 32-bit run of the same seeds, no difference."
    ]
