import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import bitgnn
from bitgnn.cli.bench import bench
from bitgnn.cli.compare import compare
from bitgnn.cli.datasets import datasets
from bitgnn.cli.info import info
from bitgnn.cli.many import ManyValues
from bitgnn.cli.pack import pack
from bitgnn.cli.predict import predict
from bitgnn.cli.report import report
from bitgnn.cli.train import train
from bitgnn.experiment.workers import hush

# Click's own class, or that of the copy within newer releases of typer.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="bitgnn",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (train, compare, report, pack, predict, bench, datasets, info):
    app.command(cls=ManyValues)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(bitgnn.__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _group(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """1.58-bit graph neural networks for PyTorch Geometric, compared with 32-bit ones."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line. What a user can mend is told in one line, with status 2; any other
    error keeps its traceback.

    Args:
        args (list[str], optional): The arguments. (default: those of the process)
    """
    hush()
    try:
        status = app(args, standalone_mode=False)
    except UsageError as error:
        status = _fail(error.format_message())  # type: ignore[attr-defined]
    except (ValueError, TypeError, OSError) as error:
        status = _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    sys.exit(status or 0)


def _fail(message: str) -> int:
    typer.echo(f"bitgnn: {' '.join(message.split())}", err=True)
    return 2
