import pytest

from tests.reliability.bad_input import bad_inputs
from tests.reliability.table import BEGIN, DOCS, END, table


@pytest.mark.parametrize("bad", bad_inputs(), ids=lambda bad: f"{bad.where}: {bad.given}")
def test_bad_input_gets_a_clear_error(bad, tmp_path):
    message = bad.message(tmp_path)
    assert bad.says in message
    assert message.strip() and "Traceback" not in message


def test_docs_have_the_table_of_bad_inputs():
    # Of messages the types alone: some have sizes of this machine, or words of other libraries.
    rows = [row.split(": ")[0] for row in table().splitlines()]
    found = DOCS.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()
    assert [row.split(": ")[0] for row in found] == rows, "run `python -m tests.reliability`"
