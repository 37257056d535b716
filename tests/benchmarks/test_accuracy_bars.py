import math

import pytest

from benchmarks.accuracy_bars import BARS, MOONSHOT, judge, judge_all, verdicts_markdown

AT_ZERO, LOW, DISTILLED, MEAN, SPREAD = BARS


def row(model="gcn", section="public", precision="absmean", **values):
    numbers = {"diff_mean": 0.2, "diff_low": -0.1, "diff_distilled_mean": -0.1}
    numbers |= {"diff_distilled_high": 0.1, "sd": 0.5, "sd_fp32": 0.5}
    seeds = list(range(20))
    runs = {"seeds": seeds, "seeds_wanted": seeds, "diverged": [], "pairs": 20}
    runs |= {"pairs_distilled": 20, "section": section, "precision": precision}
    return {"dataset": "Cora", "model": model, **runs, **numbers, **values}


@pytest.mark.parametrize(
    ("bar", "values", "met"),
    [
        (AT_ZERO, {"diff_mean": 0.0}, True),
        (AT_ZERO, {"diff_mean": -0.01}, False),
        (LOW, {"diff_low": -0.29}, True),
        (LOW, {"diff_low": -0.3}, False),
        (DISTILLED, {"diff_distilled_mean": -0.49}, True),
        (DISTILLED, {"diff_distilled_mean": -0.5}, False),
        (SPREAD, {"sd": 1.3, "sd_fp32": 1.0}, True),
        (SPREAD, {"sd": 1.31, "sd_fp32": 1.0}, False),
        (SPREAD, {"sd": 0.1, "sd_fp32": 0.0}, False),
        (MOONSHOT, {"diff_distilled_high": 0.0}, True),
        (MOONSHOT, {"diff_distilled_high": -0.01}, False),
    ],
)
def test_a_bar_and_its_edge(bar, values, met):
    verdict = judge(bar, [row(), row("sage", **values)])
    assert verdict.met is met
    assert (verdict.judged, verdict.cells) == (2, 2)
    assert len(verdict.missed) == (not met)
    if not met:
        assert verdict.worst == "Cora sage"
        assert verdict.missed[0].startswith("Cora sage ")


def test_the_mean_over_cells():
    poor, good = {"diff_distilled_mean": -0.45}, {"diff_distilled_mean": 0.0}
    met = judge(MEAN, [row("gcn", **poor), row("sage", **good)])
    assert (met.met, met.missed) == (True, [])
    assert met.slack == pytest.approx(0.25 - 0.225)
    missed = judge(MEAN, [row("gcn", **poor), row("sage", **poor), row("gat", **good)])
    assert missed.met is False
    assert missed.slack == pytest.approx(0.25 - 0.3)
    assert missed.missed == ["mean over cells −0.05"]


@pytest.mark.parametrize(
    "lacks", [{"seeds": list(range(19))}, {"seeds": []}, {"pairs": 19}, {"diff_mean": None}]
)
def test_a_cell_without_all_its_runs_leaves_a_bar_open(lacks):
    verdict = judge(AT_ZERO, [row(), row("sage", **lacks)])
    assert (verdict.met, verdict.judged, verdict.cells) == (None, 1, 2)
    # What is missed already stays missed.
    assert judge(AT_ZERO, [row(diff_mean=-1.0), row("sage", **lacks)]).met is False
    # But the mean over cells is open until all are there.
    poor = row(diff_distilled_mean=-3.0)
    assert judge(MEAN, [poor, row("sage", seeds=[])]).met is None


def test_nothing_has_been_run():
    verdict = judge(AT_ZERO, [row(seeds=[], diff_mean=None)])
    assert (verdict.met, verdict.judged, verdict.slack, verdict.missed) == (None, 0, None, [])


def test_without_a_distilled_side_its_bars_are_open():
    rows = [row(pairs_distilled=0, diff_distilled_mean=None, diff_distilled_high=None)]
    assert [judge(bar, rows).met for bar in (DISTILLED, MEAN, MOONSHOT)] == [None] * 3
    assert judge(AT_ZERO, rows).met is True


@pytest.mark.parametrize("bar", [*BARS, MOONSHOT])
def test_a_cell_with_a_diverged_run_misses_every_bar(bar):
    verdict = judge(bar, [row(), row("sage", diverged=[3])])
    assert verdict.met is False
    assert "a run diverged" in verdict.missed[0]
    assert verdict.slack is None or math.isfinite(verdict.slack)


def test_all_bars_of_all_sections():
    rows = [row(precision=each) for each in ("fp32", "fp32-distilled", "absmean", "absmedian")]
    rows += [row(section="4-bit", diff_mean=-9.0, diff_distilled_high=-0.5)]
    verdicts = judge_all(rows)
    assert len(verdicts) == 6 + 6 + 1
    assert [v.met for v in verdicts] == [True] * 12 + [False]
    text = verdicts_markdown(verdicts)
    assert text.count("| met |") == 12
    assert "- 4-bit, absmean, 95 % interval against distilled reaches 0: Cora gcn −0.50" in text
