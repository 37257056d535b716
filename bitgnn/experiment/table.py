"""The comparison as a table for the terminal."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from bitgnn.experiment.format import (
    count,
    difference,
    excludes_zero,
    mean_sd,
    memory,
    metric_name,
    notes,
    precision_name,
    seed_list,
    share,
)
from bitgnn.experiment.rows import Row, variants

CAPTION = (
    "± sd over seeds; difference paired by seed with 32-bit, [95 % interval], bold if it excludes 0"
)
FOOTNOTE = "Weights as stored: ternary ones packed. Ops: operations of one inference."


class ComparisonTable:
    r"""A rich renderable: one block a data set and split, one line a model and precision.

    Args:
        rows (list[dict]): The rows of a comparison.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        blocks: dict[tuple[str, ...], list[Row]] = {}
        for row, variant in zip(self.rows, variants(self.rows), strict=True):
            block = (row["dataset"], row["split"], row["checksum"], row["metric"], variant)
            blocks.setdefault(block, []).append(row)
        # Blocks are tables of their own; equal widths line their columns up.
        columns = zip(*map(_headers, self.rows), *map(_cells, self.rows), strict=True)
        widths = [
            max(len(line) for cell in column for line in cell.split("\n")) for column in columns
        ]
        for (*_, variant), rows in blocks.items():
            yield _title(rows, variant)
            yield _table(rows, widths, options.max_width)
            yield Text()
        yield from (Text(f"! {note}", style="yellow") for note in notes(self.rows))
        yield Text(f"{CAPTION}\n{FOOTNOTE}", style="dim")


def _headers(row: Row) -> list[str]:
    metric = f"Test\n{metric_name(row['metric'])}, %"
    return ["", "", metric, "Difference\nto 32-bit", "Weights", "Zeros", "Int\nops", "Float\nops"]


def _cells(row: Row) -> list[str]:
    return [
        row["model"],
        precision_name(row["precision"]),
        mean_sd(row) + ("†" if row["diverged"] else ""),
        difference(row),
        memory(row["weight_bytes"]),
        "" if row["zeros"] is None else share(row["zeros"]),
        count(row["int_ops"]),
        count(row["float_ops"]),
    ]


def _title(rows: Sequence[Row], variant: str) -> Text:
    lists = {seed_list(row["seeds"]) for row in rows}
    seeds = lists.pop() if len(lists) == 1 else "seeds differ between rows"
    split = rows[0]["split"]
    settings = [part for part in variant.split(", ") if part not in ("", f"split={split}")]
    details = [f"{split} split", seeds, *settings]
    return Text.assemble((rows[0]["dataset"], "bold"), f"  {', '.join(details)}")


def _table(rows: Sequence[Row], widths: Sequence[int], max_width: int) -> Table:
    content, gaps = sum(widths), len(widths) - 1
    gap = next((gap for gap in (3, 2) if content + gap * gaps <= max_width), 1)
    stacked = content + gap * gaps > max_width  # last resort: the interval below the difference
    # The box itself puts one space between columns.
    table = Table(box=box.HORIZONTALS, padding=(0, gap - 1, 0, 0), show_edge=False, pad_edge=False)
    for index, (header, width) in enumerate(zip(_headers(rows[0]), widths, strict=True)):
        table.add_column(
            header,
            justify="left" if index < 2 else "right",
            min_width=None if stacked else width,
            overflow="fold",
        )
    previous = rows[0]["model"]
    for index, row in enumerate(rows):
        cells = [Text(cell) for cell in _cells(row)]
        if row["model"] != previous:
            table.add_section()
        elif index > 0:
            cells[0] = Text()
        previous = row["model"]
        if stacked:
            cells[3] = Text(difference(row).replace(" [", "\n["))
        if excludes_zero(row):
            cells[3].stylize("bold")
        table.add_row(*cells)
    return table
