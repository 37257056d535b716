"""Writes the table of bad inputs into docs/reliability.md: ``python -m tests.reliability``."""

from tests.reliability.table import DOCS, with_table

if __name__ == "__main__":
    DOCS.write_text(with_table(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
