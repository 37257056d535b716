"""The table of bad inputs in docs/reliability.md, made of the messages that calls really give."""

import tempfile
import warnings
from pathlib import Path

from tests.reliability.bad_input import BadInput, CommandError, bad_inputs

DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: python -m tests.reliability -->", "<!-- end -->"


def with_table(text: str) -> str:
    """Returns the page with its table replaced."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def table() -> str:
    """Returns the table, a row for each bad input."""
    lines = ["| what | given | gets |", "|---|---|---|"]
    return "\n".join([*lines, *map(_row, bad_inputs())]) + "\n"


def _row(bad: BadInput) -> str:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message = bad.message(Path(folder))
    message = message.encode("utf-8", "backslashreplace").decode()  # Bytes that are no text.
    error = "exit status 2" if bad.error is CommandError else f"`{bad.error.__name__}`"
    cells = f"`{bad.where}`", bad.given, f"{error}: {' '.join(message.split())}"
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
