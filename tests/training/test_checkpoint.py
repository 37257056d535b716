import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save_file
from torch_geometric import typing as pyg

from bitgnn import StrengthSchedule
from bitgnn.tensor_file import to_bytes
from bitgnn.training import Checkpoint, Recipe, Teacher, build_model, fit
from bitgnn.training.checkpoint import Checkpoints

FAST = Recipe(hidden_channels=16, epochs=9, dropout=0.4, lr=0.02)
SWITCH = {"schedule": StrengthSchedule("linear", 0.3, 0.7), "reset_optimizer": True}
TAUGHT = {"teacher": "same", "teacher_weight": 5.0, "teacher_decay": "linear"}


class StopError(Exception):
    pass


def run(t, recipe, name="gcn", quant="b158", checkpoint=None, stop_after=None, seed=3):
    torch.manual_seed(seed)
    model = build_model(name, t.num_features, t.num_classes, recipe, quant)
    teacher = Teacher(torch.eye(3)[t.data.y], {}) if recipe.teacher else None

    def on_epoch(epoch, val):
        if epoch == stop_after:
            raise StopError

    result = fit(model, t, t.split(0), recipe, seed, "cpu", on_epoch, teacher, checkpoint)
    return model, result


def numbers(model, result):
    kept = {k: v for k, v in vars(result).items() if k != "seconds"}
    return kept, [value.tolist() for value in model.state_dict().values()]


def about(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["bitgnn"])


@pytest.mark.parametrize("stop_after", [2, 6, 9])
@pytest.mark.parametrize(
    ("name", "quant", "changes"),
    [
        ("gcn", "b158", {"latent_power": 2.0, "lr_decay": "cosine"}),
        ("sage", None, {"norm": "batch_norm", "input_dropout": 0.2}),
        ("gat", "b158", {**SWITCH, "attention_dropout": 0.3}),
        ("mlp", "b158", {**TAUGHT, "batch": "random", "batch_size": 7, "optimizer": "adamw"}),
        ("sgc", "b158", {"batch": "random", "num_parts": 3, "patience": 4}),
        pytest.param(
            "sage", "b158", {"batch": "neighbor", "batch_size": 8, "num_neighbors": (2,)},
            marks=pytest.mark.skipif(not pyg.WITH_TORCH_SPARSE, reason="needs torch-sparse"),
        ),
    ],
)  # fmt: skip
def test_a_run_that_goes_on_is_equal_to_the_bit(name, quant, changes, stop_after, tiny, tmp_path):
    recipe = FAST.replace(**changes)
    expected = run(tiny, recipe, name, quant)
    if expected[1].epochs_run < stop_after:
        pytest.skip("It ends before")
    at = {"path": tmp_path / "run.safetensors", "key": "a", "epochs": 2}
    with pytest.raises(StopError):
        run(tiny, recipe, name, quant, Checkpoint(**at), stop_after)
    torch.rand(5)  # What happens in between has no part in it.
    found = run(tiny, recipe, name, quant, Checkpoint(**at, resume=True))
    assert numbers(*found) == numbers(*expected)
    again = run(tiny, recipe, name, quant, Checkpoint(**at, resume=True))
    assert numbers(*again) == numbers(*expected)  # It had ended.
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_run_that_diverged_stays_so(tiny, tmp_path):
    at = {"path": tmp_path / "run.safetensors", "key": "a", "epochs": 1}
    recipe = FAST.replace(lr=1e30, epochs=30)
    expected = run(tiny, recipe, quant=None, checkpoint=Checkpoint(**at))[1]
    assert expected.diverged
    found = run(tiny, recipe, quant=None, checkpoint=Checkpoint(**at, resume=True))[1]
    assert (found.diverged, found.curves) == (True, expected.curves)


def test_time_is_counted_over_both_parts(tiny, tmp_path):
    at = {"path": tmp_path / "run.safetensors", "key": "a", "epochs": 1}
    run(tiny, FAST, checkpoint=Checkpoint(**at))
    before = about(at["path"])["seconds"]
    assert run(tiny, FAST, checkpoint=Checkpoint(**at, resume=True))[1].seconds >= before > 0


def test_minutes(tiny, tmp_path):
    path, seen = tmp_path / "run.safetensors", []
    for minutes in (1e-9, 60.0):
        torch.manual_seed(0)
        model = build_model("mlp", 16, 3, FAST, "b158")
        checkpoint = Checkpoint(path, "a", minutes=minutes)
        fit(
            model, tiny, tiny.split(0), FAST, checkpoint=checkpoint,
            on_epoch=lambda epoch, _: seen.append((epoch, path.exists())),
        )  # fmt: skip
        assert path.exists()  # A run that has ended is written in any case.
        path.unlink()
    assert seen[:3] == [(1, False), (2, True), (3, True)]
    assert seen[9:] == [(epoch, False) for epoch in range(1, 10)]


