import json
from dataclasses import replace

import pytest
import torch

from bitgnn import QuantConfig
from bitgnn.experiment import RunSpec, execute
from bitgnn.experiment.run import check_device, open_task
from bitgnn.training import recipe_for


def make_spec(model="gcn", precision="absmean", seed=0, **changes):
    t = open_task("Digits")
    quant = None if precision == "fp32" else QuantConfig(weight_measure=precision).to_dict()
    recipe = recipe_for(model, "Digits").replace(**{"epochs": 4, **changes}).to_dict()
    return RunSpec("Digits", "random", t.checksum, model, precision, quant, recipe, seed)


def numbers(record):
    return {k: v for k, v in record.items() if k not in ("seconds", "passport")}


def test_key_is_the_same_everywhere():
    spec = RunSpec("Cora", "public", "00", "gcn", "fp32", None, {"b": 1.0, "a": None}, 3)
    assert spec.key == "87791b01cc9ff7ac62438f8afa56b31e2d4211e69b791eb6b8dbb71158a38f88"
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).key == spec.key
    assert replace(spec, recipe={"a": None, "b": 1.0}).key == spec.key


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "CiteSeer"},
        {"split_kind": "full"},
        {"checksum": "01"},
        {"model": "gat"},
        {"precision": "absmean"},
        {"quant": {}},
        {"recipe": {"lr": 0.2}},
        {"seed": 4},
    ],
)
def test_key_depends_on_every_field(change):
    spec = RunSpec("Cora", "public", "00", "gcn", "fp32", None, {"lr": 0.1}, 3)
    assert replace(spec, **change).key != spec.key


def test_spec_as_text():
    assert str(make_spec(seed=7)) == "Digits gcn absmean seed 7"


def test_record():
    spec = make_spec()
    record = execute(spec)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert RunSpec.from_dict(record["spec"]) == spec
    assert record["key"] == spec.key
    assert record["metric"] == "accuracy"
    assert record["epochs"] == len(record["curves"]["loss"]) == 4
    assert record["test"] == record["curves"]["test"][record["best_epoch"] - 1]
    assert 0 < record["cost"]["zeros"] < 1
    assert record["passport"]["threads"] == 1
    assert not record["diverged"]


@pytest.mark.parametrize("precision", ["fp32", "absmedian"])
def test_same_numbers_whatever_ran_before(precision):
    spec = make_spec(precision=precision)
    first = execute(spec)
    torch.rand(7)
    execute(make_spec("mlp", seed=5))
    assert numbers(execute(spec)) == numbers(first)


def test_nothing_outside_is_changed():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        execute(make_spec("mlp"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.rand(3), expected)


def test_diverged_run_is_recorded():
    record = execute(make_spec("mlp", "fp32", lr=1e30, epochs=50))
    assert record["diverged"]
    json.dumps(record, allow_nan=False)


def test_other_data_under_the_same_name():
    with pytest.raises(ValueError, match=r"'Digits' has checksum .* run is for data with 000000"):
        execute(replace(make_spec(), checksum="0" * 64))


@pytest.mark.parametrize(
    ("device", "match"),
    [("gpu", "No device is called 'gpu'"), ("cuda:99", "There is no device 'cuda:99' here")],
)
def test_unknown_device(device, match):
    with pytest.raises(ValueError, match=match):
        check_device(device)


@pytest.mark.gpu
def test_cuda_runs_are_deterministic():
    spec = make_spec("gat", epochs=10)
    first, second = execute(spec, device="cuda"), execute(spec, device="cuda")
    assert numbers(first) == numbers(second)
    assert "cuda" in first["passport"]["device"]
