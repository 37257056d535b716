import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitgnn import QuantConfig, StrengthSchedule
from bitgnn.training import Recipe
from bitgnn.training.settings import format_settings, parse_settings


def test_parse_settings():
    texts = ["lr=0.005", "epochs=50", "norm=none", "feature_norm=none", "schedule=cosine:0.1:0.9"]
    assert parse_settings(texts, Recipe) == {
        "lr": 0.005,
        "epochs": 50,
        "norm": None,
        "feature_norm": "none",
        "schedule": StrengthSchedule("cosine", 0.1, 0.9),
    }
    assert parse_settings(["layer_norm=true"], QuantConfig) == {"layer_norm": True}


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("linear", StrengthSchedule("linear")),
        ("step:0.25", StrengthSchedule("step", 0.25)),
        ("linear:0:1", StrengthSchedule("linear", 0.0, 1.0)),
    ],
)
def test_bounds_of_a_schedule_may_be_left_out(text, schedule):
    assert parse_settings([f"schedule={text}"], Recipe) == {"schedule": schedule}


@given(
    st.builds(
        Recipe,
        lr=st.floats(1e-6, 10),
        norm=st.sampled_from([None, "layer_norm"]),
        patience=st.none() | st.integers(1, 99),
        feature_norm=st.sampled_from(["row", "none"]),
        schedule=st.builds(StrengthSchedule, st.just("linear"), st.floats(0.1, 0.5)),
        reset_optimizer=st.booleans(),
        lr_decay=st.sampled_from([None, "cosine"]),
        latent_optimizer=st.sampled_from([None, "adamw"]),
        width=st.integers(1, 4),
        teacher=st.sampled_from(["same", "gat"]),
        teacher_weight=st.floats(0.1, 50),
        teacher_decay=st.sampled_from([None, "linear"]),
        num_neighbors=st.lists(st.just(-1) | st.integers(1, 99), min_size=1),
    )
)
def test_round_trip(recipe):
    texts = format_settings(recipe.to_dict(), Recipe().to_dict())
    assert Recipe().replace(**parse_settings(texts, Recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("lr", "A setting is written name=value"),
        ("lr=", "A setting is written name=value"),
        ("rate=1", "There is no setting 'rate'; there are hidden_channels"),
        ("schedule=linear:a:b", "A schedule is written kind:start:end"),
        ("schedule=linear:0:1:2", "A schedule is written kind:start:end"),
        ("schedule=square", "'kind' must be one of"),
    ],
)
def test_setting_that_cannot_be_read(text, match):
    with pytest.raises(ValueError, match=match):
        parse_settings([text], Recipe)
