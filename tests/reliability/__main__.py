"""Writes the table of bad inputs into docs/reliability.md: ``python -m tests.reliability``."""

from bitgnn.files import write_whole
from tests.reliability.table import DOCS, with_table

if __name__ == "__main__":
    write_whole(DOCS, with_table(DOCS.read_text(encoding="utf-8")).encode())