def test_nothing_is_overwritten_unasked(tiny, tmp_path):
    path = tmp_path / "run.safetensors"
    run(tiny, FAST, checkpoint=Checkpoint(path, "a"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="already: go on from it with --resume, or delete it"):
        run(tiny, FAST, checkpoint=Checkpoint(path, "a"))
    with pytest.raises(ValueError, match="belongs to another run"):
        run(tiny, FAST, checkpoint=Checkpoint(path, "b", resume=True))
    assert path.read_bytes() == before


@pytest.mark.parametrize("keep", [0, 5, 200])
def test_damage(keep, tiny, tmp_path):
    path = tmp_path / "run.safetensors"
    run(tiny, FAST, checkpoint=Checkpoint(path, "a"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged or no checkpoint of bitgnn"):
        run(tiny, FAST, checkpoint=Checkpoint(path, "a", resume=True))


def test_no_flipped_bit_is_used(tiny, tmp_path):
    path = tmp_path / "run.safetensors"
    expected = run(tiny, FAST, checkpoint=Checkpoint(path, "a"))
    content = path.read_bytes()
    checkpoint = Checkpoint(path, "a", resume=True)
    for number, place in enumerate(range(0, len(content), 37)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << number % 8
        with pytest.raises(ValueError, match=r"is damaged or no checkpoint of bitgnn .* delete it"):
            checkpoint._parse(bytes(damaged))
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=rf"^'{path}' is damaged .*checksum differs"):
        run(tiny, FAST, checkpoint=checkpoint)
    path.write_bytes(content)
    assert numbers(*run(tiny, FAST, checkpoint=checkpoint)) == numbers(*expected)


def rewrite(path, about, tensors=None, **metadata):
    tensors = load(path.read_bytes()) if tensors is None else tensors
    path.write_bytes(to_bytes(tensors, {"bitgnn": json.dumps(about), **metadata}))


def test_a_checkpoint_of_format_1_has_no_checksum_and_goes_on(tiny, tmp_path):
    path = tmp_path / "run.safetensors"
    expected = run(tiny, FAST)
    with pytest.raises(StopError):
        run(tiny, FAST, checkpoint=Checkpoint(path, "a", epochs=2), stop_after=5)
    old = {"bitgnn": json.dumps({**about(path), "format": 1})}
    save_file(load(path.read_bytes()), path, old)
    found = run(tiny, FAST, checkpoint=Checkpoint(path, "a", resume=True))
    assert numbers(*found) == numbers(*expected)
    # One of the present format must have it.
    save_file(load(path.read_bytes()), path, {"bitgnn": json.dumps(about(path))})
    with pytest.raises(ValueError, match="it lacks its checksum"):
        run(tiny, FAST, checkpoint=Checkpoint(path, "a", resume=True))


@pytest.mark.parametrize("field", ["format", "key", "processes", "epoch", "ended", "best", "curves",
                                   "seconds", "diverged", "lrs"])  # fmt: skip
def test_fields_are_checked(field, tiny, tmp_path):
    path = tmp_path / "run.safetensors"
    run(tiny, FAST, checkpoint=Checkpoint(path, "a"))
    whole = about(path)
    for value in ("missing", "text"):
        fields = {**whole, field: value}
        if value == "missing":
            del fields[field]
        rewrite(path, fields)
        with pytest.raises(ValueError, match=rf"^'{path}' (is damaged|has|belongs|was written)"):
            run(tiny, FAST, checkpoint=Checkpoint(path, "a", resume=True))


@pytest.mark.parametrize("name", ["model.convs.0.lin.weight", "random.cpu.0",
                                  "power.0.root", "optimizer.0.exp_avg"])  # fmt: skip
def test_tensors_are_checked(name, tiny, tmp_path):
    path = tmp_path / "run.safetensors"
    recipe = FAST.replace(latent_power=2.0, epochs=1)
    run(tiny, recipe, checkpoint=Checkpoint(path, "a"))
    whole, tensors = about(path), load(path.read_bytes())
    del tensors[name]
    for change in ({}, {name: torch.ones(7)}):
        rewrite(path, whole, tensors | change)
        with pytest.raises(ValueError, match="is damaged or no checkpoint of bitgnn"):
            run(tiny, recipe, checkpoint=Checkpoint(path, "a", resume=True))


def test_a_place_that_cannot_be_written_is_noticed_before_training(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="Cannot write '.*': '.*/file' is no folder"):
        run(tiny, FAST, checkpoint=Checkpoint(tmp_path / "file" / "run", "a"), stop_after=1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 99, "has format 99, and this version of bitgnn reads formats up to 2"),
        ("processes", 4, r"written by 4 process\(es\), not 1"),
    ],
)
def test_another_kind_of_checkpoint(field, value, message, tiny, tmp_path):
    path = tmp_path / "run.safetensors"
    checkpoint = Checkpoint(path, "a", resume=True)
    run(tiny, FAST, checkpoint=checkpoint)
    rewrite(path, {**about(path), field: value})
    with pytest.raises(ValueError, match=message):
        run(tiny, FAST, checkpoint=checkpoint)


def test_a_run_that_has_not_begun_begins(tiny, tmp_path):
    checkpoint = Checkpoint(tmp_path / "new" / "run.safetensors", "a", resume=True)
    assert numbers(*run(tiny, FAST, checkpoint=checkpoint)) == numbers(*run(tiny, FAST))


def test_cadence_is_checked(tmp_path):
    for change in ({"epochs": 0}, {"minutes": -1.0}):
        with pytest.raises(ValueError, match="must be above 0"):
            Checkpoint(tmp_path / "run", "a", **change)


def test_each_run_has_a_file_of_its_own(tmp_path):
    found = [Checkpoints(tmp_path, True, 4).of(key * 32) for key in ("ab", "cd")]
    assert found[0].path == tmp_path / f"{'ab' * 8}.safetensors"
    assert found[0].path != found[1].path
    assert (found[1].resume, found[1].epochs, found[1].key) == (True, 4, "cd" * 32)
