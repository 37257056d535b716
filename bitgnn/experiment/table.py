"""The comparison as a table for the terminal."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from bitgnn.experiment.format import (
    TO_DISTILLED,
    TO_FULL,
    count,
    difference,
    excludes_zero,
    has_distilled,
    mean_sd,
    memory,
    metric_name,
    notes,
    precision_name,
    seed_list,
    share,
)
from bitgnn.experiment.rows import Row, arm_labels, own_labels

CAPTION = (
    "± sd over seeds; difference paired by seed with 32-bit, [95 % interval], bold if it excludes 0"
)
FOOTNOTE = "Weights as stored: ternary ones packed. Ops: operations of one inference."
DISTILLED = "32-bit distilled: 32-bit with the same teacher."

PRECISION, RECIPE = "precision", "recipe"
TO_DISTILLED_COLUMN = "Difference\nto distilled"
DIFFERENCES = {"Difference\nto 32-bit": TO_FULL, TO_DISTILLED_COLUMN: TO_DISTILLED}
LEFT = ("model", PRECISION, RECIPE)
Cells = dict[str, str]


class ComparisonTable:
    r"""A rich renderable: one block a data set and split, one line a model, precision and recipe.

    Args:
        rows (list[dict]): The rows of a comparison.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        lines = list(map(_cells, self.rows, own_labels(self.rows)))
        blocks: dict[tuple[str, ...], list[int]] = {}
        for index, (row, label) in enumerate(zip(self.rows, arm_labels(self.rows), strict=True)):
            block = (row["dataset"], row["split"], row["checksum"], row["metric"], label)
            blocks.setdefault(block, []).append(index)
        if not any(cells[RECIPE] for cells in lines):
            lines = [_without(cells, RECIPE) for cells in lines]
        if not has_distilled(self.rows):
            lines = [_without(cells, TO_DISTILLED_COLUMN) for cells in lines]
        # Blocks are tables of their own; equal widths line their columns up.
        widths = self._widths(lines, "\n")
        if _needed(widths, gap=1) > options.max_width:
            lines = list(map(_stacked, lines))
            widths = self._widths(lines, "\n")
        if _needed(widths, gap=1) > options.max_width:
            # Lines are broken between words, from the right.
            words = self._widths(lines, None)
            room = options.max_width - _needed(words, gap=1)
            for name, width in widths.items():
                widths[name] = words[name] + min(max(room, 0), width - words[name])
                room -= widths[name] - words[name]
        gap = next((gap for gap in (3, 2) if _needed(widths, gap) <= options.max_width), 1)
        for (*_, label), indices in blocks.items():
            rows = [self.rows[index] for index in indices]
            yield _title(rows, label)
            yield _table(rows, [lines[index] for index in indices], widths, gap)
            yield Text()
        yield from (Text(f"! {note}", style="yellow") for note in notes(self.rows))
        distilled = f"\n{DISTILLED}" if has_distilled(self.rows) else ""
        yield Text(f"{CAPTION}\n{FOOTNOTE}{distilled}", style="dim")

    def _widths(self, lines: Sequence[Cells], separator: str | None) -> dict[str, int]:
        """The widest line (or word, if that is what separates) of each column."""
        widths = dict.fromkeys(lines[0], 0)
        for row, cells in zip(self.rows, lines, strict=True):
            for name, cell in cells.items():
                parts = f"{_header(name, row)}\n{cell}".split(separator)
                widths[name] = max(widths[name], *map(len, parts), 0)
        return widths


def _cells(row: Row, label: str) -> Cells:
    """All that can stand in a line, by the name of its column."""
    return {
        "model": row["model"],
        PRECISION: precision_name(row["precision"]),
        RECIPE: label,
        "Test": mean_sd(row) + ("†" if row["diverged"] else ""),
        **{name: difference(row, to) for name, to in DIFFERENCES.items()},
        "Weights": memory(row["weight_bytes"]),
        "Zeros": "" if row["zeros"] is None else share(row["zeros"]),
        "Int\nops": count(row["int_ops"]),
        "Float\nops": count(row["float_ops"]),
    }


def _header(name: str, row: Row) -> str:
    if name == "Test":
        return f"Test\n{metric_name(row['metric'])}, %"
    return "" if name in LEFT else name


def _title(rows: Sequence[Row], label: str) -> Text:
    lists = {seed_list(row["seeds"]) for row in rows}
    seeds = lists.pop() if len(lists) == 1 else "seeds differ between rows"
    split = rows[0]["split"]
    settings = [part for part in label.split(", ") if part not in ("", f"split={split}")]
    details = [f"{split} split", seeds, *settings]
    return Text.assemble((rows[0]["dataset"], "bold"), f"  {', '.join(details)}")


def _stacked(cells: Cells) -> Cells:
    """The same in narrower columns: the interval below the difference, and so on."""
    breaks = {
        PRECISION: (" ", "\n"),
        RECIPE: ("+", "\n+"),
        **dict.fromkeys(DIFFERENCES, (" [", "\n[")),
    }
    return {
        name: cell.replace(*breaks[name]) if name in breaks else cell
        for name, cell in cells.items()
    }


def _without(cells: Cells, name: str) -> Cells:
    return {key: cell for key, cell in cells.items() if key != name}


def _needed(widths: dict[str, int], gap: int) -> int:
    return sum(widths.values()) + gap * (len(widths) - 1)


def _table(rows: Sequence[Row], lines: Sequence[Cells], widths: dict[str, int], gap: int) -> Table:
    # The box itself puts one space between columns.
    table = Table(box=box.HORIZONTALS, padding=(0, gap - 1, 0, 0), show_edge=False, pad_edge=False)
    for name, width in widths.items():
        table.add_column(
            _header(name, rows[0]),
            justify="left" if name in LEFT else "right",
            width=width,
            overflow="fold",
        )
    previous: tuple[str, str] = rows[0]["model"], ""
    for row, cells in zip(rows, lines, strict=True):
        shown = {name: Text(cells[name]) for name in widths}
        if row["model"] != previous[0]:
            table.add_section()
        elif previous[1]:
            shown["model"] = Text()
            if row["precision"] == previous[1]:
                shown[PRECISION] = Text()
        previous = row["model"], row["precision"]
        for name, to in DIFFERENCES.items():
            if name in shown and excludes_zero(row, to):
                shown[name].stylize("bold")
        table.add_row(*shown.values())
    return table
