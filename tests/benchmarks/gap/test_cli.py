import csv
import json

import pytest
from typer.testing import CliRunner

from benchmarks.gap.cli import app
from benchmarks.gap.factors import FACTORS, factors_named
from benchmarks.gap.plan import Study
from benchmarks.gap.results import find
from bitgnn.experiment import Store
from bitgnn.experiment.statistics import paired_difference

PNG = b"\x89PNG"


def test_from_runs_to_page(gap, tmp_path, monkeypatch):
    readings = {"layer": "It is the first one.", "epochs": "Of what was not run nothing is read."}
    monkeypatch.setattr("benchmarks.gap.cli.read_readings", lambda text: readings)
    assert "known after the first" in gap("list", "layer")
    gap("run", "layer", "teacher-weight", "--workers", "1")
    listed = {line.split()[0]: line.split() for line in gap("list", "layer", "measure").split("\n")
              if line.strip()}  # fmt: skip
    assert listed["layer"][-2:] == ["32", "0"]
    # Of the measures, absmean has been run for the layers.
    assert listed["measure"][-4:-2] == ["32", "16"]
    assert listed["together"][-4:-2] == ["48", "16"]

    images = tmp_path / "images"
    gap("figure", "layer", "--images", str(images))
    gap("figure", "--images", str(images))
    drawn = {path.stem for path in images.iterdir()}
    assert drawn == {"layer", "teacher-weight"}
    assert all(path.read_bytes().startswith(PNG) for path in images.iterdir())

    docs, results = tmp_path / "docs", tmp_path / "results"
    gap("page", "--docs", str(docs), "--results", str(results))
    page = (docs / "gap-analysis.md").read_text()
    assert (docs / "images/gap/layer.png").read_bytes() == (images / "layer.png").read_bytes()
    sections = {part.split('"')[0]: part for part in page.split('<a id="')[1:]}
    assert list(sections) == [factor.name for factor in FACTORS]
    assert "(images/gap/layer.png)" in sections["layer"]
    assert "It is the first one." in sections["layer"]
    assert "(run, but no reading yet)" in sections["teacher-weight"]
    assert "(not yet run)" in sections["epochs"]
    assert "nothing is read" not in page
    assert "![" not in sections["epochs"]
    for wanted in ("Digits", "gcn and mlp", "seeds 0, 1", "{{"):
        assert (wanted in page) == (wanted != "{{")

    rows = json.loads((results / "gap.json").read_text())["rows"]
    at = {(r["factor"], r["line"], r["level"], r["dataset"], r["model"]): r for r in rows}
    row = at["layer", "scratch", "last", "Digits", "mlp"]
    full = at["teacher-weight", "absmean", "none", "Digits", "mlp"]
    assert row["fp32_mean"] == full["fp32_mean"]
    assert "keep=last" in row["command"]
    with (results / "gap.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)

    # Another machine goes on from the published runs.
    load = ["--load", str(results / "gap.jsonl.gz")]
    (line,) = (
        line.split()
        for line in gap("list", "layer", *load, store="other.sqlite").splitlines()
        if line.strip().startswith("layer")
    )
    assert line[-2:] == ["32", "0"]
    again = tmp_path / "again"
    gap("figure", "layer", "--images", str(again), store="other.sqlite")
    assert (again / "layer.png").read_bytes() == (images / "layer.png").read_bytes()


def test_numbers_are_those_of_the_runs(gap, tmp_path):
    gap("run", "layer", "--workers", "1")
    settings = {"epochs": 5, "hidden_channels": 8, "patience": None}
    study = Study(("Digits",), ("gcn", "mlp"), (0, 1), settings)
    with Store(tmp_path / "gap.sqlite") as store:
        runs = store.records()
        found = find(*factors_named(["layer"]), study, store)

    def accuracies(model, precision, teacher=None, keep=None):
        return [
            run["test"]
            for run in sorted(runs, key=lambda run: run["spec"]["seed"])
            if (run["spec"]["model"], run["spec"]["precision"]) == (model, precision)
            and run["spec"]["recipe"]["teacher"] == teacher
            and run["spec"]["recipe"]["keep"] == keep
        ]

    assert found.whole and found.done == found.total == len(runs) == 32
    assert len(found.rows) == 12
    for (line, level, _, model), row in found.rows.items():
        keep, teacher = (None if level == "none" else level), {"distill": "same"}.get(line)
        mine = accuracies(model, "absmean", teacher, keep)
        full = accuracies(model, "fp32")
        assert row["accuracies"] == mine and len(mine) == len(full) == 2
        numbers = row["diff_mean"], row["diff_low"], row["diff_high"]
        assert numbers == pytest.approx(paired_difference(mine, full))


def test_nothing_to_draw(tmp_path):
    words = ["figure", "layer", "--dataset", "Digits", "--store", str(tmp_path / "empty.sqlite")]
    with pytest.raises(ValueError, match="No run of 'layer' is finished: `python -m benchmarks"):
        CliRunner().invoke(app, words, catch_exceptions=False)
