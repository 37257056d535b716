import pytest

from tests.reliability.bad_input import CommandError, bad_inputs
from tests.reliability.table import BEGIN, DOCS, END, table


@pytest.mark.parametrize("bad", bad_inputs(), ids=lambda bad: f"{bad.where}: {bad.given}")
def test_bad_input_gets_a_clear_error(bad, tmp_path):
    message = bad.message(tmp_path)
    assert bad.says in message
    assert message.strip() and "Traceback" not in message


CALLS = [bad for bad in bad_inputs() if bad.error is not CommandError]


@pytest.mark.parametrize("bad", CALLS, ids=lambda bad: f"{bad.where}: {bad.given}")
def test_calls_get_the_same_error_without_native_kernels(bad, tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_NATIVE", "0")
    assert bad.says in bad.message(tmp_path)


def test_docs_have_the_table_of_bad_inputs():
    # Of messages the types alone: some have sizes of this machine, or words of other libraries.
    rows = [row.split(": ")[0] for row in table().splitlines()]
    found = DOCS.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()
    assert [row.split(": ")[0] for row in found] == rows, "run `python -m tests.reliability`"
