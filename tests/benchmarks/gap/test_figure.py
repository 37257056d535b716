from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gap.factors import BOTH_BASES, FACTORS, factors_named
from benchmarks.gap.figure import draw, signed, spread
from benchmarks.gap.plan import MODELS, Study, plan
from benchmarks.gap.results import Found, overall
from bitgnn.experiment.rows import FULL

STUDY = Study(datasets=("Digits",), seeds=(0,))


def found(name, collapse=0.0, missing=()):
    """Made-up numbers for a factor, of one base: each cell another difference."""
    (factor,) = factors_named([name])
    if factor.lines == BOTH_BASES:
        factor = replace(factor, lines=BOTH_BASES[:1])
    cells = plan(factor, STUDY)
    rows = {}
    for index, cell in enumerate(cells):
        if cell.level in missing:
            continue
        diff = None if cell.precision == "fp32" else index / 10 - 1 - collapse * (index == 0)
        rows[cell.line, cell.level, cell.dataset, cell.model] = {
            "accuracies": [70.0 + index, 71.0 + index, None],
            "mean": 70.5 + index,
            "diff_mean": diff,
            "diff_low": None if diff is None else diff - 0.5,
            "diff_high": None if diff is None else diff + 0.5,
        }
    return Found(factor, cells, rows, len(rows), len(cells))


def drawn(ax):
    return {c.get_label(): c.lines[0].get_ydata().tolist() for c in ax.containers}


def test_panel_a_data_set_and_line_a_model():
    known = found("layer")
    (ax,) = draw(known).axes
    expected = {
        model: [
            known.rows["scratch", level, "Digits", model]["diff_mean"] for level in known.levels
        ]
        for model in MODELS
    }
    assert drawn(ax) == expected
    assert [label.get_text() for label in ax.get_xticklabels()] == ["none", "first", "last"]
    assert {text.get_text() for text in ax.texts} == set(MODELS)


def test_panel_a_model_and_line_a_side():
    known = found("learning-rate")
    axes = draw(known).axes
    assert [ax.get_title() for ax in axes] == list(MODELS)
    for ax, model in zip(axes, MODELS, strict=True):
        sides = drawn(ax)
        assert list(sides) == ["32-bit", "absmean", "absmedian"]
        expected = [known.rows["absmean", level, "Digits", model]["mean"] for level in known.levels]
        assert sides["absmean"] == expected


def test_what_is_missing_is_left_out():
    known = found("layer", missing=("first",))
    (ax,) = draw(known).axes
    assert all(len(values) == 2 for values in drawn(ax).values())
    assert overall(known, "scratch", "first") is None
    everything = [row["diff_mean"] for place, row in known.rows.items() if place[1] == "last"]
    assert overall(known, "scratch", "last") == pytest.approx(np.mean(everything))


def test_a_collapse_leaves_room_for_tenths():
    (ax,) = draw(found("layer")).axes
    assert ax.get_yscale() == "linear"
    (ax,) = draw(found("layer", collapse=60.0)).axes
    assert ax.get_yscale() == "symlog"
    low, high = ax.get_ylim()
    assert low < -61.5 and high > 1


def test_wide_intervals_do_not_press_the_means_flat():
    known = found("layer")
    for row in known.rows.values():
        row["diff_low"], row["diff_high"] = -1000.0, 1000.0
    (ax,) = draw(known).axes
    low, high = ax.get_ylim()
    means = [row["diff_mean"] for row in known.rows.values()]
    assert low < min(means) and max(means) < high
    assert high - low < 3 * max(2, max(means) - min(means))


@pytest.mark.parametrize("factor", FACTORS, ids=lambda factor: factor.name)
def test_names_of_lines_do_not_overlap(factor):
    figure = draw(found(factor.name))
    figure.draw_without_rendering()
    labels = [text.get_window_extent() for text in figure.axes[-1].texts]
    assert len(labels) == len(figure.axes[-1].containers) > 0
    assert not any(a.overlaps(b) for i, a in enumerate(labels) for b in labels[:i])
    width, height = figure.canvas.get_width_height()
    assert all(b.x0 >= 0 and b.x1 <= width and b.y0 >= 0 and b.y1 <= height for b in labels)


def test_sides_look_the_same_everywhere():
    colors = {}
    for factor in FACTORS:
        known = found(factor.name)
        sides = {cell.line for cell in known.cells if cell.precision in FULL}
        for container in draw(known).axes[0].containers:
            if container.get_label() in sides:
                line = container.lines[0]
                colors.setdefault(container.get_label(), set()).add(line.get_color())
    assert {name: len(found) for name, found in colors.items()} == {
        "32-bit": 1,
        "32-bit distilled": 1,
    }


@given(st.lists(st.floats(0, 1), max_size=8).map(sorted), st.floats(0.01, 0.1))
def test_spread(places, gap):
    moved = spread(places, gap)
    assert len(moved) == len(places)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(moved))
    assert all(place <= 1 for place in moved)
    far = all(b - a >= gap for a, b in pairwise(places))
    if far:
        assert moved == pytest.approx(places)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (-0.0, "0"), (1e-12, "0"), (0.5, "+0.5"), (-20.0, "−20")]
)
def test_signed(value, text):
    assert signed(value) == text
