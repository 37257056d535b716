import pytest
import torch

from bitgnn.nn import BitGAT, BitGCN, BitGraphSAGE, BitMLP, BitSGC
from bitgnn.training import Recipe, build_model
from bitgnn.training.inputs import model_inputs
from bitgnn.training.latent import quantized_layers

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


@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "mlp"])
def test_width_is_for_the_ternary_side_alone(name, tiny):
    recipe = Recipe(hidden_channels=16, width=2)
    full, wide = (build_model(name, 16, 3, recipe, quant) for quant in (None, "b158"))
    expected = build_model(name, 16, 3, Recipe(hidden_channels=32), "b158").state_dict()
    assert {k: v.shape for k, v in wide.state_dict().items()} == {
        k: v.shape for k, v in expected.items()
    }
    plain = build_model(name, 16, 3, recipe.plain()).state_dict()
    assert [v.shape for v in full.state_dict().values()] == [v.shape for v in plain.values()]


@pytest.mark.parametrize(("keep", "index"), [("first", 0), ("last", -1)])
@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "mlp"])
def test_kept_layer_is_that_of_the_full_precision_model(name, keep, index, tiny):
    recipe = Recipe(hidden_channels=16, num_layers=3, width=2, keep=keep)
    torch.manual_seed(0)
    model = build_model(name, 16, 3, recipe, "b158").eval()
    torch.manual_seed(0)
    ternary = build_model(name, 16, 3, recipe.replace(keep=None), "b158").eval()
    wide = recipe.plain().replace(hidden_channels=32)
    torch.manual_seed(0)
    full = build_model(name, 16, 3, wide).eval()

    def layers(model):
        return list(model.lins if name == "mlp" else model.convs)

    # Drawn as without `keep`, so that nothing else differs.
    state, expected = model.state_dict(), ternary.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)

    quantized = [bool(quantized_layers(layer)) for layer in layers(model)]
    assert quantized.pop(index) is False
    assert all(quantized) and len(quantized) == 2

    _, *graph = model_inputs(model, tiny, recipe)
    outs = {}
    for layer, other in ((index, full), (index, ternary), (1, ternary)):
        mine, theirs = layers(model)[layer], layers(other)[layer]
        x = torch.randn(60, mine.in_channels)
        outs[layer, other is full] = mine(x, *graph), theirs(x, *graph)
    torch.testing.assert_close(*outs[index, True])
    torch.testing.assert_close(*outs[1, False])
    assert not torch.allclose(*outs[index, False])


def test_kept_layer_is_for_the_ternary_side_alone():
    kept, plain = (Recipe(keep=keep) for keep in ("first", None))
    assert kept.plain() == kept.distilled() == plain
    torch.manual_seed(0)
    full = build_model("gcn", 16, 3, kept).state_dict()
    torch.manual_seed(0)
    expected = build_model("gcn", 16, 3, plain).state_dict()
    assert all(torch.equal(full[key], expected[key]) for key in expected)


@pytest.mark.parametrize(("name", "num_layers"), [("sgc", 2), ("gcn", 1), ("mlp", 1)])
def test_only_layer_cannot_be_kept(name, num_layers):
    with pytest.raises(ValueError, match=f"keep='last' leaves nothing to quantize in '{name}'"):
        build_model(name, 16, 3, Recipe(num_layers=num_layers, keep="last"), "b158")


def test_dropped_features_are_not_propagated_once_for_all():
    assert build_model("sgc", 16, 3, Recipe()).conv.cached
    assert not build_model("sgc", 16, 3, Recipe(input_dropout=0.5)).conv.cached


def test_unknown_model():
    with pytest.raises(ValueError, match="No model is called 'gin'; there are gcn, sage, gat"):
        build_model("gin", 16, 3, Recipe())


@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "mlp"])
def test_dropout_between_layers(name, tiny):
    recipe = Recipe(hidden_channels=64, dropout=0.75, act="tanh")  # Whose outputs are never zero.
    model = build_model(name, 16, 3, recipe)
    last = (model.lins if name == "mlp" else model.convs)[-1]
    shares = []
    last.register_forward_pre_hook(
        lambda _, inputs: shares.append(float((inputs[0] == 0).float().mean()))
    )
    inputs = model_inputs(model, tiny, recipe)
    model.train()(*inputs), model.eval()(*inputs)
    assert shares == [pytest.approx(0.75, abs=0.05), 0.0]
