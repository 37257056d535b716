import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch_geometric.nn import GCN, GCNConv, Linear

from bitgnn import QuantConfig, convert
from bitgnn.nn import BitGCN, BitLinear

EDGE_INDEX = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(12345)


def test_full_precision_twins_are_converted():
    model = BitGCN(8, 16, 2, quant=None)
    assert convert(model).converted == ["convs.0.lin", "convs.1.lin"]
    linear = convert(BitLinear(8, 16, quant=None))
    assert linear.quant == QuantConfig()


def test_shared_layers_stay_shared():
    linear = nn.Linear(8, 8)
    model = convert(nn.ModuleDict({"a": linear, "b": nn.Sequential(nn.ReLU(), linear)}))
    assert model.converted == ["a", "b.1"]
    assert type(model["a"]) is BitLinear and model["a"] is model["b"][1]

    model = convert(nn.ModuleDict({"a": linear, "b": linear}), include="b")
    assert type(model["a"]) is BitLinear and model["a"] is model["b"]
    with pytest.raises(ValueError, match="No linear layer"):
        convert(nn.ModuleDict({"a": linear, "b": linear}), include="b", exclude="a")

    conv = GCNConv(8, 8)
    model = convert(nn.ModuleList([conv, conv]))
    assert model[0] is model[1] and type(model[0].lin) is BitLinear


def test_tied_weights_stay_tied():
    model = nn.ModuleDict({"embedding": nn.Embedding(10, 8), "out": nn.Linear(8, 10)})
    model["out"].weight = model["embedding"].weight
    for converted in (convert(model), convert(model, inplace=True)):
        assert type(converted["out"]) is BitLinear
        assert converted["out"].weight is converted["embedding"].weight


@pytest.mark.parametrize("cls", [Linear, nn.LazyLinear])
def test_lazy(cls):
    linear = Linear(-1, 5) if cls is Linear else nn.LazyLinear(5)
    model = convert(nn.Sequential(linear, nn.ReLU()))
    assert model.converted == ["0"] and type(model[0]) is BitLinear
    x = torch.randn(3, 8)
    torch.manual_seed(1)
    out = model(x)
    assert str(model[0]) == "BitLinear(8, 5, bias=True)"
    torch.manual_seed(1)
    expected = nn.Linear(8, 5)  # The same initialization.
    assert torch.equal(model[0].weight, expected.weight)
    assert torch.equal(model[0].bias, expected.bias)
    assert out.size() == (3, 5)


def test_modes_and_flags_are_kept():
    model = GCN(8, 16, 2)
    model.convs[1].eval()
    model.convs[0].lin.weight.requires_grad_(False)
    converted = convert(model)
    assert converted.convs[0].lin.training and not converted.convs[1].lin.training
    assert not converted.convs[0].lin.weight.requires_grad
    converted(torch.randn(3, 8), EDGE_INDEX).sum().backward()
    assert converted.convs[0].lin.weight.grad is None
    assert converted.convs[1].lin.weight.grad is not None
    assert convert(GCN(8, 16, 2).double()).convs[0].lin.weight.dtype == torch.float64


def old_weight_norm(linear: nn.Linear) -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(linear)


def hooked(linear: nn.Linear) -> nn.Module:
    linear.register_forward_hook(lambda module, inputs, out: out + 1)
    return linear


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled(linear: nn.Linear) -> nn.Module:
    parametrize.register_parametrization(linear, "weight", Doubled())
    return linear


def pruned(linear: nn.Linear) -> nn.Module:
    return prune.l1_unstructured(linear, "weight", amount=0.5)


@pytest.mark.parametrize(
    "change",
    [
        old_weight_norm,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        doubled,
        pruned,
        hooked,
    ],
)
def test_changed_layers_are_left(change, caplog):
    model = nn.Sequential(change(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 5)).eval()
    x = torch.randn(3, 8)
    expected = model[0](x)
    # Torch has no copy of a layer that weight_norm has changed.
    with caplog.at_level(logging.INFO, logger="bitgnn"):
        convert(model, inplace=True)
    assert model.converted == ["2"]
    assert "left as they are: 0 (" in caplog.text
    assert torch.equal(model[0](x), expected)

    with pytest.raises(ValueError, match="No linear layer of 'Sequential' can be converted: 0"):
        convert(model, include="0", inplace=True)


def test_subclasses_are_left(caplog):
    class Gated(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).sigmoid()

    model = nn.ModuleDict({"gate": Gated(8, 8), "attn": nn.MultiheadAttention(8, 2)})
    model["lin"] = nn.Linear(8, 8)
    with caplog.at_level(logging.INFO, logger="bitgnn"):
        converted = convert(model)
    assert converted.converted == ["lin"]
    assert "gate (a Gated, which may do more than a linear map)" in caplog.text
    assert "attn.out_proj (a NonDynamicallyQuantizableLinear, which may" in caplog.text
