import pytest

from bitgnn.data import available
from bitgnn.training import Recipe, recipe_for
from bitgnn.training.build import MODELS
from bitgnn.training.recipe import TEACHING


@pytest.mark.parametrize("model", MODELS)
def test_every_data_set_has_a_recipe(model):
    for info in available():
        recipe = recipe_for(model, info.name)
        assert recipe.select == "best_val"
        assert recipe.latent_weight_decay == 0.0


def test_published_recipes():
    gcn, gat = recipe_for("gcn", "Cora"), recipe_for("gat", "Cora")
    assert (gcn.lr, gcn.weight_decay, gcn.dropout, gcn.epochs) == (0.01, 5e-4, 0.5, 200)
    assert (gat.lr, gat.heads, gat.hidden_channels, gat.act) == (0.005, 8, 64, "elu")
    assert gat.dropout == gat.input_dropout == gat.attention_dropout == 0.6
    assert recipe_for("sgc", "Cora").K == 2


def test_the_papers_protocol():
    recipe = recipe_for("gcn", "Cora", "paper")
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("adamw", 0.01, 0.01)
    assert recipe.latent_weight_decay is None  # As `weight_decay`.
    assert (recipe.epochs, recipe.select, recipe.dropout) == (100, "last", 0.0)
    assert (recipe.hidden_channels, recipe.K, recipe.feature_norm) == (32, 2, "none")


def test_parts_change_the_recipe_of_the_model():
    recipe = recipe_for("gat", "Texas", "distill+wide2")
    changed = {name: getattr(Recipe(), name) for name in (*TEACHING, "width")}
    assert recipe.replace(**changed) == recipe_for("gat", "Texas", "scratch")
    assert (recipe.teacher, recipe.width) == ("same", 2)


def test_data_set_in_any_case():
    assert recipe_for("gcn", "digits") == recipe_for("gcn", "Digits") != recipe_for("gcn", "Cora")


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (("gin", "Cora"), "No model is called 'gin'; there are gcn, sage"),
        (("gcn", "Atlantis"), "no data set 'Atlantis'"),
        (("gcn", "Cora", "best"), "No recipe is called 'best'; there are default, paper and"),
    ],
)
def test_unknown_name(names, match):
    with pytest.raises(ValueError, match=match):
        recipe_for(*names)
