import io

from rich.console import Console

from bitgnn.experiment.speed.table import COLUMNS, setting, speed_table


def test_a_line_a_race(speed_row):
    out = io.StringIO()
    Console(file=out, width=300).print(speed_table([speed_row]))
    text = out.getvalue()
    cells = [
        "gcn 3 x 256", "arxiv", "88", "CSR, retained", "458", "5.2x", "2526", "28.6x", "316",
        "2.6x", "2.0x", "92", "856", "-",
    ]  # fmt: skip
    assert [cell(speed_row) for cell in COLUMNS.values()] == cells
    assert all(cell in text for cell in cells) and "take turns" in text


def test_small_times_keep_digits(speed_row):
    row = {**speed_row, "ours_ms": 0.1234, "fastest_ms": 3.456}
    assert COLUMNS["bitgnn, ms"](row) == "0.123" and COLUMNS["ms"](row) == "3.46"


def test_setting():
    about = setting(3, 5.0)
    assert about["threads"] == 3 and about["machine"] and about["cpu_capability"]
