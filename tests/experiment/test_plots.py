import numpy as np
import pytest
from matplotlib import pyplot

from bitgnn.experiment.plots import (
    MAX_POINTS,
    curves_figure,
    memory_figure,
    paired_figure,
    style,
)
from bitgnn.experiment.rows import rows_from_records


def joins(ax):
    r"""The lines that join two sides, as pairs of heights."""
    return {tuple(line.get_ydata()) for line in ax.lines if list(line.get_xdata()) == [0, 1]}


def curve(ax, label):
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return line.get_xydata()


def test_paired_figure_joins_the_same_seeds(records):
    given = records(seeds=range(6), diverged=[("absmean", 4)])
    rows = rows_from_records(given[::-1])
    figure = paired_figure(rows)
    tests = {(r["spec"]["precision"], r["spec"]["seed"]): r["test"] for r in given}
    for ax, precision in zip(figure.axes, ("absmean", "absmedian"), strict=True):
        seeds = [seed for seed in range(6) if tests[precision, seed] is not None]
        assert joins(ax) == {(tests["fp32", s], tests[precision, s]) for s in seeds}
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["32-bit", precision]
        low, high = ax.get_ylim()
        assert all(low < value < high for value in tests.values() if value is not None)
    assert figure.axes[0].get_ylabel() == "Test accuracy, %"
    assert figure.get_suptitle() == "Cora, gcn, public split"


def test_paired_figure_draws_every_seed_and_mean_with_sd(records):
    rows = rows_from_records(records(seeds=range(6), diverged=[("absmean", 4)]))
    for ax, row in zip(paired_figure(rows).axes, rows[1:], strict=True):
        for x, side in enumerate((rows[0], row)):
            (points,) = [
                line for line in ax.lines
                if len(line.get_xdata()) > 2 and set(line.get_xdata()) == {x}
            ]  # fmt: skip
            assert list(points.get_ydata()) == [a for a in side["accuracies"] if a is not None]
            center, _, (bar,) = ax.containers[x].lines
            assert center.get_ydata()[0] == side["mean"]
            low, high = bar.get_segments()[0][:, 1]
            assert (low, high) == pytest.approx(
                (side["mean"] - side["sd"], side["mean"] + side["sd"])
            )


def test_a_precision_has_its_colour_in_every_figure(records):
    given = records(seeds=range(2))
    rows = rows_from_records(given)
    paired, curves, memory = paired_figure(rows), curves_figure(given), memory_figure(rows)
    for row, bar in zip(rows, memory.axes[0].containers, strict=True):
        color = style(row["precision"])[0]
        assert bar.lines[0].get_color() == color
        for ax in curves.axes:
            labelled = {line.get_label(): line.get_color() for line in ax.lines}
            assert labelled["32-bit" if row["precision"] == "fp32" else row["precision"]] == color
    for ax, row in zip(paired.axes, rows[1:], strict=True):
        colors = [bar.lines[0].get_color() for bar in ax.containers]
        assert colors == [style("fp32")[0], style(row["precision"])[0]]


def test_axes_are_labelled(records):
    given = records(seeds=range(2))
    curves, memory = curves_figure(given), memory_figure(rows_from_records(given))
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in curves.axes + memory.axes] == [
        ("Epoch", "Validation accuracy, %"),
        ("Epoch", "Training loss"),
        ("Memory of the weights, KiB (log scale)", "Test accuracy, %, mean ± sd"),
    ]


def test_one_seed_draws_points_without_bars(records):
    given = records(seeds=[3])
    rows = rows_from_records(given)
    paired, memory = paired_figure(rows), memory_figure(rows)
    assert [len(joins(ax)) for ax in paired.axes] == [1, 1]
    for ax in paired.axes + memory.axes:
        assert ax.containers
        assert not any(bar.has_yerr for bar in ax.containers)
    assert len(curve(curves_figure(given).axes[0], "absmean")) == given[1]["epochs"]


def test_figures_of_nothing_finished_say_so(records):
    given = records(seeds=[0], precisions=["absmean"], diverged=[("absmean", 0)])
    figures = curves_figure(given), memory_figure(rows_from_records(given))
    for ax in [ax for figure in figures for ax in figure.axes]:
        assert [text.get_text() for text in ax.texts] == ["no run finished"]
    finished = records(seeds=[0])
    figures = curves_figure(finished), memory_figure(rows_from_records(finished))
    assert not any(ax.texts for figure in figures for ax in figure.axes)


