"""The accuracy table as a figure: what 1.58 bits cost, cell by cell."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bitgnn.experiment.format import TO_DISTILLED, TO_FULL
from bitgnn.experiment.plots import GREY, style
from bitgnn.experiment.rows import DISTILLED, Row

LINEAR = 2.0  # points, up to which the axis is linear
STEPS = [sign * step for step in (1, 2, 4, 8, 16) for sign in (-1, 1)]
TERNARY = ("absmean", "absmedian")
NAMES = {"gcn": "GCN", "sage": "SAGE", "gat": "GAT", "sgc": "SGC", "mlp": "MLP"}
# What is compared with, in the colour that it has everywhere.
AGAINST = {TO_FULL: ("32-bit", "fp32"), TO_DISTILLED: ("32-bit distilled", DISTILLED)}


def differences_figure(rows: Sequence[Row]) -> Figure:
    r"""Draws the paired differences of ternary to 32-bit models with their 95 % intervals: a panel
    a data set, a line a model.

    Args:
        rows (list[dict]): The rows of one section of the table.
    """
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(1.2 + 2.7 * len(datasets), 1.5 + 0.5 * len(models)),
                    layout="constrained")  # fmt: skip
    panels = figure.subplots(1, len(datasets), sharey=True, squeeze=False)[0]
    for ax, dataset in zip(panels, datasets, strict=True):
        mine = [row for row in rows if row["dataset"] == dataset and row["precision"] in TERNARY]
        for row in mine:
            _draw(ax, models.index(row["model"]), row)
        ax.set_title(dataset, fontsize=10)
        _axis(ax)
    panels[0].set_yticks(range(len(models)), [NAMES.get(model, model) for model in models])
    panels[0].set_ylim(len(models) - 0.5, -0.5)
    figure.supxlabel("Test accuracy of 1.58 bits less that of 32 bits, points; 95 % interval",
                     fontsize=9)  # fmt: skip
    figure.legend(handles=_handles(), loc="outside right center", frameon=False, fontsize=9)
    return figure


def _draw(ax: Axes, line: int, row: dict[str, Any]) -> None:
    for index, to in enumerate(AGAINST):
        mean, low, high = (row[f"{to}_{each}"] for each in ("mean", "low", "high"))
        if mean is None:
            continue
        place = line + 0.36 * (index - 0.5) + 0.16 * (TERNARY.index(row["precision"]) - 0.5)
        # One seed has no interval.
        errors = None if low is None else [[mean - low], [high - mean]]
        ax.errorbar(mean, place, xerr=errors, color=_color(to), marker=_marker(row["precision"]),
                    ms=4.5, elinewidth=1.1, zorder=3)  # fmt: skip


def _axis(ax: Axes) -> None:
    ax.axvline(0, color=GREY, lw=1, zorder=1)
    ax.set_xscale("symlog", linthresh=LINEAR, linscale=0.8)
    ax.xaxis.set_major_locator(FixedLocator([0, *STEPS]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, -1.0), max(high, 1.0))
    ax.tick_params(labelsize=9)
    ax.grid(axis="x", alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _handles() -> list[Line2D]:
    against = [
        Line2D([], [], color=_color(to), lw=4, label=f"less {name}")
        for to, (name, _) in AGAINST.items()
    ]
    measures = [
        Line2D([], [], color=GREY, marker=_marker(name), ms=5, ls="", label=name)
        for name in TERNARY
    ]
    return against + measures


def _color(to: str) -> str:
    return style(AGAINST[to][1])[0]


def _marker(precision: str) -> str:
    return style(precision)[1]
