import re
from pathlib import Path

import pytest

from bitgnn import QuantConfig
from bitgnn.training import Recipe, recipe_for
from bitgnn.training.parts import PARTS, parse_parts, quant_for, recipe_changes, recipe_names
from bitgnn.training.settings import parse_settings


@pytest.mark.parametrize("name", PARTS)
def test_every_part_makes_a_recipe(name):
    for model in ("gcn", "gat", "sgc"):
        recipe_for(model, "Cora", name)
    quant_for(name)
    assert PARTS[name].about


def test_parts_are_joined():
    recipe = recipe_for("gat", "Cora", "continual+distill+channel+wide2")
    assert recipe.teacher == "same"
    assert recipe.schedule(0.0) == 0.0
    assert (recipe.width, recipe.act) == (2, "elu")
    assert quant_for("continual+distill+channel+wide2") == QuantConfig(granularity="channel")
    assert recipe_for("gat", "Cora", "wide2+channel+distill+continual") == recipe


def test_what_a_recipe_adds_is_not_seen_by_its_32_bit_side():
    for name in recipe_names():
        if name != "paper":
            assert recipe_for("gcn", "Cora", name).plain() == recipe_for("gcn", "Cora").plain()


def test_scratch_says_what_holds_anyway():
    assert recipe_for("gcn", "Cora", "scratch+wide2") == recipe_for("gcn", "Cora", "wide2")
    assert Recipe(**recipe_changes("scratch")) == Recipe()


def test_decoupled_decay_is_that_of_latent_weights_alone():
    recipe = recipe_for("gcn", "Cora", "decoupled")
    assert (recipe.optimizer, recipe.latent_optimizer) == ("adam", "adamw")
    assert recipe.latent_weight_decay > 0


def test_the_default_can_be_a_combination(monkeypatch):
    monkeypatch.setattr("bitgnn.training.parts.DEFAULT", "distill+channel")
    assert recipe_changes("default") == recipe_changes("distill")
    assert recipe_changes("default+wide2") == recipe_changes("distill+wide2")
    assert quant_for("default").granularity == "channel"


def test_recipes_with_a_name():
    names = list(recipe_names())
    assert names[:2] == ["default", "paper"]
    assert {*PARTS, "continual+distill", "distill+channel+wide4"} <= set(names)
    assert len(names) == len(set(names))
    assert not {"wide2+wide4", "scratch+distill"} & set(names)
    lengths = [name.count("+") for name in names]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("distil", "No recipe is called 'distil'; there are default, paper and the parts scratch"),
        ("distill+", "No recipe is called ''; there are"),
        ("paper+distill", "'paper' stands alone: it cannot be combined"),
        ("wide2+wide4", "'wide2[+]wide4' cannot be combined: wide2 and wide4 both set 'width'"),
        ("distill+distill", "distill and distill both set 'teacher'"),
        ("scratch+continual", "scratch and continual both set 'schedule'"),
    ],
)
def test_what_cannot_be_combined(name, match):
    with pytest.raises(ValueError, match=match):
        parse_parts(name)


def test_reference_page_states_the_parts_as_they_are():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    stated = {}
    for names, changes in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (`.*?`) \|", page, re.MULTILINE):
        names, changes = (re.findall("`(.*?)`", words) for words in (names, changes))
        stated.update(zip(names, changes * (len(names) if len(changes) == 1 else 1), strict=True))
    assert list(stated) == list(PARTS)
    for name, part in PARTS.items():
        words = stated[name].removeprefix("--quant ").split()
        kind = QuantConfig if stated[name].startswith("--quant") else Recipe
        assert parse_settings(words, kind) == (part.quant if kind is QuantConfig else part.recipe)
