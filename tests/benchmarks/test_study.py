import json
import sys

import pytest

from benchmarks import study
from benchmarks.study import command_line, load_runs, main, markdown_table
from bitgnn.experiment import Store


def test_markdown_table():
    assert markdown_table(["a", "b", "c"], [["x", "1", "2"]], names=2) == (
        "| a | b | c |\n| --- | --- | ---: |\n| x | 1 | 2 |"
    )


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("no such thing"), 2, "study: no such thing"),
        (ImportError("needs optuna"), 2, "study: needs optuna"),
        (KeyboardInterrupt(), 130, "Stopped. What is finished is stored"),
    ],
)
def test_errors_are_told_in_one_line(monkeypatch, capsys, error, status, said):
    def run() -> None:
        """Run."""
        raise error

    def table() -> None:
        """Table."""

    monkeypatch.setattr(sys, "argv", ["study.py", "run"])
    with pytest.raises(SystemExit) as exit:
        main(command_line("A study.", run, table))
    assert exit.value.code == status
    message = capsys.readouterr().err.strip()
    assert said in message and "\n" not in message


def test_an_option_that_does_not_exist(monkeypatch, capsys):
    def run() -> None:
        """Run."""

    monkeypatch.setattr(sys, "argv", ["study.py", "--sedes"])
    with pytest.raises(SystemExit) as exit:
        main(command_line("A study.", run))
    assert exit.value.code == 2
    assert "No such option: --sedes" in capsys.readouterr().err


def test_what_is_no_file_of_runs(tmp_path):
    (tmp_path / "runs.jsonl").write_text("{}\n")
    with Store(tmp_path / "s") as store:
        load_runs(store, None)
        with pytest.raises(ValueError, match="line 1 is no record of a run"):
            load_runs(store, tmp_path / "runs.jsonl")


def test_the_same_figure_is_the_same_file(tmp_path):
    from matplotlib.figure import Figure

    for name in ("a.png", "b.png"):
        figure = Figure()
        figure.subplots().plot([0, 1])
        study.write_figure(tmp_path / name, figure)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("rows", [[], [{"a": 1}], [{"a": [1, 2]}, {"a": None, "b": "\n"}]])
def test_each_row_is_a_line(rows):
    text = study.as_json({"setting": {"torch": "2"}, "bars": []}, rows)
    assert json.loads(text) == {"setting": {"torch": "2"}, "bars": [], "rows": rows}
    start = text.splitlines().index(' "rows": [')
    assert [
        json.loads(line.removesuffix(",")) for line in text.splitlines()[start + 1 : -2] if line
    ] == rows
