import copy
import logging
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    GAT,
    GCN,
    MLP,
    GPSConv,
    GraphSAGE,
    HeteroConv,
    HeteroLinear,
    HGTConv,
    Linear,
    RGCNConv,
    SAGEConv,
    to_hetero,
)

from bitgnn import QuantConfig, convert, set_strength
from bitgnn.nn import BitGCN, BitHeteroLinear, BitLinear

EDGE_INDEX = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
METADATA = (["paper", "author"], [("paper", "by", "author"), ("author", "of", "paper")])
EDGE_INDEX_DICT = {
    ("paper", "by", "author"): torch.tensor([[0, 1, 2], [0, 1, 1]]),
    ("author", "of", "paper"): torch.tensor([[0, 1, 1], [0, 1, 2]]),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(12345)


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def assert_same(tensors: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert list(tensors) == list(others)
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def ternary_layers(module: nn.Module) -> list[str]:
    return [n for n, m in module.named_modules() if isinstance(m, (BitLinear, BitHeteroLinear))]


def test_convert_returns_a_copy():
    model = GCN(8, 16, 2)
    x = torch.randn(3, 8)
    expected, before = model(x, EDGE_INDEX), parameters(model)
    rng = torch.get_rng_state()
    converted = convert(model)
    assert torch.equal(torch.get_rng_state(), rng)
    assert converted.converted == ["convs.0.lin", "convs.1.lin"] == ternary_layers(converted)
    assert ternary_layers(model) == [] and not hasattr(model, "converted")
    assert torch.equal(model(x, EDGE_INDEX), expected)
    assert not torch.allclose(converted(x, EDGE_INDEX), expected, atol=1e-3)

    assert_same(parameters(converted), before)
    with torch.no_grad():
        converted.convs[0].lin.weight.zero_()
    assert_same(parameters(model), before)


def test_convert_in_place_keeps_the_parameters():
    model = GCN(8, 16, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    objects = list(model.parameters())
    assert convert(model, inplace=True) is model
    assert all(a is b for a, b in zip(model.parameters(), objects, strict=True))
    # An optimizer that was built before keeps working.
    before = parameters(model)
    model(torch.randn(3, 8), EDGE_INDEX).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.convs[0].lin.weight, before["convs.0.lin.weight"])


def test_converted_equals_our_model():
    x = torch.randn(3, 8)
    model = GCN(8, 16, 2, out_channels=5, jk="cat")
    ours = BitGCN(8, 16, 2, out_channels=5, jk="cat")
    ours.load_state_dict(model.state_dict())
    assert torch.equal(convert(model)(x, EDGE_INDEX), ours(x, EDGE_INDEX))


def test_state_dict_passes_both_ways():
    model = GAT(8, 16, 2, heads=2, jk="lstm")
    converted = convert(model)
    model.load_state_dict(converted.state_dict(), strict=True)
    converted.load_state_dict(model.state_dict(), strict=True)
    assert "convs.0.lin" in converted.converted and "jk.att" in converted.converted


def test_strength_zero_is_the_model_before():
    x = torch.randn(3, 8)
    model = GCN(8, 16, 2)
    converted = convert(model)
    set_strength(converted, 0.0)
    assert torch.allclose(converted(x, EDGE_INDEX), model(x, EDGE_INDEX), atol=1e-6)


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (None, None, ["convs.0.lin_l", "convs.0.lin_r", "convs.1.lin_l", "convs.1.lin_r", "lin"]),
        ("convs.*", None, ["convs.0.lin_l", "convs.0.lin_r", "convs.1.lin_l", "convs.1.lin_r"]),
        ("convs.*", "*.lin_r", ["convs.0.lin_l", "convs.1.lin_l"]),
        (["convs.0.*", "lin"], ["*.lin_r"], ["convs.0.lin_l", "lin"]),
        (None, ["convs.*"], ["lin"]),
        ("convs.[1-9].lin_?", None, ["convs.1.lin_l", "convs.1.lin_r"]),
        ((p for p in ["lin"]), None, ["lin"]),
    ],
)
def test_patterns(include, exclude, expected):
    model = convert(GraphSAGE(8, 16, 2, out_channels=5, jk="cat"), include=include, exclude=exclude)
    assert model.converted == expected == ternary_layers(model)
    assert model(torch.randn(3, 8), EDGE_INDEX).size() == (3, 5)


