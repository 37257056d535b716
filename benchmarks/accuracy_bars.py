"""The bars that the accuracy table is to meet, judged cell by cell."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from benchmarks.study import markdown_table
from bitgnn.experiment.format import number
from bitgnn.experiment.rows import FULL, Row

Slack = float | None


@dataclass(frozen=True)
class Bar:
    """What is asked of each cell.

    Args:
        name (str): In words.
        slack (Callable): By how many points a row is on the good side, :obj:`None` without the
            numbers to tell.
        strict (bool, optional): Whether just touching the bar is missing it.
        pooled (bool, optional): Whether the mean of the slack over cells is judged instead of
            each cell's.
    """

    name: str
    slack: Callable[[Row], Slack]
    strict: bool = True
    pooled: bool = False

    def met(self, slack: float) -> bool:
        return slack > 0 or (slack == 0 and not self.strict)


@dataclass(frozen=True)
class Verdict:
    """How a bar is met by the cells of a section.

    Args:
        section (str): The section of the table.
        precision (str): The measure of the weight scale.
        bar (str): The bar, in words.
        met (bool, optional): Whether it is met; :obj:`None` if that is open.
        judged (int): How many cells have all their runs.
        cells (int): How many cells there are.
        slack (float, optional): By how many points the worst cell is on the good side.
        worst (str): The worst cell.
        missed (list[str]): The cells that miss it, and by how much.
    """

    section: str
    precision: str
    bar: str
    met: bool | None
    judged: int
    cells: int
    slack: float | None
    worst: str
    missed: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _above(name: str, limit: float) -> Callable[[Row], Slack]:
    def slack(row: Row) -> Slack:
        return None if row[name] is None else row[name] - limit

    return slack


def _spread(row: Row) -> Slack:
    if row["sd"] is None or row["sd_fp32"] is None:
        return None
    return float(1.3 * row["sd_fp32"] - row["sd"])


BARS = (
    Bar("difference to 32-bit at or above 0", _above("diff_mean", 0.0), strict=False),
    Bar("lower end of its 95 % interval above −0.3", _above("diff_low", -0.3)),
    Bar("difference to distilled above −0.5", _above("diff_distilled_mean", -0.5)),
    Bar(
        "difference to distilled, mean over cells, above −0.25",
        _above("diff_distilled_mean", -0.25),
        pooled=True,
    ),
    Bar("sd at most 1.3 times that of 32-bit", _spread, strict=False),
)
# The interval may also lie above 0: ternary is better then.
MOONSHOT = Bar(
    "95 % interval against distilled reaches 0", _above("diff_distilled_high", 0.0), strict=False
)


def bars_of(section: str) -> Sequence[Bar]:
    """The bars of a section: fewer activation bits are moonshots."""
    return (*BARS, MOONSHOT) if section in ("public", "random") else (MOONSHOT,)


def judge_all(rows: Sequence[Row]) -> list[Verdict]:
    """Judges all bars of all sections and ternary precisions."""
    places = dict.fromkeys(
        (row["section"], row["precision"]) for row in rows if row["precision"] not in FULL
    )
    return [
        judge(bar, [row for row in rows if (row["section"], row["precision"]) == place])
        for place in places
        for bar in bars_of(place[0])
    ]


def judge(bar: Bar, rows: Sequence[Row]) -> Verdict:
    """Judges one bar by the rows of one section and precision.

    A cell counts once it and what it is compared with have all their seeds. A cell in which a run
    diverged misses every bar.
    """
    slacks = {name: slack for name, slack in ((_name(row), _slack(bar, row)) for row in rows)}
    judged = {name: slack for name, slack in slacks.items() if slack is not None}
    complete = len(judged) == len(slacks)
    pool = bar.pooled and judged
    judged_by = {"mean over cells": fmean(judged.values())} if pool else judged
    missed = {name: slack for name, slack in judged_by.items() if not bar.met(slack)}
    worst = min(judged_by, key=lambda name: judged_by[name], default="")
    if missed and (complete or not bar.pooled):
        met: bool | None = False
    else:
        met = True if complete and judged else None
    least = judged_by.get(worst)
    return Verdict(
        rows[0]["section"],
        rows[0]["precision"],
        bar.name,
        met,
        len(judged),
        len(slacks),
        least if least is not None and math.isfinite(least) else None,
        worst,
        [f"{name} {_points(slack)}" for name, slack in sorted(missed.items(), key=lambda x: x[1])],
    )


def verdicts_markdown(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a table, with the cells that miss a bar below it."""
    lines = []
    for verdict in verdicts:
        word = {True: "met", False: "**missed**", None: "open"}[verdict.met]
        worst = "" if verdict.slack is None else number(verdict.slack, signed=True)
        lines.append(
            [
                verdict.section,
                verdict.precision,
                verdict.bar,
                word,
                f"{verdict.judged}/{verdict.cells}",
                str(len(verdict.missed)),
                f"{worst} {verdict.worst}".strip(),
            ]
        )
    header = ["section", "precision", "bar", "verdict", "cells judged", "missed", "worst, points"]
    table = markdown_table(header, lines, names=4)
    misses = [
        f"- {verdict.section}, {verdict.precision}, {verdict.bar}: {'; '.join(verdict.missed)}"
        for verdict in verdicts
        if verdict.missed
    ]
    about = "Points beyond the bar; below 0 it is missed. *Open*: cells have not all their runs."
    return "\n".join(["## Bars", "", about, "", table, "", *misses]) + "\n"


def _slack(bar: Bar, row: Row) -> Slack:
    if row["diverged"]:
        return -math.inf
    if len(row["seeds"]) < len(row["seeds_wanted"]):
        return None
    pairs = row["pairs_distilled" if "distilled" in bar.name else "pairs"]
    return None if pairs < len(row["seeds_wanted"]) else bar.slack(row)


def _name(row: Row) -> str:
    return f"{row['dataset']} {row['model']}"


def _points(slack: float) -> str:
    return number(slack, signed=True) if math.isfinite(slack) else "(a run diverged)"
