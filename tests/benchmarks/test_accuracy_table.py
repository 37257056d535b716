import csv
import json

import pytest
from typer.testing import CliRunner

from benchmarks import accuracy_table
from benchmarks.accuracy_table import SECTIONS, Choice, Section, all_specs, app
from bitgnn.experiment import Store, import_records

FAST = ["--recipe", "distill", "--set", "epochs=2"]


def invoke(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A table of one data set that is always at hand."""
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    sections = {
        "plain": Section("Plain", "random", 2, ("Digits",)),
        "wide": Section("Wide", "random", 2, ("Digits",), {"activation_bits": 2}, {"width": 2}),
    }
    monkeypatch.setattr(accuracy_table, "SECTIONS", sections)


def test_the_sections_are_those_of_the_study(data_root):
    specs = {name: Choice([name], recipe="distill", root=data_root).specs(name)
             for name in ("public", "4-bit", "2-bit-wide")}  # fmt: skip
    assert {name: len(each) for name, each in specs.items()} == dict.fromkeys(specs, 3 * 5 * 4 * 20)
    assert {spec.split_kind for each in specs.values() for spec in each} == {"public"}
    ternary = [spec for spec in specs["2-bit-wide"] if spec.quant is not None]
    assert {(s.quant["activation_bits"], s.recipe["width"]) for s in ternary} == {(2, 2)}
    # Sections share what is not quantized.
    every = all_specs(Choice(list(specs), recipe="distill", root=data_root))
    assert len(every) == 3 * 5 * 20 * (2 + 2 + 2 + 2)
    assert (SECTIONS["random"].datasets[3:], SECTIONS["random"].seeds) == (("Computers", "CS"), 10)


def test_run_and_table(small, tmp_path, monkeypatch):
    store, results = tmp_path / "s.sqlite", tmp_path / "results"
    common = ["--store", store, *FAST]
    invoke("run", "--model", "mlp", "--workers", 1, *common)
    with Store(store) as opened:
        assert len(opened) == 2 * 4 + 2 * 2
    monkeypatch.setattr("bitgnn.experiment.workers.execute", None)
    invoke("run", "--model", "mlp", "--workers", 1, *common)

    printed = invoke("table", "--model", "mlp", "gcn", "--results", results, *common)
    assert "## Plain: absmean" in printed and "## Wide: absmedian" in printed
    assert "| Digits | gcn | – | – | – | – | – | – |" in printed
    assert (results / "accuracy.md").read_text() in printed
    found = json.loads((results / "accuracy.json").read_text())
    rows = {(row["section"], row["model"], row["precision"]): row for row in found["rows"]}
    assert len(rows) == 2 * 2 * 4
    row = rows["plain", "mlp", "absmean"]
    full = rows["plain", "mlp", "fp32"]
    assert row["diff_mean"] == pytest.approx(row["mean"] - full["mean"])
    assert row["sd_ratio"] == pytest.approx(row["sd"] / full["sd"])
    assert row["command"].startswith("bitgnn compare --dataset Digits --model mlp")
    missing = rows["wide", "gcn", "absmean"]
    assert (missing["mean"], missing["seeds"], missing["seeds_wanted"]) == (None, [], [0, 1])
    assert {bar["met"] for bar in found["bars"]} <= {None, False}
    assert len(list(csv.reader((results / "accuracy.csv").open()))) == 1 + len(rows)

    invoke("figure", "--model", "mlp", "gcn", "--images", tmp_path / "images", *common)
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        "accuracy-plain.png", "accuracy-wide.png"
    }  # fmt: skip

    # The runs that are published give the same table elsewhere.
    with Store(tmp_path / "other.sqlite") as other:
        assert import_records(other, results / "accuracy.jsonl.gz") == 12
    other = ["--store", tmp_path / "other.sqlite", *FAST]
    again = invoke("table", "--model", "mlp", "gcn", "--results", tmp_path / "again", *other)
    assert again == printed


def test_seeds_that_are_missing_are_said(small, tmp_path):
    common = ["--store", tmp_path / "s.sqlite", "--model", "sgc", "--section", "plain", *FAST]
    invoke("run", "--seeds", 1, "--workers", 1, *common)
    printed = invoke("table", "--results", tmp_path, *common)
    assert "(1/2)" in printed
    assert "open" in invoke("bars", *common)


def test_without_a_teacher_nothing_is_distilled(small, tmp_path):
    choice = Choice(["plain"], models=["mlp"], recipe="scratch")
    with Store(tmp_path / "s.sqlite") as store:
        rows = accuracy_table.table_rows(choice, store)
    assert [row["precision"] for row in rows] == ["fp32", "absmean", "absmedian"]
    assert "| Digits | mlp | – | – | – | – | – | – |" in accuracy_table.table_markdown(rows)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"sections": ["publik"]}, "no section 'publik'; it has public, random"),
        ({"datasets": ["cora"]}, "no data set 'cora'; it has Cora, CiteSeer"),
        ({"models": ["gin"]}, "no model 'gin'; it has gcn"),
    ],
)
def test_what_the_table_lacks(choice, said):
    with pytest.raises(ValueError, match=said):
        Choice(**choice)
