"""The report of a comparison: one HTML page that needs nothing but itself, and the same as data."""

import base64
import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from bitgnn.experiment import format as text
from bitgnn.experiment.complete import Failure
from bitgnn.experiment.plots import curves_figure, memory_figure, paired_figure
from bitgnn.experiment.rows import (
    Record,
    Row,
    arm,
    families,
    flatten,
    group_by,
    runs_of,
    variants,
)
from bitgnn.files import write_whole

DPI = 144
PAGE = "report.html"


class Results(Protocol):
    """What a report is about; a :class:`~bitgnn.experiment.Comparison` is one."""

    @property
    def rows(self) -> list[Row]: ...

    @property
    def records(self) -> list[Record]: ...


def write_report(
    results: Results,
    out_dir: str | os.PathLike[str],
    title: str = "",
    failures: Sequence[Failure] = (),
) -> Path:
    r"""Writes the report of a comparison and returns the path of the page.

    Beside :obj:`report.html` stand :obj:`results.json` and :obj:`results.csv` (the rows) and
    each figure as a PNG file. Files of an earlier report are replaced.

    Args:
        results (Comparison): The rows and the records to report.
        out_dir (str or Path): The folder to write to, made if absent.
        title (str, optional): The heading of the page. (default: named by data sets and models)
        failures (list[Failure], optional): Runs that are in no row since they were given up.
            (default: :obj:`()`)

    Raises:
        ValueError: If there are no rows, or :obj:`out_dir` cannot be written to.
    """
    rows, records = results.rows, results.records
    if not rows:
        raise ValueError("There is nothing to report: the comparison has no rows")
    out = Path(out_dir)
    figures = _figures(rows, records)
    notes = [*text.notes(rows), *(f"{each}; the same command tries it again." for each in failures)]
    page = _page(rows, records, figures, title or _default_title(rows), notes)
    try:
        for figure in figures:
            write_whole(out / figure.file, figure.png)
        write_whole(out / "results.json", _json(rows).encode())
        write_whole(out / "results.csv", rows_as_csv(rows).encode())
        write_whole(out / PAGE, page.encode())
    except OSError as error:
        raise ValueError(f"Cannot write the report to '{out}': {error.strerror}") from error
    return out / PAGE


