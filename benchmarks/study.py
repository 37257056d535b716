"""What the studies have in common: their command line, and the files that results go to."""

import io
import json
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from bitgnn.cli.app import UsageError
from bitgnn.cli.many import ManyValues
from bitgnn.experiment import Store, export_records, import_records
from bitgnn.experiment.passport import passport
from bitgnn.experiment.report import rows_as_csv
from bitgnn.experiment.rows import Row
from bitgnn.files import write_whole

RESULTS = Path(__file__).parent / "results"
INTERRUPTED = 130  # the status of a command that was stopped by Ctrl-C
IMAGES = Path(__file__).parents[1] / "docs" / "images"

Datasets = Annotated[list[str] | None, typer.Option("--dataset", metavar="NAME...")]
Models = Annotated[list[str] | None, typer.Option("--model", metavar="NAME...")]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where results go.")]
Images = Annotated[Path, typer.Option("--images", metavar="DIR", help="Where figures go.")]
Load = Annotated[
    Path | None,
    typer.Option(
        "--load", metavar="FILE", help="Put the runs of this .jsonl.gz file into the store first."
    ),
]


def command_line(about: str | None, *commands: Callable[..., None]) -> typer.Typer:
    """A command line in which an option that takes many values takes all words that follow."""
    app = typer.Typer(
        help=about, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    for command in commands:
        app.command(cls=ManyValues)(command)
    return app


def main(app: typer.Typer) -> None:
    """Runs a command line: what a user can mend is told in one line."""
    try:
        status = app(standalone_mode=False)
    except UsageError as error:
        status = _fail(error.format_message())  # type: ignore[attr-defined]
    except (ValueError, TypeError, OSError, ImportError) as error:
        status = _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:  # as what typer returns, too
        typer.echo("Stopped. What is finished is stored: the same command goes on here.", err=True)
    sys.exit(status or 0)


def _fail(message: str) -> int:
    typer.echo(f"{Path(sys.argv[0]).stem}: {message}", err=True)
    return 2


def load_runs(store: Store, path: Path | None) -> None:
    """Goes on from what another machine has run."""
    if path is not None:
        typer.echo(f"{import_records(store, path)} new runs from {path}", err=True)


def write_results(
    folder: Path,
    name: str,
    rows: Sequence[Row],
    markdown: str | None,
    store: Store | None = None,
    keys: Collection[str] = (),
    **more: Any,
) -> None:
    """Writes a table as JSON, CSV and, if it is given, Markdown, and its runs as JSON lines."""
    found = {"setting": passport("cpu"), **more}
    write_whole(folder / f"{name}.json", as_json(found, rows).encode())
    write_whole(folder / f"{name}.csv", rows_as_csv(rows).encode())
    if markdown is not None:
        write_whole(folder / f"{name}.md", markdown.encode())
    if store is not None:
        export_records(store, folder / f"{name}.jsonl.gz", keys)


def as_json(found: dict[str, Any], rows: Sequence[Row]) -> str:
    """A study as JSON, a line for each row: what a run changes is a line of a diff."""
    head = json.dumps(found, indent=1, allow_nan=False).removesuffix("\n}")
    lines = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in rows)
    return f'{head},\n "rows": [\n{lines}\n ]\n}}\n'


def write_figure(path: Path, figure: Figure, dpi: int = 150) -> None:
    """Writes a figure as a PNG file, the same for the same numbers."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    write_whole(path, buffer.getvalue())


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table in Markdown; all but its first columns are aligned right."""
    rule = ["---" if column < names else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))
