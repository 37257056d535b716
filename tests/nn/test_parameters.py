from torch import nn
from torch_geometric.nn import GPSConv, SAGEConv

from bitgnn import QuantConfig, convert
from bitgnn.nn import BitGAT, BitGraphSAGE, BitHeteroLinear, BitLinear
from bitgnn.nn.parameters import Holder, parameter_share, percent


def shares(model):
    share = parameter_share(model)
    assert share.total == share.quantized + sum(holder.numel for holder in share.holders)
    return share.quantized, {holder.kind: holder.numel for holder in share.holders}


def test_every_parameter_counts_once():
    model = BitGAT(8, 16, 2, 4, heads=2, norm="batch_norm")
    latent, rest = shares(model)
    assert latent == 8 * 16 + 16 * 2 * 4
    assert sum(rest.values()) + latent == sum(p.numel() for p in model.parameters())
    shared = nn.ModuleDict({"a": BitLinear(8, 8), "b": BitLinear(8, 8)})
    shared["b"].weight = shared["a"].weight
    assert shares(shared) == (64, {"biases of linear layers": 16})


def test_attention_of_torch_is_named():
    model = convert(GPSConv(16, SAGEConv(16, 16), heads=2))
    _, rest = shares(model)
    assert rest["MultiheadAttention"] == 3 * 16 * 16 + 3 * 16
    assert rest["NonDynamicallyQuantizableLinear"] == 16 * 16 + 16
    assert "816 in MultiheadAttention (attn), 272 in" in str(parameter_share(model))


def test_what_is_quantized():
    assert shares(BitHeteroLinear(4, 3, num_types=2))[0] == 24
    assert shares(BitLinear(4, 3, quant=None)) == (0, {"BitLinear": 15})
    assert shares(BitLinear(4, 3, quant=QuantConfig(weight_bits=None)))[0] == 0
    share = parameter_share(BitLinear(4, 3, quant=QuantConfig(weight_bits=4)))
    assert str(share).startswith("12 of 15 parameters (80.0 %) are quantized")
    assert str(parameter_share(nn.ReLU())) == "0 of 0 parameters (0 %) are ternary"


def test_lazy_parameters_are_not_counted():
    share = parameter_share(BitGraphSAGE(-1, 16, 2))
    assert str(share).endswith(", not counting 2 lazy parameters")
    assert share.total == sum(p.numel() for p in BitGraphSAGE(8, 16, 2).convs[1].parameters()) + 16


def test_long_lists_are_cut():
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LayerNorm, nn.Embedding, nn.GRUCell)
    sizes = ((90, 90), (1, 1, 1), (2, 2, 1), (3,), (30, 30), (5, 5))
    model = nn.ModuleList(
        kind(*size) for kind, size in zip(kinds, sizes, strict=True) for _ in range(40)
    )
    said = str(parameter_share(model))
    assert "in Linear (0, 1, 2 and 37 more), " in said
    assert said.endswith(" in other types") and len(said) < 400
    assert str(Holder("Linear", ("",), 1000)) == "1,000 in Linear (the model itself)"


def test_percent():
    assert [percent(part, 10**6) for part in (0, 1, 333_333, 10**6 - 1, 10**6)] == [
        "0 %", "< 0.1 %", "33.3 %", "> 99.9 %", "100 %"
    ]  # fmt: skip
    assert percent(0, 0) == "0 %"
