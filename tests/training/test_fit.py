import copy
from importlib import import_module

import pytest
import torch

from bitgnn import StrengthSchedule
from bitgnn.training import Recipe, Teacher, build_model, fit
from bitgnn.training.inputs import model_inputs
from bitgnn.training.latent import latent_weights

FAST = Recipe(hidden_channels=16, epochs=30, dropout=0.2, lr=0.02)


def run(t, recipe=FAST, name="gcn", quant="b158", seed=0, **kwargs):
    torch.manual_seed(seed)
    model = build_model(name, t.num_features, t.num_classes, recipe, quant)
    return model, fit(model, t, t.split(seed), recipe, seed, **kwargs)


@pytest.mark.parametrize("quant", [None, "b158"])
@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "sgc", "mlp"])
def test_every_model_learns(name, quant, tiny):
    _, result = run(tiny, FAST.replace(dropout=0.0, epochs=60), name, quant)
    assert result.val > 70.0  # Chance is 33.
    assert not result.diverged


def test_rocauc(tiny_rocauc):
    _, result = run(tiny_rocauc, FAST.replace(dropout=0.0))
    assert result.test > 90.0


def test_result_is_that_of_the_chosen_epoch(tiny):
    model, result = run(tiny)
    assert result.epochs_run == 30
    assert {len(curve) for curve in result.curves.values()} == {30}
    assert result.val == max(result.curves["val"]) == result.curves["val"][result.best_epoch - 1]
    assert result.test == result.curves["test"][result.best_epoch - 1]
    out = model.eval()(*model_inputs(model, tiny, FAST))
    assert tiny.evaluate(out, tiny.split(0).test) == result.test


def test_last_epoch(tiny):
    _, result = run(tiny, FAST.replace(select="last"))
    assert result.best_epoch == 30
    assert result.test == result.curves["test"][-1]


def test_equal_epochs_are_told_apart_by_validation_loss(tiny):
    tiny.data.x.zero_()  # All epochs predict one class, while the loss falls to its minimum.
    _, result = run(tiny, FAST.replace(dropout=0.0), quant=None)
    assert set(result.curves["val"]) == {result.val}
    assert result.best_epoch == 1  # Glorot and zero biases: the first step has the uniform output.


def test_test_nodes_have_no_part_in_selection(tiny):
    other = copy.deepcopy(tiny)
    test = other.split(0).test
    other.data.y[test] = other.data.y[test].roll(1)
    (model, result), (other_model, other_result) = run(tiny), run(other)
    assert result.curves["test"] != other_result.curves["test"]
    assert result.curves["val"] == other_result.curves["val"]
    assert result.best_epoch == other_result.best_epoch
    for value, other_value in zip(model.parameters(), other_model.parameters(), strict=True):
        assert torch.equal(value, other_value)


def test_patience(tiny):
    _, result = run(tiny, FAST.replace(epochs=500, patience=5))
    assert result.epochs_run == result.best_epoch + 5 < 500


def test_only_fully_quantized_epochs_are_chosen(tiny):
    recipe = FAST.replace(schedule=StrengthSchedule("step", start=0.5), patience=2, epochs=40)
    model, ternary = run(tiny, recipe)
    assert ternary.best_epoch >= 20
    assert model.convs[0].lin.strength == 1.0
    _, full = run(tiny, recipe.replace(dropout=0.0, lr=0.2), quant=None)
    assert full.best_epoch < 20


def test_strength_follows_the_schedule(tiny):
    strengths = []
    recipe = FAST.replace(epochs=4, schedule=StrengthSchedule("linear", 0.0, 0.5))
    model = build_model("gcn", 16, 3, recipe, "b158")
    lin = model.convs[0].lin
    fit(model, tiny, tiny.split(0), recipe, on_epoch=lambda *_: strengths.append(lin.strength))
    assert strengths == [0.5, 1.0, 1.0, 1.0]


def test_optimizer_starts_afresh_at_the_switch(tiny, monkeypatch):
    r"""Steps that each parameter has seen, after each epoch."""
    module = import_module("bitgnn.training.fit")  # The package has the function by this name.
    build, built = module.build_optimizer, []
    monkeypatch.setattr(
        module, "build_optimizer", lambda *args: built.append(build(*args)) or built[-1]
    )

    def steps(reset):
        seen = []
        schedule = StrengthSchedule("linear", 0.5, 1.0)
        recipe = FAST.replace(epochs=6, schedule=schedule, reset_optimizer=reset)
        run(tiny, recipe, on_epoch=lambda *_: seen.append(
            {int(state["step"]) for state in built[-1].state.values()}
        ))  # fmt: skip
        return seen

    # Strengths 0, 0, 0, 1/3, 2/3, 1: the switch is in the fourth epoch alone.
    assert steps(reset=False) == [{1}, {2}, {3}, {4}, {5}, {6}]
    assert steps(reset=True) == [{1}, {2}, {3}, {1}, {2}, {3}]


