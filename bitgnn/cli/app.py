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
from bitgnn.cli.streams import drop_unwritten, flush_output, print_error, replace_unencodable
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
        print(bitgnn.__version__)
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
        print(context.get_help())


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line. An error that a user can mend is one line on standard error, with
    status 2; any other keeps its traceback. When the reader of the output is gone, as after
    ``| head``, the command ends quietly with status 1.

    Args:
        args (list[str], optional): The arguments. (default: those of the process)
    """
    hush()
    replace_unencodable()
    try:
        status = app(args, standalone_mode=False)
        flush_output()
    except UsageError as error:
        status = _fail(error.format_message())  # type: ignore[attr-defined]
    except BrokenPipeError:
        status = 1
    except (ValueError, TypeError, OSError) as error:
        status = _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    drop_unwritten()
    sys.exit(status or 0)


def _fail(message: str) -> int:
    print_error(f"bitgnn: {' '.join(message.split())}")
    return 2
