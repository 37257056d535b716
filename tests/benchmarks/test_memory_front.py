import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks import memory_front
from benchmarks.memory_front import Plan, Point, app, best_within, finding_text, front, lead
from bitgnn.experiment import Store


def row(num_bytes, mean, spread=0.1):
    accuracies = [mean - spread, mean, mean + spread]
    numbers = {"weight_bytes": num_bytes, "mean": mean, "accuracies": accuracies}
    return {**numbers, "seeds": [0, 1, 2]}


rows = st.lists(
    st.builds(row, st.integers(1, 30), st.integers(0, 20).map(float)), min_size=1, max_size=8
)


@given(rows)
def test_front(points):
    found = front(points)
    for point in points:
        beaten = any(
            other["weight_bytes"] <= point["weight_bytes"]
            and other["mean"] >= point["mean"]
            and (other["weight_bytes"], other["mean"]) != (point["weight_bytes"], point["mean"])
            for other in points
        )
        same = [each for each in found if (each["weight_bytes"], each["mean"]) ==
                (point["weight_bytes"], point["mean"])]  # fmt: skip
        assert len(same) == (0 if beaten else 1)


@given(rows, rows)
def test_lead(ternary, full):
    """By its definition: every budget below the end, and not the end itself."""
    end = lead(ternary, full)
    for budget in range(31):
        mine, theirs = best_within(ternary, budget), best_within(full, budget)
        ahead = theirs is None or (mine is not None and mine["mean"] >= theirs["mean"])
        if budget < end:
            assert ahead
        elif budget == end:
            assert not ahead
    assert end == math.inf or end in {each["weight_bytes"] for each in full}


def test_lead_by_more_than_chance():
    ternary, full = [row(1, 80.0)], [row(10, 79.0), row(20, 80.05, spread=0.3), row(40, 82.0)]
    assert lead(ternary, full) == 20
    assert lead(ternary, full, clearly=True) == 40


def test_findings_in_words():
    finding = {"model": "gcn", "dataset": "Cora", "smallest_fp32_bytes": 1024}
    finding |= {"largest_fp32_bytes": 10240, "lead_bytes": 2048.0, "not_behind_bytes": 4096.0}
    assert finding_text(finding) == (
        "GCN on Cora: 1.58-bit dominates 32-bit below 2.00 KiB; 32-bit is clearly ahead from "
        "4.00 KiB on (32-bit models have 1.00 KiB to 10.0 KiB)."
    )
    never = {**finding, "lead_bytes": None, "not_behind_bytes": None}
    assert "at every size tried; 32-bit is clearly ahead nowhere" in finding_text(never)
    no_lead = {**finding, "lead_bytes": 1024.0}
    assert "only below 1.00 KiB, where no 32-bit model fits" in finding_text(no_lead)


@pytest.fixture
def digits(monkeypatch, tmp_path):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        memory_front, "DATASETS", dict.fromkeys(("gcn", "gat", "mlp", "sgc"), "Digits")
    )


def test_points(digits):
    plan = Plan(["gat", "sgc"], [2, 12, 64], 1, 1, "distill")
    points = list(plan.points())
    assert len(points) == 6 * 3 + 6
    for point in points:
        (spec,) = plan.specs(point, {}, [0])
        assert spec.recipe["hidden_channels"] == point.width
        if point.model == "gat":
            assert point.width % spec.recipe["heads"] == 0
        # The teacher has the published width.
        assert (spec.teacher is None) == (point.series == "32-bit")
        if spec.teacher is not None:
            assert spec.teacher["recipe"]["hidden_channels"] == 64
        bits = memory_front.SERIES[point.series].weight_bits
        assert (spec.quant or {"weight_bits": None})["weight_bits"] == bits
    assert {len(plan.candidates(model)) for model in plan.models} == {4}


def test_the_search_looks_at_validation_data_of_other_seeds(digits, tmp_path):
    plan = Plan(["mlp"], [4], 2, 2, "scratch", {"epochs": 2})
    point = Point("mlp", "1.58-bit", 4)
    assert {spec.seed for spec in plan.tuning_specs(point)} == {1000, 1001}
    with Store(tmp_path / "s.sqlite") as store:
        assert plan.chosen(point, store) is None
        specs = plan.tuning_specs(point)
        for number, spec in enumerate(specs):
            record = {"key": spec.key, "spec": spec.to_dict(), "diverged": False}
            store.put({**record, "val": 50 + (number // 2 == 2), "test": -number, "seconds": 1})
        assert plan.chosen(point, store) == (plan.candidates("mlp")[2], 51)


def test_run_and_figure(digits, tmp_path, monkeypatch):
    words = ["--model", "mlp", "sgc", "--width", "2", "8", "--seeds", "2", "--tuning-seeds", "1"]
    words += ["--recipe", "distill", "--set", "epochs=2", "--store", str(tmp_path / "s.sqlite")]
    out = ["--results", str(tmp_path), "--images", str(tmp_path)]
    empty = CliRunner().invoke(app, ["figure", *words, *out])
    assert empty.exit_code == 0, empty.output
    assert empty.output.count("| – | – | – |") == 2 * 6 + 6
    first = CliRunner().invoke(app, ["run", *words, "--workers", "1"])
    assert first.exit_code == 0, first.output
    monkeypatch.setattr("bitgnn.experiment.workers.execute", None)
    assert CliRunner().invoke(app, ["run", *words, "--workers", "1"]).exit_code == 0
    figure = CliRunner().invoke(app, ["figure", *words, *out])
    assert figure.exit_code == 0, figure.output
    assert "MLP on Digits: " in figure.output
    found = json.loads((tmp_path / "memory_front.json").read_text())
    assert [finding["model"] for finding in found["findings"]] == ["mlp", "sgc"]
    sizes = {(r["series"], r["width"]): r["weight_bytes"] for r in found["rows"]}
    assert sizes["1.58-bit", 8] < sizes["2-bit", 8] < sizes["8-bit", 8] < sizes["32-bit", 8]
    assert (tmp_path / "memory-front.png").read_bytes().startswith(b"\x89PNG")


def test_no_such_model():
    with pytest.raises(ValueError, match="There is no model 'gin'; there are gcn"):
        Plan(["gin"])
