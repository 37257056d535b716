"""Standard output and standard error, whatever encoding they have and whoever reads them."""

import codecs
import os
import sys
from contextlib import suppress
from io import TextIOWrapper

# What tables and messages use beyond ASCII.
STAND_INS = {"−": "-", "–": "-", "—": "-", "±": "+-", "×": "x", "†": "*", "…": "..."}

_ERRORS = "bitgnn.stand_in"


def replace_unencodable() -> None:
    """Has both streams write stand-ins for characters that their encoding lacks."""
    codecs.register_error(_ERRORS, _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def print_error(message: str) -> None:
    """Prints a line on standard error, if anybody is there to read it.

    Args:
        message (str): The line.
    """
    if sys.stderr is not None:
        with suppress(OSError):
            print(message, file=sys.stderr)


def flush_output() -> None:
    """Flushes standard output while an error can still be reported."""
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_unwritten() -> None:
    """Drops what can't be written to standard output: Python would try once more at exit, and
    complain."""
    try:
        flush_output()
    except OSError:
        with suppress(OSError, ValueError):  # It may have no file descriptor.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)


def _stand_in(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # A byte of a path that is no text.
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return STAND_INS.get(character, "?"), error.start + 1
