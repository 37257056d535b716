import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitgnn import StrengthSchedule
from bitgnn.training import Recipe

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
)


@given(recipes)
def test_recipe_json_round_trip(recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


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
        ("feature_norm", None, "'feature_norm' must be one of 'row', 'none'"),
        ("optimizer", "sgd", "'optimizer' must be one of 'adam', 'adamw'"),
        ("select", "best_test", "'select' must be one of 'best_val', 'last'"),
    ],
)
def test_value_that_is_not_allowed(field, value, match):
    with pytest.raises(ValueError, match=match):
        Recipe(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 10.5), ("K", True), ("lr", "fast"), ("dropout", True), ("schedule", "linear")],
)
def test_wrong_type(field, value):
    with pytest.raises(TypeError, match=f"'{field}' must be"):
        Recipe(**{field: value})


def test_patience_contradicts_the_last_epoch():
    with pytest.raises(ValueError, match=r"'patience' waits .* select='last' ignores"):
        Recipe(patience=10, select="last")


@pytest.mark.parametrize("make", [Recipe.from_dict, lambda values: Recipe().replace(**values)])
def test_unknown_field(make):
    with pytest.raises(ValueError, match="no field 'learning_rate'; it has hidden_channels"):
        make({"learning_rate": 0.1})
