import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from bitgnn.data import task
from bitgnn.experiment import checks, complete, run
from bitgnn.experiment.checks import findings, warn
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.store import Store
from bitgnn.training.build import MODELS


@pytest.fixture
def digits_with_year(monkeypatch):
    """The data set Digits with a column that takes up the scale of all rows."""
    t = task("Digits")
    year = torch.arange(t.num_nodes).view(-1, 1) % 30 + 1990
    data = t.data.clone()
    data.x = torch.cat([t.data.x, year.float()], dim=1)
    changed = replace(t, data=data)
    for module in (checks, run):
        monkeypatch.setattr(module, "open_task", lambda *_: changed)


@pytest.mark.parametrize(
    "name", ["Cora", "CiteSeer", "PubMed", "Computers", "CS", "Texas", "Digits"]
)
def test_nothing_is_found_in_the_published_sets(name, request, monkeypatch, tmp_path):
    root = None
    if name != "Digits":
        root = request.getfixturevalue("data_root")
        monkeypatch.setenv("BITGNN_CACHE", str(tmp_path))
    specs = build_specs(name, list(MODELS), 1, root=root, recipe="scratch")
    assert findings(specs, root) == []


def test_each_finding_once(digits_with_year):
    specs = build_specs("Digits", ["gcn", "mlp"], 2)
    (line,) = findings(specs)
    assert line.startswith("Digits: x: ") and "column 64 sets the scale" in line
    assert findings([spec for spec in specs if spec.quant is None]) == []


def test_parts_in_32_bits(digits_with_year):
    specs = build_specs("Digits", "gcn", 1, settings={"keep": "first"})
    (line,) = findings(specs)
    assert "in 32 bits: 4,160 in " in line or "in 32 bits: 4,096 in " in line


def test_lines_are_printed_whole(digits_with_year):
    out = io.StringIO()
    warn(build_specs("Digits", "mlp", 1), console=Console(file=out, width=20))
    assert out.getvalue().startswith("! Digits: x: ") and out.getvalue().count("\n") == 1


def test_a_comparison_warns_of_what_it_trains(digits_with_year, tmp_path, capsys):
    specs = build_specs("Digits", "mlp", 1, "scratch", settings={"epochs": 1})
    with Store(tmp_path / "runs.sqlite") as store:
        complete.complete(specs, store, workers=1)
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("! Digits: x:") == 1
        complete.complete(specs, store, workers=1)
        assert capsys.readouterr().err == ""
