import pytest

from tests.reliability.bad_input import bad_inputs
from tests.reliability.table import DOCS, with_table


@pytest.mark.parametrize("bad", bad_inputs(), ids=lambda bad: f"{bad.where}: {bad.given}")
def test_bad_input_gets_a_clear_error(bad, tmp_path):
    message = bad.message(tmp_path)
    assert bad.says in message
    assert message.strip() and "Traceback" not in message


def test_docs_have_the_table_of_bad_inputs():
    text = DOCS.read_text(encoding="utf-8")
    assert with_table(text) == text, "run `python -m tests.reliability`"