@pytest.mark.parametrize(
    "kwargs", [{"include": "conv.*"}, {"exclude": "*"}, {"include": []}, {"include": "CONVS.*"}]
)
def test_nothing_matches(kwargs):
    model = GCN(8, 16, 2)
    with pytest.raises(ValueError, match=r"No linear layer of 'GCN' matches .*'convs.0.lin'"):
        convert(model, inplace=True, **kwargs)
    assert ternary_layers(model) == []


def test_no_linear_layer_at_all():
    with pytest.raises(ValueError, match="its linear layers are none"):
        convert(nn.Sequential(nn.ReLU(), nn.Conv1d(4, 4, 1)))


def test_wrong_types():
    model = GCN(8, 16, 2)
    with pytest.raises(ValueError, match="needs a configuration to quantize with"):
        convert(model, quant=None)
    with pytest.raises(TypeError, match="'quant' must be a QuantConfig"):
        convert(model, quant=1.58)
    with pytest.raises(TypeError, match="'model' must be a torch.nn.Module"):
        convert(model.state_dict())
    with pytest.raises(TypeError, match="'include' must be a shell-style pattern or several"):
        convert(model, include=[model.convs])
    with pytest.raises(TypeError, match="'exclude' must be a shell-style pattern or several"):
        convert(model, exclude=3)


def test_quant_reaches_every_layer():
    config = QuantConfig(weight_measure="absmedian", activation_bits=None)
    model = convert(GCN(8, 16, 2), config)
    assert all(conv.lin.quant == config for conv in model.convs)


def test_twice_changes_nothing():
    x = torch.randn(3, 8)
    once = convert(GCN(8, 16, 2), "b158")
    twice = convert(once, "reloaded", inplace=True)
    assert twice is once and twice.converted == ["convs.0.lin", "convs.1.lin"]
    assert all(conv.lin.quant == QuantConfig() for conv in twice.convs)
    assert torch.equal(convert(once)(x, EDGE_INDEX), once(x, EDGE_INDEX))


def test_in_two_steps():
    model = convert(GCN(8, 16, 2), include="convs.0.*")
    convert(model, QuantConfig(granularity="channel"), inplace=True)
    assert model.converted == ["convs.0.lin", "convs.1.lin"]
    assert model.convs[0].lin.quant.granularity == "tensor"
    assert model.convs[1].lin.quant.granularity == "channel"


@pytest.mark.parametrize("cls", [nn.Linear, Linear])
@pytest.mark.parametrize("bias", [True, False])
def test_the_model_is_a_linear_layer(cls, bias):
    linear = cls(8, 5, bias=bias)
    converted = convert(linear)
    assert type(converted) is BitLinear and converted.converted == [""]
    assert str(converted) == f"BitLinear(8, 5, bias={bias})"
    assert_same(parameters(converted), parameters(linear))
    assert (converted.in_features, converted.out_features) == (8, 5)


def test_hetero_linear():
    model = nn.ModuleDict({"lin": HeteroLinear(8, 5, num_types=3)})
    converted = convert(model)
    assert type(converted["lin"]) is BitHeteroLinear
    x, types = torch.randn(6, 8), torch.tensor([2, 0, 1, 1, 0, 2])
    out = converted["lin"](x, types)
    for i, kind in enumerate(types.tolist()):
        linear = BitLinear(8, 5, bias=False)
        linear.weight.data = model["lin"].weight[kind].t().contiguous()
        assert torch.allclose(out[i], linear(x[i]) + model["lin"].bias[kind], atol=1e-5)


def test_an_error_leaves_the_model_whole():
    model = nn.ModuleDict({"a": Linear(8, 8), "b": HeteroLinear(8, 8, num_types=2)})
    with pytest.raises(ValueError, match="adds its bias after the rescale"):
        convert(model, "reloaded", inplace=True)
    assert ternary_layers(model) == []


def test_what_is_said(caplog):
    with caplog.at_level(logging.INFO, logger="bitgnn"):
        model = convert(GCN(8, 16, 2), include="convs.0.*")
        convert(model)
        convert(nn.Linear(8, 8))
    assert [record.getMessage() for record in caplog.records] == [
        "converted 1 of 2 linear layers of GCN: convs.0.lin; 128 of 416 parameters (30.8 %) are "
        "ternary, in 32 bits: 256 in Linear (convs.1.lin), 32 in GCNConv (convs.0, convs.1)",
        "converted 1 of 2 linear layers of GCN: convs.1.lin; 1 ternary already; 384 of 416 "
        "parameters (92.3 %) are ternary, in 32 bits: 32 in GCNConv (convs.0, convs.1)",
        "converted 1 of 1 linear layers of Linear: the model itself; 64 of 72 parameters (88.9 %) "
        "are ternary, in 32 bits: 8 in biases of linear layers",
    ]


