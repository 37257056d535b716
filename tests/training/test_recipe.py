import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitgnn import StrengthSchedule
from bitgnn.training import Recipe
from bitgnn.training.recipe import MAX_COUNTS, QUANTIZED, TEACHING, YOUNGER

recipes = st.builds(
    Recipe,
    hidden_channels=st.integers(1, 512),
    dropout=st.floats(0, 0.99),
    norm=st.sampled_from([None, "batch_norm"]),
    lr=st.floats(1e-6, 10),
    latent_lr=st.none() | st.floats(1e-6, 10),
    epochs=st.integers(1, 1000),
    patience=st.none() | st.integers(1, 100),
    schedule=st.builds(StrengthSchedule, st.sampled_from(["constant", "linear", "cosine"])),
    lr_decay=st.sampled_from([None, "linear", "cosine"]),
    latent_gain=st.floats(0.1, 10),
    latent_power=st.floats(1, 4),
    latent_optimizer=st.sampled_from([None, "adam", "adamw"]),
    width=st.integers(1, 4),
    keep=st.sampled_from([None, "first", "last"]),
)
students = st.builds(
    Recipe.replace,
    recipes,
    teacher=st.sampled_from(["same", "gat"]),
    teacher_weight=st.floats(0.1, 100),
    teacher_decay=st.sampled_from([None, "linear", "cosine"]),
    temperature=st.floats(0.1, 10),
    standardize=st.sampled_from([None, "graph", "node"]),
    batch=st.sampled_from([None, "neighbor", "random", "saint", "cluster"]),
    num_neighbors=st.lists(st.just(-1) | st.integers(1, 99), min_size=1),
)


@given(recipes | students)
def test_recipe_json_round_trip(recipe):
    for values in (recipe.to_dict(), recipe.to_record()):
        assert Recipe.from_dict(json.loads(json.dumps(values))) == recipe


def test_record_names_younger_fields_only_where_they_are_used():
    older = Recipe(teacher="same")
    assert set(older.to_dict()) - set(older.to_record()) == set(YOUNGER)
    recipe, record = older, older.to_record()
    used = {
        "teacher_decay": "linear", "latent_power": 2.0, "batch": "neighbor", "batch_size": 8,
        "num_neighbors": [5, -1], "num_parts": 3,
    }  # fmt: skip
    assert set(used) == set(YOUNGER)
    for name, value in used.items():
        recipe = recipe.replace(**{name: value})
        assert recipe.to_record() == {**record, name: value}
        record = recipe.to_record()
    assert record == recipe.to_dict()


def test_recipe_is_immutable_and_replaceable():
    recipe = Recipe(lr=0.1)
    with pytest.raises(AttributeError):
        recipe.lr = 0.2
    assert recipe.replace(lr=0.2) == Recipe(lr=0.2)


def test_equal_numbers_give_equal_fields():
    assert json.dumps(Recipe(lr=1).to_dict()) == json.dumps(Recipe(lr=1.0).to_dict())


def test_latent_weights_do_not_decay_by_default():
    assert Recipe().weight_decay > 0
    assert Recipe().latent_weight_decay == 0


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("hidden_channels", 0, r"'hidden_channels' must be at least 1 \(got 0\)"),
        ("epochs", -5, "'epochs' must be at least 1"),
        ("patience", 0, "'patience' must be at least 1"),
        ("dropout", 1.0, r"'dropout' must be in \[0, 1\) \(got 1.0\)"),
        ("lr", 0, "'lr' must be above 0"),
        ("lr", float("nan"), "'lr' must be above 0"),
        ("weight_decay", -1e-4, "'weight_decay' must be at least 0"),
        ("latent_weight_decay", float("inf"), "'latent_weight_decay' must be at least 0"),
        ("act", "sine", "'act' must be one of 'relu'.*got 'sine'"),
        ("norm", "pair_norm", "'norm' must be one of 'batch_norm', 'layer_norm', None"),
        ("feature_norm", None, "'feature_norm' must be one of 'row', 'l2', 'none'"),
        ("optimizer", "sgd", "'optimizer' must be one of 'adam', 'adamw'"),
        ("latent_optimizer", "sgd", "'latent_optimizer' must be one of 'adam', 'adamw', None"),
        ("latent_gain", 0.0, "'latent_gain' must be above 0"),
        ("latent_power", 0.5, "'latent_power' must be at least 1"),
        ("lr_decay", "step", "'lr_decay' must be one of 'linear', 'cosine', None"),
        ("width", 0, "'width' must be at least 1"),
        ("keep", "middle", "'keep' must be one of 'first', 'last', None .got 'middle'"),
        ("teacher_weight", -1.0, "'teacher_weight' must be at least 0"),
        ("teacher_decay", "step", "'teacher_decay' must be one of 'linear', 'cosine', None"),
        ("temperature", 0.0, "'temperature' must be above 0"),
        ("standardize", True, "'standardize' must be one of 'graph', 'node', None .got True"),
        ("start", "zero", "'start' must be one of 'scratch', 'teacher'"),
        ("select", "best_test", "'select' must be one of 'best_val', 'last'"),
        ("batch", "graph", "'batch' must be one of 'neighbor', 'random', 'saint', 'cluster', None"),
        ("batch_size", 0, "'batch_size' must be at least 1"),
        ("num_parts", 0, "'num_parts' must be at least 1"),
        ("num_neighbors", (5, 0), r"must be at least 1 each, or -1 for all .* \(got \(5, 0\)\)"),
        ("num_neighbors", (), "must be at least 1 each"),
    ],
)
def test_value_that_is_not_allowed(field, value, match):
    with pytest.raises(ValueError, match=match):
        Recipe(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 10.5),
        ("K", True),
        ("num_neighbors", "all"),
        ("num_neighbors", (5, 2.5)),
        ("lr", "fast"),
        ("dropout", True),
        ("schedule", "linear"),
        ("width", 1.5),
        ("teacher", True),
        ("reset_optimizer", 1),
    ],
)
def test_wrong_type(field, value):
    with pytest.raises(TypeError, match=f"'{field}' must be"):
        Recipe(**{field: value})