def test_full_precision_has_no_switch(tiny):
    schedule = StrengthSchedule("step", 0.5)
    recipes = [FAST.replace(schedule=schedule, reset_optimizer=reset) for reset in (False, True)]
    first, second = (run(tiny, recipe, quant=None)[1].curves for recipe in recipes)
    assert first == second


def test_student_learns_what_its_teacher_says(tiny):
    r"""A teacher of other classes than the true ones is followed where it has the last word."""
    wrong = (tiny.data.y + 1) % 3
    teacher = Teacher(10.0 * torch.eye(3)[wrong], {})
    recipe = FAST.replace(epochs=60, dropout=0.0, teacher="gat", teacher_weight=20.0, select="last")
    model, result = run(tiny, recipe, teacher=teacher)
    out = model.eval()(*model_inputs(model, tiny, recipe))
    assert float((out.argmax(dim=-1) == wrong).float().mean()) > 0.9
    assert result.val < 20.0


def test_the_teacher_has_less_and_less_to_say(tiny, monkeypatch):
    r"""The loss of an epoch counts the epochs before it: the first one has the whole weight."""
    module, seen = import_module("bitgnn.training.fit"), []

    class Watched(module.Objective):
        def __call__(self, out, progress, nodes):
            seen.append(progress)
            return super().__call__(out, progress, nodes)

    monkeypatch.setattr(module, "Objective", Watched)
    run(tiny, FAST.replace(epochs=4))
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_start_from_the_teacher(tiny):
    teacher_model, taught = run(tiny, quant=None)
    teacher = Teacher(torch.zeros(60, 3), teacher_model.state_dict())
    recipe = FAST.replace(teacher="same", teacher_weight=0.0, start="teacher", lr=1e-12)
    model, result = run(tiny, recipe, quant=None, teacher=teacher)
    assert set(result.curves["val"]) == {taught.val}
    for mine, theirs in zip(model.parameters(), teacher_model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_learning_rate_falls(tiny):
    model, _ = run(tiny, FAST.replace(epochs=40, lr_decay="linear", select="last"))
    other, _ = run(tiny, FAST.replace(epochs=40, select="last"))
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert not any(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_recipe_with_a_teacher_asks_for_it(tiny):
    with pytest.raises(ValueError, match="teacher='same', but none was given"):
        run(tiny, FAST.replace(teacher="same"))


def test_divergence_ends_the_run(tiny):
    _, result = run(tiny, FAST.replace(lr=1e30), quant=None)
    assert result.diverged
    assert result.epochs_run < 30
    assert result.best_epoch <= result.epochs_run


def test_features_that_are_not_finite_diverge_at_once(tiny):
    tiny.data.x[0] = float("nan")
    _, result = run(tiny)
    assert result.diverged
    assert (result.best_epoch, result.epochs_run) == (0, 0)
    assert result.test != result.test


@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "sgc", "mlp"])
def test_same_seed_gives_same_curves(name, tiny):
    first, second, other = (run(tiny, name=name, seed=seed)[1].curves for seed in (0, 0, 1))
    assert first == second != other


def test_input_dropout_in_training_only(tiny):
    seen = {True: [], False: []}
    recipe = FAST.replace(input_dropout=0.5, epochs=2, feature_norm="none")
    model = build_model("mlp", 16, 3, recipe, "b158")
    model.register_forward_pre_hook(
        lambda module, inputs: seen[module.training].append(float((inputs[0] == 0).float().mean()))
    )
    fit(model, tiny, tiny.split(0), recipe)
    assert all(0.4 < share < 0.6 for share in seen[True])
    assert seen[False] == [0.0, 0.0]


def test_static_features_stay_the_same_tensor(tiny):
    seen = set()
    model = build_model("mlp", 16, 3, FAST, "b158")
    model.register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].data_ptr()))
    fit(model, tiny, tiny.split(0), FAST.replace(epochs=3))
    assert len(seen) == 1


def test_on_epoch(tiny):
    calls = []
    _, result = run(tiny, on_epoch=lambda epoch, val: calls.append((epoch, val)))
    assert calls == list(enumerate(result.curves["val"], start=1))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "sgc", "mlp"])
def test_cuda(name, tiny):
    _, result = run(tiny, FAST.replace(dropout=0.0, epochs=60), name, device="cuda")
    assert result.test > 70.0


def test_powers_leave_more_weights_at_zero(tiny):
    def zeros(recipe):
        model, result = run(tiny, recipe)
        values = [layer.ternary()[0] for layer in model.modules() if hasattr(layer, "ternary")]
        assert len(values) == len(latent_weights(model))
        return (torch.cat([each.flatten() for each in values]) == 0).float().mean(), result

    plain, _ = zeros(FAST)
    powers, result = zeros(FAST.replace(latent_power=2.0))
    assert powers > plain + 0.05
    assert result.curves["loss"][-1] < result.curves["loss"][0]


def test_powers_are_none_of_the_32_bit_side(tiny):
    _, plain = run(tiny, quant=None)
    _, powers = run(tiny, FAST.replace(latent_power=2.0), quant=None)
    assert plain.curves == powers.curves
