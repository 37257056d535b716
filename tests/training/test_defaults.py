import pytest

from bitgnn.data import available
from bitgnn.training import Recipe, recipe_for
from bitgnn.training.build import MODELS, build_model
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


# The numbers of parameters on OGB's leaderboard, where it lists these models. Of GCN on ogbn-arxiv
# it says 142,888: a matrix of 128 x 256 more than in OGB's example.
LEADERBOARD = {
    "ogbn-arxiv": {"gcn": 142_888 - 128 * 256, "sage": 218_664, "mlp": 110_120},
    "ogbn-products": {"gcn": 103_727, "sage": 206_895, "mlp": 103_727},
    "ogbn-proteins": {"gcn": 96_880, "sage": 193_136, "mlp": 96_880},
    "ogbn-mag": {"mlp": 188_509},
    "ogbn-papers100M": {"mlp": 144_044},
}


@pytest.mark.parametrize("dataset", LEADERBOARD)
def test_models_are_those_of_ogbs_leaderboard(dataset):
    info = next(info for info in available() if info.name == dataset)
    found = {}
    for model in LEADERBOARD[dataset]:
        recipe = recipe_for(model, dataset, "scratch")
        built = build_model(model, info.features, info.classes, recipe)
        found[model] = sum(param.numel() for param in built.parameters())
    assert found == LEADERBOARD[dataset]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dataset", LEADERBOARD)
def test_ogb_trains_all_epochs_on_features_as_they_are(model, dataset):
    recipe = recipe_for(model, dataset)
    assert recipe.teacher == "same"  # Parts have their say here, too.
    assert (recipe.feature_norm, recipe.weight_decay, recipe.patience) == ("none", 0.0, None)


def test_ogbs_recipes():
    arxiv = recipe_for("gcn", "ogbn-arxiv")
    assert (arxiv.epochs, arxiv.lr, arxiv.dropout, arxiv.norm) == (500, 0.01, 0.5, "batch_norm")
    assert recipe_for("sage", "OGBN_products").replace(epochs=500, norm="batch_norm") == arxiv
    assert recipe_for("mlp", "ogbn-products").dropout == 0.0
    assert recipe_for("gcn", "ogbn-proteins").dropout == 0.0
    gat = recipe_for("gat", "ogbn-products")
    assert (gat.hidden_channels, gat.heads, gat.act, gat.lr) == (512, 4, "elu", 0.001)


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
