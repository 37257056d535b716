import gzip
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from benchmarks import tuned_table
from benchmarks.tuned_table import TUNING_SEED, NotRunYetError, Plan, Search, app, cell_rows
from bitgnn.experiment import Store
from bitgnn.experiment.complete import complete

PLAN = Plan(2, 1, 2, "random", "distill", {"epochs": 2})
WORDS = ["--dataset", "Digits", "--model", "mlp", "--trials", 2, "--tuning-seeds", 1, "--seeds", 2]
WORDS += ["--split", "random", "--recipe", "distill", "--set", "epochs=2"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    with Store(tmp_path / "s.sqlite") as opened:
        yield opened


def train(store):
    return lambda specs: complete(specs, store, workers=1, progress=False)


def test_rows_are_paired_with_the_tuned_32_bit_sides(store):
    rows = cell_rows(PLAN, "Digits", "mlp", train(store))
    assert [row["precision"] for row in rows] == ["fp32", "fp32-distilled", "absmean", "absmedian"]
    full, distilled, *ternary = rows
    for row in ternary:
        assert row["diff_mean"] == pytest.approx(row["mean"] - full["mean"])
        assert row["diff_distilled_mean"] == pytest.approx(row["mean"] - distilled["mean"])
    assert (
        full["diff_mean"] is full["diff_distilled_mean"] is distilled["diff_distilled_mean"] is None
    )
    # What is chosen is chosen by the validation data of other seeds.
    assert all(row["val"] == max(trial["val"] for trial in row["trials"]) for row in rows)
    assert {r["spec"]["seed"] for r in store.records()} == {0, 1, TUNING_SEED}
    # All sides have the same number of trainings, and of trials but for the teacher's.
    assert {row["search_trainings"] for row in rows} == {4}
    assert [len(row["trials"]) for row in rows] == [4, 2, 2, 2]
    assert full["trials"][:1][0]["settings"]["lr"] == 0.01  # the published point


def test_the_teacher_is_the_tuned_model_of_the_same_budget(store):
    search = Search(PLAN, "Digits", "mlp", train(store))
    search.evaluated("absmean")
    best = search.tuned("fp32").first(PLAN.trials).settings
    taught = [r["spec"]["teacher"] for r in store.records(precision="absmean")]
    assert len(taught) == 4
    assert all({name: t["recipe"][name] for name in best} == best for t in taught)
    assert all(t["model"] == "mlp" and t["recipe"]["teacher"] is None for t in taught)


def test_without_a_teacher(store):
    plan = replace(PLAN, recipe="scratch")
    assert plan.sides("Digits", "mlp") == ["fp32", "absmean", "absmedian"]
    assert {plan.trainings("Digits", "mlp", side) for side in plan.sides("Digits", "mlp")} == {2}
    rows = cell_rows(plan, "Digits", "mlp", train(store))
    assert all(row["mean"] is not None for row in rows)


def test_latent_settings_are_searched_on_request(store):
    search = Search(replace(PLAN, latent=True), "Digits", "mlp", train(store))
    assert "latent_lr" in search.tuned("absmean").settings
    assert "latent_lr" not in search.tuned("fp32").settings
    assert set(Search(PLAN, "Digits", "sgc", train(store)).tuned("absmean").settings) == {
        "lr",
        "weight_decay",
    }


def test_what_has_not_been_run_is_missing():
    def nothing(specs):
        raise NotRunYetError

    rows = cell_rows(PLAN, "Digits", "mlp", nothing)
    assert [row["mean"] for row in rows] == [None] * 4
    assert tuned_table.to_markdown(rows, PLAN).count("| Digits | mlp |") == 4


def test_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    words = [*map(str, WORDS), "--store", str(tmp_path / "s.sqlite")]
    results = tmp_path / "results"
    first = CliRunner().invoke(app, ["run", *words, "--workers", "1"])
    assert first.exit_code == 0, first.output
    assert "runs at most for 1 cells" in first.output
    monkeypatch.setattr("bitgnn.experiment.workers.execute", None)
    assert CliRunner().invoke(app, ["run", *words, "--workers", "1"]).exit_code == 0
    table = CliRunner().invoke(app, ["table", *words, "--results", str(results)])
    assert table.exit_code == 0, table.output
    found = json.loads((results / "tuned.json").read_text())
    assert len(found["rows"]) == len(found["trials"]) == 4
    with Store(tmp_path / "s.sqlite") as store:
        runs = gzip.decompress((results / "tuned.jsonl.gz").read_bytes()).splitlines()
        assert len(runs) == len(store)