def test_what_is_said_without_logging(monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger("bitgnn"), "propagate", False)
    convert(GCN(8, 16, 1))
    said = capsys.readouterr().err
    assert said.startswith("bitgnn: converted 1 of 1 linear layers of GCN: convs.0.lin; 128 of 144")
    assert said.count("\n") == 1
    monkeypatch.setattr(logging.getLogger("bitgnn"), "level", logging.WARNING)
    convert(GCN(8, 16, 1), exclude="lin_edge")
    assert capsys.readouterr().err == "bitgnn: exclude='lin_edge' matches no linear layer of GCN\n"


def test_what_holds_the_rest_is_said(caplog):
    model = nn.ModuleDict({"conv": RGCNConv(64, 64, 10), "head": nn.Linear(64, 2)})
    with caplog.at_level(logging.INFO, logger="bitgnn"):
        convert(model)
    (record,) = caplog.records
    assert "128 of 45,250 parameters (0.3 %) are ternary" in record.getMessage()
    assert "in 32 bits: 45,120 in RGCNConv (conv), 2 in biases" in record.getMessage()
    with pytest.raises(ValueError, match=r"layers are none, its parameters 45,120 in RGCNConv"):
        convert(model["conv"])


def test_patterns_that_match_nothing_are_named(caplog):
    convert(GCN(8, 16, 2), include=["convs.0.*", "convs.7.*"], exclude=["*.lin_edge"])
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "include='convs.7.*' matches no linear layer of GCN"),
        ("WARNING", "exclude='*.lin_edge' matches no linear layer of GCN"),
    ]


def test_copies_of_a_converted_model():
    x = torch.randn(3, 8)
    model = convert(GCN(8, 16, 2))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x, EDGE_INDEX), model(x, EDGE_INDEX))
        assert other.converted == model.converted


def test_mlp_learns():
    model = convert(MLP([8, 32, 2], norm=None))
    x, y = torch.randn(10, 8), torch.arange(10) % 2
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("attn_type", ["multihead", "performer"])
def test_gps_conv(attn_type):
    conv = GPSConv(16, SAGEConv(16, 16), heads=2, attn_type=attn_type).eval()
    converted = convert(conv)
    expected = {"conv.lin_l", "conv.lin_r", "mlp.0", "mlp.3"}
    if attn_type == "performer":
        expected |= {"attn.q", "attn.k", "attn.v", "attn.attn_out"}
    assert set(converted.converted) == expected
    x = torch.randn(3, 16)
    assert not torch.allclose(converted(x, EDGE_INDEX), conv(x, EDGE_INDEX), atol=1e-3)


@pytest.mark.parametrize("before", [True, False])
def test_to_hetero(before):
    model = GraphSAGE((-1, -1), 16, 2, out_channels=5, jk="cat")
    if before:  # noqa: SIM108
        model = to_hetero(convert(model), METADATA)
    else:
        model = convert(to_hetero(model, METADATA))
    x_dict = {"paper": torch.randn(3, 8), "author": torch.randn(2, 6)}
    out = model(x_dict, EDGE_INDEX_DICT)
    assert out["paper"].size() == (3, 5) and out["author"].size() == (2, 5)
    assert len(ternary_layers(model)) == 2 * 2 * 2 + 2
    assert type(model.convs[0]["paper__by__author"].lin_l) is BitLinear


def test_hetero_conv():
    conv = HeteroConv({key: SAGEConv((-1, -1), 5) for key in EDGE_INDEX_DICT})
    converted = convert(conv, exclude="*.lin_r")
    assert len(converted.converted) == 2
    out = converted({"paper": torch.randn(3, 8), "author": torch.randn(2, 6)}, EDGE_INDEX_DICT)
    assert out["paper"].size() == (3, 5)


def test_hgt_conv():
    conv = HGTConv({"paper": 8, "author": 6}, 16, METADATA, heads=2)
    x_dict = {"paper": torch.randn(3, 8), "author": torch.randn(2, 6)}
    converted = convert(conv)
    kinds = {type(m) for n, m in converted.named_modules() if n in converted.converted}
    assert kinds == {BitLinear, BitHeteroLinear}
    out, expected = converted(x_dict, EDGE_INDEX_DICT), conv(x_dict, EDGE_INDEX_DICT)
    assert not torch.allclose(out["paper"], expected["paper"], atol=1e-3)
