import os
import subprocess
import sys

import pytest
import typer

import bitgnn
from bitgnn.cli import main
from bitgnn.cli.app import app

COMMANDS = ("train", "compare", "report", "pack", "predict", "bench", "datasets", "info")


def test_help_lists_all_commands(cli):
    for line in ("", "--help", "-h"):
        found = cli(line)
        assert found.status == 0
        assert all(f"  {command} " in found.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_examples(command, cli):
    found = cli(f"{command} --help")
    assert found.status == 0
    assert f"Examples:\n    bitgnn {command}" in found.out


def test_version(cli):
    assert cli("--version").out == f"{bitgnn.__version__}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bogus", "No such command 'bogus'."),
        ("train --dataset Digits", "Missing option '--model'."),
        ("compare --dataset Digits --model gcn --bogus", "No such option"),
        ("train --dataset Digits --model gcn extra", "Got unexpected extra argument"),
        ("train --dataset Digits --model gin", "No model is called 'gin'; there are gcn, sage"),
        ("train --dataset Digits --model gcn --set lr", "A setting is written name=value"),
        ("train --dataset Digits --model gcn --set lr=fast", "'lr' must be a number (got 'fast')"),
        ("compare --dataset Digits --model gcn --seeds ten", "'seeds' is a count such as 10"),
        ("compare --dataset Atlantis --model gcn", "There is no data set 'Atlantis'"),
        (
            "train --dataset Digits --model gcn --device cuda:77",
            "There is no device 'cuda:77' here",
        ),
        ("report --store absent.sqlite", "There is no result store 'absent.sqlite'"),
    ],
)
def test_error_is_one_line_with_status_2(line, message, cli):
    found = cli(line)
    assert found.status == 2
    assert found.out == ""
    assert found.err.startswith(f"bitgnn: {message}")
    assert found.err.count("\n") == 1


def test_internal_error_keeps_its_traceback(monkeypatch):
    def fail():
        raise KeyError("lost")

    broken = typer.Typer()
    broken.command()(fail)
    monkeypatch.setattr("bitgnn.cli.app.app", broken)
    with pytest.raises(KeyError, match="lost"):
        main([])


def test_every_command_takes_many_values():
    assert {command.callback.__name__ for command in app.registered_commands} == set(COMMANDS)
    assert {command.cls.__name__ for command in app.registered_commands} == {"ManyValues"}


def test_module():
    found = subprocess.run(
        [sys.executable, "-m", "bitgnn", "bogus"], capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "bitgnn: No such command 'bogus'.\n"


def test_nothing_is_said_that_nobody_can_change(data_root, tmp_path):
    """Neither by the command itself nor by its workers."""
    line = "compare --dataset Cora --model gcn sgc --seeds 1 --set epochs=1 --workers 2 --out r"
    env = {**os.environ, "BITGNN_CACHE": str(tmp_path / "cache"), "BITGNN_DATA": str(data_root)}
    found = subprocess.run(
        [sys.executable, "-m", "bitgnn", *line.split()],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Warning" not in found.stderr
