import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitgnn import QuantConfig, StrengthSchedule
from bitgnn.experiment.command import (
    command,
    format_quant,
    format_seeds,
    parse_quant,
    parse_seeds,
    recipe_name,
)
from bitgnn.training import recipe_for


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (3, [0, 1, 2]),
        ("3", [0, 1, 2]),
        ("5:8", [5, 6, 7]),
        ("4,9", [4, 9]),
        ("7,", [7]),
        ([2, 1], [2, 1]),
        (range(2), [0, 1]),
    ],
)
def test_parse_seeds(seeds, expected):
    assert parse_seeds(seeds) == expected


@given(st.lists(st.integers(0, 30), min_size=1, unique=True))
def test_seeds_round_trip(seeds):
    assert parse_seeds(format_seeds(seeds)) == seeds


@pytest.mark.parametrize("seeds", [0, -1, "0", "5:5", [], [-1], [1, 1], "1,1"])
def test_no_seeds_or_wrong_ones(seeds):
    with pytest.raises(ValueError, match="'seeds' must be at least one seed from 0 on"):
        parse_seeds(seeds)


@pytest.mark.parametrize("seeds", ["ten", "1:2:3", "1,b", ""])
def test_seeds_that_cannot_be_read(seeds):
    with pytest.raises(ValueError, match="'seeds' is a count such as 10"):
        parse_seeds(seeds)


def test_parse_quant():
    assert parse_quant([]) == QuantConfig()
    assert parse_quant(["reloaded"]) == QuantConfig.preset("reloaded")
    words = ["granularity=channel", "activation_bits=none"]
    assert parse_quant(words) == QuantConfig(granularity="channel", activation_bits=None)
    assert parse_quant(["reloaded", "weight_bits=4"]).weight_bits == 4
    with pytest.raises(ValueError, match="No preset is called 'b1'"):
        parse_quant(["b1"])


@given(
    st.builds(
        QuantConfig,
        weight_bits=st.sampled_from([1.58, 2, 4, None]),
        granularity=st.sampled_from(["tensor", "channel"]),
        activation_bits=st.sampled_from([8, 4, None]),
        layer_norm=st.booleans(),
        full_range=st.booleans(),
        eps=st.sampled_from([1e-8, 1e-5]),
    )
)
def test_quant_round_trip(quant):
    assert parse_quant(format_quant(quant, quant.weight_measure)) == quant


def make_row(**changes):
    row = {
        "dataset": "Cora",
        "model": "gcn",
        "precision": "absmean",
        "split": "public",
        "seeds": [0, 1, 2],
        "quant": QuantConfig().to_dict(),
        "recipe": recipe_for("gcn", "Cora").to_dict(),
        "teacher": {"model": "gcn", "recipe": {}},
    }
    return {**row, **changes}


def test_command_of_a_plain_row():
    assert command(make_row()) == (
        "bitgnn compare --dataset Cora --model gcn --split public --seeds 3 "
        "--precision fp32 fp32-distilled absmean"
    )
    untaught = make_row(recipe=recipe_for("gcn", "Cora", "scratch").to_dict(), teacher=None)
    assert command(untaught).endswith("--precision fp32 absmean --recipe scratch")
    full = recipe_for("gcn", "Cora").plain().to_dict()
    row = make_row(precision="fp32", quant=None, recipe=full, teacher=None)
    assert command(row).endswith("--precision fp32")


def test_command_tells_what_was_changed():
    schedule = StrengthSchedule("linear", 0.0, 0.5)
    recipe = recipe_for("gcn", "Cora").replace(lr=0.1, schedule=schedule).to_dict()
    quant = QuantConfig(granularity="channel").to_dict()
    assert command(make_row(recipe=recipe, quant=quant, seeds=[4, 9])) == (
        "bitgnn compare --dataset Cora --model gcn --split public --seeds 4,9 "
        "--precision fp32 fp32-distilled absmean --recipe distill+powers+channel "
        "--set lr=0.1 schedule=linear:0.0:0.5"
    )


def test_command_of_the_papers_protocol():
    recipe = recipe_for("gcn", "Cora", "paper").to_dict()
    quant = QuantConfig.preset("reloaded").to_dict()
    assert command(make_row(recipe=recipe, quant=quant)).endswith("--recipe paper --quant reloaded")


def test_command_of_parts():
    name = "continual+distill+wide2"
    recipe = recipe_for("gcn", "Cora", name).replace(temperature=2.0)
    quant = QuantConfig(granularity="channel", activation_bits=4).to_dict()
    row = make_row(recipe=recipe.to_dict(), quant=quant)
    assert command(row).partition(" --precision ")[2] == (
        "fp32 fp32-distilled absmean --recipe continual+distill+channel+wide2 "
        "--set temperature=2.0 --quant activation_bits=4"
    )
    distilled = {**row, "precision": "fp32-distilled", "quant": None,
                 "recipe": recipe.distilled().to_dict()}  # fmt: skip
    assert command(distilled).partition(" --precision ")[2] == (
        "fp32 fp32-distilled --set temperature=2.0"
    )
    full = {**row, "precision": "fp32", "quant": None, "teacher": None,
            "recipe": recipe.plain().to_dict()}  # fmt: skip
    assert command(full).endswith("--precision fp32")
    names = [recipe_name(each) for each in (row, distilled, full)]
    assert names == [
        "continual+distill+channel+wide2 temperature=2.0 activation_bits=4",
        "default temperature=2.0",
        "default",
    ]


def test_name_of_a_recipe_leaves_out_what_both_sides_share():
    recipe = recipe_for("gcn", "Cora", "continual").replace(lr=0.1, latent_lr=0.2)
    assert recipe_name(make_row(recipe=recipe.to_dict())) == "continual latent_lr=0.2"
    assert recipe_name(make_row()) == "default"


def test_row_of_a_recipe_with_fewer_fields():
    row = make_row(recipe={"lr": 0.01, "epochs": 200}, teacher=None)
    scratch = recipe_for("gcn", "Cora", "scratch").to_dict()
    assert command(row) == command(make_row(recipe=scratch, teacher=None))


def test_quant_of_a_recipe():
    channel = QuantConfig(granularity="channel")
    assert parse_quant([], channel) == channel
    assert parse_quant(["activation_bits=4"], channel) == channel.replace(activation_bits=4)
    assert parse_quant(["b158"], channel) == QuantConfig()
    for quant in (channel, QuantConfig(), QuantConfig.preset("reloaded", granularity="channel")):
        assert parse_quant(format_quant(quant, "absmean", channel), channel) == quant
