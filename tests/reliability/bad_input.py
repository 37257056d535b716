"""Bad inputs, each with the error that it gets: the tests and docs/reliability.md read one list."""

import contextlib
import importlib
import io
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitgnn.cli import main
from tests.reliability import inputs


class CommandError(Exception):
    """A command that ended with exit status 2 and one line on standard error."""


@dataclass(frozen=True)
class BadInput:
    r"""One bad input.

    Args:
        where (str): The public name or the command that receives it.
        given (str): The input, in words for the docs.
        call (Callable): Makes the call; it receives an empty folder.
        error (type): The type of the error, exactly; :class:`CommandError` for a command.
        says (str): A part of the message: the value that was given, or the way out.
    """

    where: str
    given: str
    call: Callable[[Path], Any]
    error: type[Exception]
    says: str

    def message(self, folder: Path) -> str:
        """Makes the call and returns the message of its error, without the folder's name."""
        try:
            self.call(folder)
        except Exception as error:
            # Exactly this type: a KeyError is no LookupError that a reader would expect.
            if type(error) is not self.error:
                raise
            return str(error).replace(f"{folder}/", "").replace(str(folder), "folder")
        raise AssertionError(f"{self.where} accepts {self.given}")


def command(*args: object) -> None:
    """Runs a command of ``bitgnn`` in this process; raises what it prints if it ends with 2."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            main([str(arg) for arg in args])
    except SystemExit as ended:
        if ended.code == 2:
            raise CommandError(printed.getvalue().strip()) from None


def bad_inputs() -> list[BadInput]:
    """All bad inputs: the `BAD_INPUTS` of each module in ``tests/reliability/inputs``."""
    names = sorted(module.name for module in pkgutil.iter_modules(inputs.__path__))
    modules = [importlib.import_module(f"tests.reliability.inputs.{name}") for name in names]
    return [each for module in modules for each in module.BAD_INPUTS]
