from types import SimpleNamespace

import pytest

from bitgnn.cli import main


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    r"""Runs a command line in an empty folder and returns its status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BITGNN_STORE", raising=False)

    def run(line):
        with pytest.raises(SystemExit) as exit:
            main(line.split())
        captured = capsys.readouterr()
        return SimpleNamespace(status=exit.value.code, out=captured.out, err=captured.err)

    return run
