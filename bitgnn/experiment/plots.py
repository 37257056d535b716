"""The figures of a comparison, one function each. Colour and marker belong to a precision."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bitgnn.experiment.format import TO_DISTILLED, difference, metric_name, precision_name
from bitgnn.experiment.rows import Record, Row, precision_order

# Okabe and Ito's palette, which colour-blind readers can tell apart.
STYLES = {
    "fp32": ("#0072B2", "o"),
    "fp32-distilled": ("#56B4E9", "v"),
    "absmean": ("#D55E00", "s"),
    "absmedian": ("#009E73", "^"),
}
OTHER_STYLES = (("#CC79A7", "D"), ("#E69F00", "P"))
MODEL_MARKERS = "osD^vPX<>h"
GREY = "#555555"
MAX_POINTS = 400  # of a curve: more than the pixels of a panel serve nobody


def style(precision: str) -> tuple[str, str]:
    r"""Returns the colour and the marker of a precision, the same in every figure."""
    return STYLES.get(precision) or OTHER_STYLES[sum(precision.encode()) % len(OTHER_STYLES)]


def paired_figure(rows: Sequence[Row]) -> Figure:
    r"""Draws the accuracy of each seed, a line from its 32-bit run to its ternary run.

    Args:
        rows (list[dict]): The rows of one data set and model that differ in precision only.
    """
    baseline = next((row for row in rows if row["precision"] == "fp32"), None)
    others = [row for row in rows if row is not baseline]
    panels = [[baseline, row] for row in others] if baseline and others else [[r] for r in rows]
    width = 1.2 + 2.8 * max(len(panels), 1.5)
    figure, axes = _figure(rows[0], len(panels), width, height=3.9, sharey=True)
    for ax, sides in zip(axes, panels, strict=True):
        if len(sides) == 2:
            left, right = (dict(zip(r["seeds"], r["accuracies"], strict=True)) for r in sides)
            for seed in left.keys() & right.keys():
                if left[seed] is not None and right[seed] is not None:
                    ax.plot([0, 1], [left[seed], right[seed]], color="#BBBBBB", lw=1, zorder=1)
            ax.set_title(_differences(sides[1]), fontsize=10)
        for x, row in enumerate(sides):
            _draw_seeds(ax, x, row, outwards=-1 if x == 0 else 1)
        ax.set_xticks(range(len(sides)), [precision_name(row["precision"]) for row in sides])
        ax.set_xlim(-0.45, len(sides) - 0.55)
    axes[0].set_ylabel(f"Test {metric_name(rows[0]['metric'])}, %")
    _footnote(figure, "One point a seed, lines join the same seed; diamond: mean ± sd")
    return figure


def curves_figure(records: Sequence[Record]) -> Figure:
    r"""Draws validation metric and training loss by epoch: mean and range over the seeds.

    The mean is faint from where the first seed has stopped. Diverged runs are left out, and
    counted in the title.

    Args:
        records (list[dict]): The records of one data set and model, of any precisions.
    """
    diverged = sum(record["diverged"] for record in records)
    spec = records[0]["spec"]
    head = {**spec, "split": spec["split_kind"]}
    note = f" ({diverged} diverged, not drawn)" if diverged else ""
    figure, axes = _figure(head, 2, width=8.4, height=3.6, note=note)
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if not record["diverged"]:
            groups.setdefault(record["spec"]["precision"], []).append(record["curves"])
    for ax, name in zip(axes, ("val", "loss"), strict=True):
        for precision in sorted(groups, key=precision_order):
            _draw_curves(ax, [curves[name] for curves in groups[precision]], precision)
        ax.set_xlabel("Epoch")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.margins(x=0.02)
        if not groups:
            _say_empty(ax)
    axes[0].set_ylabel(f"Validation {metric_name(records[0]['metric'])}, %")
    axes[1].set_ylabel("Training loss")
    axes[1].set_ylim(bottom=0)
    if groups:
        axes[0].legend(loc="lower right", frameon=False)
    _footnote(figure, "Line: mean over seeds, faint once one has stopped; band: lowest to highest")
    return figure


def memory_figure(rows: Sequence[Row]) -> Figure:
    r"""Draws accuracy over weight memory: colour is the precision, marker the model.

    Args:
        rows (list[dict]): The rows of one data set, of any models and precisions.
    """
    drawn = [row for row in rows if row["mean"] is not None]
    figure, (ax,) = _figure({**rows[0], "model": None}, 1, width=7.6, height=4.4)
    models = list(dict.fromkeys(row["model"] for row in rows))
    markers = dict(zip(models, cycle(MODEL_MARKERS), strict=False))
    precisions = sorted({row["precision"] for row in rows}, key=precision_order)
    for model in models:
        line = [row for row in drawn if row["model"] == model]
        points = [(_place(row, line), row["mean"]) for row in line]
        ax.plot(*zip(*points, strict=True), color="#CCCCCC", lw=1, zorder=1)
    for row in drawn:
        ax.errorbar(
            _place(row, [other for other in drawn if other["model"] == row["model"]]),
            row["mean"],
            yerr=row["sd"],
            color=style(row["precision"])[0],
            marker=markers[row["model"]],
            markersize=7,
            markeredgecolor="white",
            elinewidth=1.2,
            capsize=3,
        )
    if not drawn:
        _say_empty(ax)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.1)
    ax.set_xlabel("Memory of the weights, KiB (log scale)")
    ax.set_ylabel(f"Test {metric_name(rows[0]['metric'])}, %, mean ± sd")
    handles = [Line2D([], [], color=style(p)[0], lw=5, label=precision_name(p)) for p in precisions]
    handles += [
        Line2D([], [], color=GREY, marker=marker, ms=7, ls="", label=model)
        for model, marker in markers.items()
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    _footnote(figure, "Points of one model and one size stand side by side")
    return figure


def _figure(
    head: dict[str, Any],
    panels: int,
    width: float,
    height: float,
    note: str = "",
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    name = head["dataset"] + (f", {head['model']}" if head["model"] else "")
    figure.suptitle(f"{name}, {head['split']} split{note}", fontsize=12, fontweight="bold")
    axes = list(figure.subplots(1, panels, squeeze=False, sharey=sharey)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#E5E5E5", lw=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def _differences(row: Row) -> str:
    distilled = difference(row, TO_DISTILLED)
    return f"Difference {difference(row)}" + (f"\nto distilled {distilled}" if distilled else "")


def _draw_seeds(ax: Axes, x: float, row: Row, outwards: int) -> None:
    color, marker = style(row["precision"])
    finished = [accuracy for accuracy in row["accuracies"] if accuracy is not None]
    places = [x] * len(finished)
    ax.plot(places, finished, marker, color=color, alpha=0.75, mec="white", mew=0.5, ms=6)
    if row["mean"] is not None:
        # Beside the points, so that neither hides the other.
        ax.errorbar(
            x + 0.2 * outwards, row["mean"], yerr=row["sd"], fmt="D", color=color, ms=7, capsize=4
        )


def _draw_curves(ax: Axes, curves: Sequence[Sequence[float | None]], precision: str) -> None:
    longest, shortest = max(map(len, curves)), min(map(len, curves))
    values = np.full((len(curves), longest), np.nan)
    for line, curve in zip(values, curves, strict=True):
        line[: len(curve)] = np.array(curve, dtype=np.float64)  # None becomes nan
    values[np.isinf(values)] = np.nan
    measured = np.flatnonzero(np.isfinite(values).any(axis=0))
    if len(measured) > MAX_POINTS:
        measured = measured[np.linspace(0, len(measured) - 1, MAX_POINTS).round().astype(int)]
    values = values[:, measured]
    mean, epochs = np.nanmean(values, axis=0), measured + 1
    color = style(precision)[0]
    all_train = epochs <= shortest
    ax.fill_between(
        epochs, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=color, alpha=0.15, lw=0
    )
    ax.plot(epochs, np.where(all_train, mean, np.nan), color=color, label=precision_name(precision))
    ax.plot(epochs, np.where(all_train, np.nan, mean), color=color, alpha=0.4, lw=1)


def _place(row: Row, line: Sequence[Row]) -> float:
    """Weight memory in KiB, moved a little where precisions share one size."""
    same = [other for other in line if other["weight_bytes"] == row["weight_bytes"]]
    shift = same.index(row) - (len(same) - 1) / 2
    return float(row["weight_bytes"] / 1024 * 1.1**shift)


def _say_empty(ax: Axes) -> None:
    ax.text(0.5, 0.5, "no run finished", transform=ax.transAxes, ha="center", color=GREY)
    ax.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False, which="both")


def _footnote(figure: Figure, text: str) -> None:
    figure.supxlabel(text, fontsize=9, color=GREY)
