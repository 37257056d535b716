import pytest
from typer.testing import CliRunner

from benchmarks.gap.cli import app
from benchmarks.gap.plan import Study


@pytest.fixture(scope="session")
def small():
    """A study that needs no files."""
    return Study(datasets=("Digits",), seeds=(0,))


@pytest.fixture
def gap(tmp_path, monkeypatch):
    """Calls the command line on a small study; returns what it printed."""
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))

    def call(command, *words, store="gap.sqlite"):
        study = ["--dataset", "Digits", "--model", "gcn", "mlp", "--seeds", "2"]
        study += ["--set", "epochs=5", "hidden_channels=8", "patience=none"]
        words = [command, *words, *study, "--store", str(tmp_path / store)]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return call