@pytest.mark.parametrize("precisions", [("fp32",), ("absmean", "absmedian")])
def test_paired_figure_without_a_pair(records, precisions):
    figure = paired_figure(rows_from_records(records(precisions=precisions)))
    assert len(figure.axes) == len(precisions)
    assert not any(joins(ax) for ax in figure.axes)


def test_curves_figure_draws_mean_and_range(record):
    given = [record(seed=seed) for seed in range(3)]
    for each, values in zip(given, ([1.0, 2.0, 3.0, 9.0], [2.0, 2.0, 4.0], [6.0, None, 5.0]),
                            strict=True):  # fmt: skip
        each["curves"]["val"] = values
    ax = curves_figure(given).axes[0]
    drawn = curve(ax, "32-bit")
    np.testing.assert_allclose(drawn, [[1, 3], [2, 2], [3, 4], [4, np.nan]])
    rest = ax.lines[1].get_xydata()  # only one seed is left
    np.testing.assert_allclose(rest[-1], [4, 9])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1
    assert band[:, 1].max() == 9


def test_long_curves_are_thinned_out_but_keep_their_ends(record):
    long = record()
    long["curves"]["loss"] = list(np.linspace(2, 1, 5000))
    long["curves"]["val"] = list(np.linspace(20, 80, 5000))
    drawn = curve(curves_figure([long]).axes[0], "32-bit")
    assert len(drawn) == MAX_POINTS
    np.testing.assert_allclose(drawn[[0, -1]], [[1, 20], [5000, 80]])


def test_diverged_runs_are_counted_not_drawn(record, records):
    figure = curves_figure(records(seeds=range(3), diverged=[("absmean", 0), ("absmean", 1)]))
    assert figure.get_suptitle() == "Cora, gcn, public split (2 diverged, not drawn)"
    assert np.isfinite(curve(figure.axes[0], "absmean")[:100]).all()
    none_left = curves_figure([record(precision="absmean", diverged=True)])
    assert not none_left.axes[0].lines


def test_memory_figure(records):
    rows = rows_from_records(records(models=("gcn", "mlp")))
    figure = memory_figure(rows)
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"
    assert "KiB" in ax.get_xlabel()
    points = {(float(bar.lines[0].get_xdata()[0]), float(bar.lines[0].get_ydata()[0]))
              for bar in ax.containers}  # fmt: skip
    assert len(points) == 6
    for row in rows:
        near = [x for x, y in points if y == row["mean"]]
        assert near == [pytest.approx(row["weight_bytes"] / 1024, rel=0.06)]
    # Each bar spans the mean ± sd of its row.
    bars = {bar.lines[0].get_ydata()[0]: bar.lines[2][0].get_segments()[0] for bar in ax.containers}
    for row in rows:
        ends = (row["mean"] - row["sd"], row["mean"] + row["sd"])
        assert tuple(bars[row["mean"]][:, 1]) == pytest.approx(ends)
    labels = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert labels == ["32-bit", "absmean", "absmedian", "gcn", "mlp"]


def test_memory_figure_leaves_out_what_never_finished(records):
    given = records(seeds=[0], diverged=[("absmean", 0)])
    (ax,) = memory_figure(rows_from_records(given)).axes
    assert len(ax.containers) == 2


def test_a_precision_has_one_style():
    known = {style(name) for name in ("fp32", "absmean", "absmedian", "absmax")}
    assert len(known) == 4
    assert style("absmax") == style("absmax")


def test_pyplot_keeps_no_figure(records):
    paired_figure(rows_from_records(records(seeds=[0])))
    assert pyplot.get_fignums() == []


def test_distilled_row_has_a_panel_and_a_second_difference(records):
    given = records(precisions=("fp32", "fp32-distilled", "absmean"), teacher="same")
    rows = rows_from_records(given)
    figure = paired_figure(rows)
    assert [ax.get_title().count("\n") for ax in figure.axes] == [0, 1]
    assert [[tick.get_text() for tick in ax.get_xticklabels()] for ax in figure.axes] == [
        ["32-bit", "32-bit distilled"], ["32-bit", "absmean"]
    ]  # fmt: skip
    difference = f"{rows[2]['diff_distilled_mean']:+.2f}".replace("-", "−")
    assert f"to distilled {difference} [" in figure.axes[1].get_title()
    colors = [style(precision)[0] for precision in ("fp32", "fp32-distilled", "absmean", "absmax")]
    assert len(set(colors)) == 4
