import pytest
import torch
from torch import nn
from torch_geometric.nn import BatchNorm, GCNConv, LayerNorm, Linear

from bitgnn import QuantConfig
from bitgnn.nn import BitGATConv, BitGCNConv, BitLinear, BitSAGEConv, BitSGConv
from bitgnn.packed.lower import KINDS, NOTHING, RULES, Builder, Unsupported, lower
from bitgnn.packed.program import Edges


def steps_of(layer, weighted=False):
    builder = Builder()
    lower(builder, layer.eval(), "it", 0, weighted)
    return builder.steps


@pytest.mark.parametrize(
    ("layer", "ops"),
    [
        (Linear(8, 4), ["linear"]),
        (BitLinear(8, 4), ["quantize", "linear"]),
        (BitLinear(8, 4, quant=QuantConfig(layer_norm=True)), ["layer_norm", "quantize", "linear"]),
        (BitLinear(8, 4, quant=QuantConfig(activation_bits=None)), ["linear"]),
        (GCNConv(8, 4), ["linear", "aggregate", "affine"]),
        (BitGCNConv(8, 4, bias=False), ["quantize", "linear", "aggregate"]),
        (BitSGConv(8, 4, K=3), ["aggregate"] * 3 + ["quantize", "linear"]),
        # Both branches of SAGE read the same integers; the sum of the one is quantized anew.
        (BitSAGEConv(8, 4), ["quantize", "aggregate", "quantize", "linear", "linear", "add"]),
        (BitSAGEConv(8, 4, root_weight=False), ["quantize", "aggregate", "quantize", "linear"]),
        (BitGATConv(8, 4, heads=2), ["quantize", "linear", "attend", "affine"]),
        (BatchNorm(8), ["affine"]),
        (LayerNorm(8), ["layer_norm"]),
        (nn.ELU(0.5), ["act"]),
        (nn.Dropout(), []),
    ],
)
def test_steps(layer, ops):
    assert [step.op for step in steps_of(layer)] == ops


@pytest.mark.parametrize("measure", ["absmean", "absmedian"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_integers_and_scales_are_those_of_the_layer(measure, granularity):
    layer = BitLinear(8, 4, quant=QuantConfig(weight_measure=measure, granularity=granularity))
    tensors = steps_of(layer)[-1].tensors
    assert tensors["weight"].dtype == torch.int8
    assert set(tensors["weight"].unique().tolist()) <= {-1, 0, 1}
    weight, scale = layer.ternary()
    assert torch.equal(tensors["weight"], weight.to(torch.int8))
    assert torch.equal(tensors["scale"], scale.view(-1))
    assert len(tensors["scale"]) == (4 if granularity == "channel" else 1)


@pytest.mark.parametrize(
    ("options", "weighted", "edges"),
    [
        ({}, False, Edges("gcn", True)),
        ({}, True, Edges("gcn", True, weighted=True)),
        ({"improved": True}, False, Edges("gcn", True, 2.0)),
        ({"add_self_loops": False}, False, Edges("gcn")),
        ({"normalize": False}, False, Edges()),
    ],
)
def test_edges_of_gcn(options, weighted, edges):
    assert steps_of(BitGCNConv(8, 4, **options), weighted)[2].edges == edges
    assert steps_of(GCNConv(8, 4, **options), weighted)[1].edges == edges


def test_batch_norm_is_affine():
    norm = nn.BatchNorm1d(3)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.normal_(norm.weight)
    (step,) = steps_of(norm)
    x = torch.randn(5, 3)
    torch.testing.assert_close(x * step.tensors["factor"] + step.tensors["bias"], norm(x))
    with pytest.raises(Unsupported, match="statistics of each batch, which cannot be packed: tr"):
        steps_of(nn.BatchNorm1d(3, track_running_stats=False))


def test_what_there_is_no_rule_for():
    builder = Builder()
    assert lower(builder, nn.Bilinear(2, 2, 2), "it", 0) is None
    assert builder.steps == []
    assert not (set(KINDS) | set(NOTHING)) & set(RULES)
