import pytest
import torch

from bitgnn.nn import BitGAT, BitGCN, BitGraphSAGE, BitMLP, BitSGC
from bitgnn.training import Recipe, build_model
from bitgnn.training.fit import model_inputs

CLASSES = {"gcn": BitGCN, "sage": BitGraphSAGE, "gat": BitGAT, "sgc": BitSGC, "mlp": BitMLP}


@pytest.mark.parametrize("quant", [None, "b158"])
@pytest.mark.parametrize("name", CLASSES)
def test_build_model(name, quant, tiny):
    recipe = Recipe(hidden_channels=16, num_layers=3, norm="batch_norm")
    model = build_model(name, 16, 3, recipe, quant)
    assert type(model) is CLASSES[name]
    assert model(*model_inputs(model, tiny, recipe)).size() == (60, 3)


@pytest.mark.parametrize("name", CLASSES)
def test_both_sides_start_from_the_same_weights(name):
    sides = []
    for quant in (None, "b158"):
        torch.manual_seed(0)
        sides.append(build_model(name, 16, 3, Recipe(), quant).state_dict())
    assert sides[0].keys() == sides[1].keys()
    assert all(torch.equal(sides[0][key], sides[1][key]) for key in sides[0])


def test_recipe_reaches_the_layers():
    recipe = Recipe(hidden_channels=24, heads=4, attention_dropout=0.3, dropout=0.1, act="elu")
    model = build_model("gat", 16, 3, recipe)
    assert [conv.dropout for conv in model.convs] == [0.3, 0.3]
    assert [conv.heads for conv in model.convs] == [4, 4]
    assert model.convs[0].out_channels == 6
    assert isinstance(model.act, torch.nn.ELU)
    assert build_model("sgc", 16, 3, Recipe(K=4)).conv.K == 4


def test_dropped_features_are_not_propagated_once_for_all():
    assert build_model("sgc", 16, 3, Recipe()).conv.cached
    assert not build_model("sgc", 16, 3, Recipe(input_dropout=0.5)).conv.cached


def test_unknown_model():
    with pytest.raises(ValueError, match="No model is called 'gin'; there are gcn, sage, gat"):
        build_model("gin", 16, 3, Recipe())