@given(recipes | students)
def test_plain_recipe_has_nothing_of_ternary_layers_or_teachers(recipe):
    shared = ("hidden_channels", "dropout", "norm", "lr", "lr_decay", "epochs", "patience", "batch")
    shared += ("num_neighbors",)
    kept = {name: getattr(recipe, name) for name in shared}
    assert recipe.plain() == Recipe(**kept)
    teaching = ("teacher", "teacher_weight", "teacher_decay", "temperature", "standardize", "start")
    assert recipe.distilled() == Recipe(**kept, **{n: getattr(recipe, n) for n in teaching})
    assert recipe.plain().plain() == recipe.distilled().plain() == recipe.plain()


def test_every_field_is_shared_or_not():
    r"""A new field must be put where it belongs: this list is what both sides share."""
    names = {each.name for each in fields(Recipe)}
    assert names - {*QUANTIZED, *TEACHING} == {
        "hidden_channels", "num_layers", "dropout", "input_dropout", "heads", "attention_dropout",
        "K", "act", "norm", "feature_norm", "optimizer", "lr", "lr_decay", "weight_decay",
        "epochs", "patience", "select", "batch", "batch_size", "num_neighbors", "num_parts",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"teacher_weight": 2.0}, r"'teacher_weight=2.0' needs a teacher: set teacher='same'"),
        ({"teacher_decay": "linear"}, "'teacher_decay=linear' needs a teacher"),
        ({"temperature": 4}, "'temperature=4.0' needs a teacher: .* leave 'temperature' at 1.0"),
        ({"standardize": "node"}, "'standardize=node' needs a teacher"),
        ({"start": "teacher"}, "'start=teacher' needs a teacher"),
        ({"teacher": "same", "teacher_weight": 0}, "the teacher has no part: raise the weight"),
        ({"teacher": "gat", "start": "teacher"}, r"copies parameters.*got teacher='gat' and width"),
        ({"teacher": "same", "start": "teacher", "width": 2}, "needs teacher='same' and width=1"),
        ({"reset_optimizer": True}, "this schedule never is: use one that starts later"),
        (
            {"reset_optimizer": True, "schedule": StrengthSchedule("linear", 0.0, 0.5)},
            "waits for the strength to rise from 0",
        ),
    ],
)
def test_fields_that_contradict(changes, match):
    with pytest.raises(ValueError, match=match):
        Recipe(**changes)


def test_continual_from_a_finished_run_needs_no_distillation():
    recipe = Recipe(teacher="same", start="teacher", teacher_weight=0)
    assert recipe.distilled() == recipe


def test_patience_contradicts_the_last_epoch():
    with pytest.raises(ValueError, match=r"'patience' waits .* select='last' ignores"):
        Recipe(patience=10, select="last")


@pytest.mark.parametrize(("name", "most"), MAX_COUNTS.items())
def test_largest_counts(name, most):
    assert getattr(Recipe(**{name: most}), name) == most
    with pytest.raises(ValueError, match=rf"'{name}' must be at most {most:,} \(got {most + 1}\)"):
        Recipe(**{name: most + 1})


@pytest.mark.parametrize("name", ["lr", "latent_lr", "weight_decay", "latent_power", "latent_gain"])
def test_largest_numbers(name):
    assert getattr(Recipe(**{name: 1e30}), name) == 1e30
    with pytest.raises(ValueError, match=rf"'{name}' must be at most 1e\+30 \(got 1e\+31\)"):
        Recipe(**{name: 1e31})


@pytest.mark.parametrize("make", [Recipe.from_dict, lambda values: Recipe().replace(**values)])
def test_unknown_field(make):
    with pytest.raises(ValueError, match="no field 'learning_rate'; it has hidden_channels"):
        make({"learning_rate": 0.1})