@dataclass(frozen=True)
class _Drawn:
    file: str
    png: bytes
    width: int  # on the page, in CSS pixels: 96 an inch
    caption: str

    @property
    def uri(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def _figures(rows: Sequence[Row], records: Sequence[Record]) -> list[_Drawn]:
    figures: dict[str, _Drawn] = {}

    def add(name: str, figure: Figure, caption: str) -> None:
        stem = re.sub(r"\W+", "-", name).strip("-").lower()
        files = (f"{stem}{suffix}.png" for suffix in chain([""], (f"-{n}" for n in count(2))))
        file = next(file for file in files if file not in figures)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
        figures[file] = _Drawn(file, buffer.getvalue(), round(96 * figure.get_figwidth()), caption)

    labels = {id(row): label for row, label in zip(rows, variants(rows), strict=True)}
    for of_data in group_by(rows, _data):
        dataset = of_data[0]["dataset"]
        add(f"{dataset} memory", memory_figure(of_data), f"{dataset}: memory against accuracy")
        for sides in families(of_data):
            name = f"{dataset} {sides[0]['model']}"
            label = f"{name} ({labels[id(sides[-1])]})" if labels[id(sides[-1])] else name
            add(f"{name} paired", paired_figure(sides), f"{label}: each seed on both sides")
            runs = [run for run in runs_of(sides, records) if run["curves"]]
            if runs:
                add(f"{name} curves", curves_figure(runs), f"{label}: training")
    return list(figures.values())


def _data(row: Row) -> tuple[str, str, str]:
    return row["dataset"], row["split"], row["checksum"]


def _page(
    rows: Sequence[Row],
    records: Sequence[Record],
    figures: Sequence[_Drawn],
    title: str,
    notes: Sequence[str],
) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    recipes = [(label, sides[0]["recipe"]) for sides, label in _recipes(rows)]
    quants = [(sides[0]["precision"], sides[0]["quant"])
              for sides in group_by(rows, lambda row: json.dumps(row["quant"], sort_keys=True))
              if sides[0]["quant"] is not None]  # fmt: skip
    return templates.get_template("report.html.j2").render(
        title=title,
        rows=list(zip(rows, variants(rows), strict=True)),
        data=[of_data[0] for of_data in group_by(rows, _data)],
        settings=[("Recipe", _compared(recipes)), ("Quantization", _compared(quants))],
        metrics=list(dict.fromkeys(text.metric_name(row["metric"]) for row in rows)),
        passport=_passport(records),
        num_runs=len(records),
        notes=notes,
        commands=_commands(rows),
        figures=figures,
        distilled=text.has_distilled(rows),
        text=text,
    )


@dataclass(frozen=True)
class _Compared:
    """Settings of several things: what all share, and a line each for what differs."""

    shared: dict[str, Any]
    differing: list[str]
    lines: list[tuple[str, list[Any]]]


def _compared(settings: Sequence[tuple[str, Mapping[str, Any]]]) -> _Compared:
    flat = [(name, flatten(values)) for name, values in settings]
    keys = dict.fromkeys(key for _, values in flat for key in values)
    differing = [key for key in keys if len({str(values.get(key)) for _, values in flat}) > 1]
    shared = {key: flat[0][1][key] for key in keys if key not in differing}
    lines = [(name, [values.get(key) for key in differing]) for name, values in flat]
    return _Compared(shared, differing, lines if differing else [])


def _recipes(rows: Sequence[Row]) -> list[tuple[list[Row], str]]:
    """The rows of each recipe, with a name for them."""
    found = []
    for of_arm in group_by(rows, arm):
        alike = group_by(of_arm, lambda row: json.dumps(row["recipe"], sort_keys=True))
        for sides in alike:
            name = f"{sides[0]['dataset']} {sides[0]['model']}"
            precisions = dict.fromkeys(text.precision_name(row["precision"]) for row in sides)
            found.append((sides, name if len(alike) == 1 else f"{name} {', '.join(precisions)}"))
    return found


def _commands(rows: Sequence[Row]) -> list[str]:
    """One a ternary row; a 32-bit row that has such a partner is part of its command."""
    chosen = []
    for sides in families(rows):
        ternary = [row for row in sides if not text.is_full(row)]
        chosen += ternary or sides[-1:]
    return list(dict.fromkeys(row["command"] for row in chosen if "command" in row))


def _passport(records: Sequence[Record]) -> dict[str, list[str]]:
    """The distinct values of each entry; of the times the first and the last."""
    entries: dict[str, set[str]] = {}
    for record in records:
        for name, value in record["passport"].items():
            entries.setdefault(name, set()).add("unknown" if value is None else str(value))
    values = {name: sorted(found) for name, found in entries.items()}
    if "time" in values:
        values["time"] = list(dict.fromkeys([values["time"][0], values["time"][-1]]))
    return values


def _default_title(rows: Sequence[Row]) -> str:
    names = (dict.fromkeys(row[name] for row in rows) for name in ("model", "dataset"))
    return "1.58-bit and 32-bit {} on {}".format(*map(", ".join, names))


def _json(rows: Sequence[Row]) -> str:
    return json.dumps(rows, indent=1, allow_nan=False) + "\n"


def rows_as_csv(rows: Sequence[Row]) -> str:
    """Numbers of a list are joined by spaces, an unfinished one is nan; nested values are JSON."""
    file = io.StringIO()
    writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _csv_cell(value) for key, value in row.items()})
    return file.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join("nan" if item is None else str(item) for item in value)
    return json.dumps(value) if isinstance(value, dict) else value
