"""From stored runs to the numbers of a factor."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from benchmarks.gap.factors import Factor
from benchmarks.gap.plan import Cell, Study, plan
from bitgnn.experiment import Store
from bitgnn.experiment.command import command
from bitgnn.experiment.rows import Row, rows_from_records

# What of a row is published, beside the place that it has in the study.
PUBLISHED = (
    "mean", "sd", "fp32_mean", "diff_mean", "diff_low", "diff_high", "diff_distilled_mean",
    "diff_distilled_low", "diff_distilled_high", "weight_bytes", "weight_bytes_fp32", "zeros",
    "seeds", "accuracies", "diverged",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What is known of a factor so far.

    Args:
        factor: The factor.
        cells: Its cells, in the order of the plan.
        rows: The numbers of the cells that have any, by line, level, data set and model.
        done: How many of its runs are finished.
        total: How many runs it has.
    """

    factor: Factor
    cells: Sequence[Cell]
    rows: dict[tuple[str, str, str, str], Row] = field(repr=False)
    done: int
    total: int

    @property
    def whole(self) -> bool:
        """Whether there is something of each cell: what levels share does not make a figure."""
        return all((c.line, c.level, c.dataset, c.model) in self.rows for c in self.cells)

    @property
    def lines(self) -> list[str]:
        """The labels of its lines."""
        return list(dict.fromkeys(cell.line for cell in self.cells))

    @property
    def levels(self) -> list[str]:
        """The labels of its levels."""
        return [level.label for level in self.factor.levels]

    @property
    def datasets(self) -> list[str]:
        """Its data sets."""
        return list(dict.fromkeys(cell.dataset for cell in self.cells))

    @property
    def models(self) -> list[str]:
        """Its models."""
        return list(dict.fromkeys(cell.model for cell in self.cells))

    def at(self, line: str, dataset: str, model: str) -> dict[str, Row]:
        """The numbers of a line by level, on one data set, for one model."""
        places = {level: (line, level, dataset, model) for level in self.levels}
        return {level: self.rows[place] for level, place in places.items() if place in self.rows}

    def published(self) -> list[dict[str, Any]]:
        """The rows as they go to files."""
        return [
            {
                **dict(zip(("factor", "line", "level", "dataset", "model"),
                           (self.factor.name, *place), strict=True)),
                "precision": row["precision"],
                **{name: _short(row[name]) for name in PUBLISHED},
                "command": command(row),
            }
            for place, row in self.rows.items()
        ]  # fmt: skip


def _short(value: Any) -> Any:
    """A number without the digits of which no test set has enough nodes to tell."""
    if isinstance(value, list):
        return [_short(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


def find(factor: Factor, study: Study, store: Store) -> Found:
    """Collects what a store holds of a factor.

    Args:
        factor: The factor.
        study: Where it is looked at.
        store: The result store.
    """
    cells = plan(factor, study)
    keys = {spec.key for cell in cells for spec in cell.specs}
    records = {key: record for key in keys if (record := store.get(key)) is not None}
    rows = {}
    for cell in cells:
        found = [records[spec.key] for spec in cell.specs if spec.key in records]
        by_precision = {row["precision"]: row for row in rows_from_records(found)}
        row, full = by_precision.get(cell.precision), by_precision.get("fp32")
        if row is not None:
            place = cell.line, cell.level, cell.dataset, cell.model
            rows[place] = {**row, "fp32_mean": None if full is None else full["mean"]}
    return Found(factor, cells, rows, len(records), len(keys))


def overall(found: Found, line: str, level: str, dataset: str | None = None) -> float | None:
    """Returns what a level shows on average over the cells, :obj:`None` if one of them is missing.

    Args:
        found: What is known of the factor.
        line: The line.
        level: The level.
        dataset: The data set, if not all of them.
    """
    name = {"difference": "diff_mean", "accuracy": "mean"}[found.factor.shows]
    wanted = [
        (cell.line, cell.level, cell.dataset, cell.model)
        for cell in found.cells
        if (cell.line, cell.level) == (line, level) and dataset in (None, cell.dataset)
    ]
    values = [found.rows[place][name] if place in found.rows else None for place in wanted]
    return fmean(values) if values and None not in values else None  # type: ignore[arg-type]
