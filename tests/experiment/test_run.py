import json
import shutil
from dataclasses import replace

import pytest
import torch

from bitgnn import QuantConfig
from bitgnn.experiment import RunSpec, execute
from bitgnn.experiment.run import check_device, open_task
from bitgnn.experiment.teachers import load_teacher, teachers_dir
from bitgnn.training import recipe_for


def make_spec(model="gcn", precision="absmean", seed=0, **changes):
    t = open_task("Digits")
    full = precision.startswith("fp32")
    quant = None if full else QuantConfig(weight_measure=precision).to_dict()
    recipe = recipe_for(model, "Digits", "scratch").replace(**{"epochs": 4, **changes})
    teacher = {"model": model, "recipe": recipe.plain().to_dict()} if recipe.teacher else None
    fields = recipe.to_dict()
    return RunSpec("Digits", "random", t.checksum, model, precision, quant, fields, seed, teacher)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))


def numbers(record):
    return {k: v for k, v in record.items() if k not in ("seconds", "teacher_seconds", "passport")}


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
    assert record["teacher_val"] is record["teacher_seconds"] is None


STUDENT = {"teacher": "same", "teacher_weight": 20.0}


@pytest.mark.parametrize("precision", ["fp32-distilled", "absmean"])
@pytest.mark.parametrize("changes", [STUDENT, {**STUDENT, "start": "teacher"}])
def test_student_is_the_same_whoever_trained_its_teacher(precision, changes, cache):
    spec = make_spec(precision=precision, **changes)
    teacher = spec.teacher_spec()
    cold = execute(spec)  # Trains the teacher itself,
    assert load_teacher(teacher.key) is not None
    warm = execute(spec)  # finds it,
    shutil.rmtree(teachers_dir())
    record = execute(teacher, keep=True)  # or has been left it.
    left = execute(spec)
    assert numbers(cold) == numbers(warm) == numbers(left)
    assert cold["teacher_val"] == record["val"]
    assert left["teacher_seconds"] == record["seconds"]
    untaught = execute(make_spec(precision="fp32" if "fp32" in precision else precision))
    assert untaught["curves"] != cold["curves"]


def test_a_teacher_with_a_flipped_bit_is_trained_again(cache):
    spec = make_spec("mlp", **STUDENT)
    expected = execute(spec)
    [path] = teachers_dir().iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 64]))
    with pytest.warns(UserWarning, match=rf"^Teacher '{path}' is not used .* trained again$"):
        assert numbers(execute(spec)) == numbers(expected)
    assert path.read_bytes()[-1] == content[-1]


@pytest.mark.parametrize("device", ["meta", "nowhere", "cuda:99"])
def test_a_device_that_cannot_be_used(device):
    with pytest.raises(ValueError, match=f"'{device}'.* use"):
        check_device(device)


def test_what_a_teacher_leaves_is_its_chosen_epoch(cache):
    spec = make_spec("mlp", "fp32", epochs=30)
    record = execute(spec, keep=True)
    logits = load_teacher(spec.key).teacher.logits
    t = open_task("Digits")
    assert t.evaluate(logits, t.split(0).test) == record["test"]
    assert t.evaluate(logits, t.split(0).val) == record["val"]


def test_nothing_is_kept_unasked(cache):
    execute(make_spec("mlp", "fp32"))
    assert not teachers_dir().exists()


def test_teacher_of_another_model(cache):
    spec = make_spec("gcn", teacher="mlp")
    teacher = {
        "model": "mlp",
        "recipe": recipe_for("mlp", "Digits", "scratch").replace(epochs=5).to_dict(),
    }
    record = execute(replace(spec, teacher=teacher))
    assert record["teacher_val"] == execute(make_spec("mlp", "fp32", epochs=5))["val"]


def test_student_is_lost_with_its_teacher(cache):
    changes = {"lr": 1e30, "epochs": 50, "teacher": "same"}
    record = execute(make_spec("mlp", **changes))
    assert execute(make_spec("mlp", "fp32", lr=1e30, epochs=50))["diverged"]
    assert record["diverged"]
    assert (record["epochs"], record["curves"]["loss"], record["test"]) == (0, [], None)


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
