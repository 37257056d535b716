import pytest

from tests.reliability.bad_input import bad_inputs


@pytest.mark.parametrize("bad", bad_inputs(), ids=lambda bad: f"{bad.where}: {bad.given}")
def test_bad_input_gets_a_clear_error(bad, tmp_path):
    message = bad.message(tmp_path)
    assert bad.says in message
    assert message.strip() and "Traceback" not in message
