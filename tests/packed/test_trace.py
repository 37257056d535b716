import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import RGCNConv

from bitgnn.nn import BitGCN, BitGCNConv, BitHeteroLinear, BitLinear
from bitgnn.packed.trace import trace


class Calls(nn.Module):
    """A layer, and then what a function makes of it."""

    def __init__(self, call):
        super().__init__()
        self.conv, self.call = BitGCNConv(8, 4), call

    def forward(self, x, edge_index, edge_weight=None, verbose=False):
        return self.call(self, x, self.conv(x, edge_index, edge_weight))


def acts(program):
    return [dict(step.attrs) for step in program.steps if step.op == "act"]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda _, x, h: F.relu(h, inplace=True), {"kind": "relu"}),
        (lambda _, x, h: h.relu_(), {"kind": "relu"}),
        (lambda _, x, h: torch.tanh(h), {"kind": "tanh"}),
        (lambda _, x, h: F.elu(h, 0.5), {"kind": "elu", "alpha": 0.5}),
        (lambda _, x, h: F.leaky_relu(h), {"kind": "leaky_relu", "negative_slope": 0.01}),
        (lambda _, x, h: h.log_softmax(dim=-1), {"kind": "log_softmax", "dim": -1}),
        (lambda _, x, h: F.gelu(h, approximate="tanh"), {"kind": "gelu", "approximate": "tanh"}),
    ],
)
def test_functions_and_methods(call, expected):
    assert acts(trace(Calls(call))) == [expected]


def test_dropout_is_gone():
    def call(self, x, h):
        return F.relu(F.dropout(h, 0.5, training=self.training))

    assert [step.op for step in trace(Calls(call)).steps] == [
        "quantize", "linear", "aggregate", "affine", "act",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda _, x, h: F.dropout(h, 0.5), "'dropout' drops in evaluation, too: pass training="),
        (lambda _, x, h: h.sum(), "'sum' cannot be packed"),
        (lambda _, x, h: h * 2, "'mul' cannot be packed"),
        (lambda _, x, h: torch.add(h, x, alpha=2), "'add' with {'alpha': 2} cannot be packed"),
        (lambda _, x, h: torch.cat([h, x]), "'cat' along dimension 0 cannot be packed: use dim=-1"),
        (lambda _, x, h: h + 1, "'add' reads 1, which is not the features of the nodes"),
        (lambda self, x, h: h + self.conv.bias, "is read outside a layer, which cannot be packed"),
        (lambda _, x, h: F.relu(h) if h.sum() > 0 else h, "'Calls' cannot be packed: what it does"),
        (lambda _, x, h: (F.relu(h), h)[1], "'Calls' goes on after it has made its output"),
    ],
)
def test_what_cannot_be_read(call, match):
    with pytest.raises(ValueError, match=match):
        trace(Calls(call))


def test_unknown_layers_and_arguments():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = BitLinear(8, 4)

        def forward(self, x, pos):
            return self.lin(x) + pos

    with pytest.raises(ValueError, match="'Positions' reads 'pos': a packed model is called with"):
        trace(Positions())
    with pytest.raises(ValueError, match="'0', a Bilinear, cannot be packed; what can be is: B"):
        trace(nn.Sequential(nn.Bilinear(8, 8, 4)))
    with pytest.raises(ValueError, match="'conv' must be called with features, 'edge_index' and"):
        trace(WrongEdges())


class Types(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, kind):
        return self.layer(x, kind)


def test_what_reads_another_argument_is_named():
    with pytest.raises(ValueError, match="'layer', a BitHeteroLinear, reads 'kind': a packed mod"):
        trace(Types(BitHeteroLinear(8, 4, num_types=2)))
    with pytest.raises(ValueError, match="'layer', a RGCNConv, reads 'kind': a packed model is"):
        trace(Types(RGCNConv(8, 4, 2)))


class WrongEdges(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = BitGCNConv(8, 4)

    def forward(self, x):
        return self.conv(x, x)


def test_layers_alone_and_in_a_row():
    assert [step.op for step in trace(BitLinear(8, 4)).steps] == ["quantize", "linear"]
    model = nn.Sequential(BitLinear(8, 16), nn.ReLU(), nn.Dropout(0.5), BitLinear(16, 4))
    ops = ["quantize", "linear", "act", "quantize", "linear"]
    assert [step.op for step in trace(model).steps] == ops
    assert [step.name for step in trace(model).steps if step.op == "linear"] == ["0", "3"]


def test_weights_of_edges_count_where_they_are_handed_on():
    program = trace(BitGCN(8, 16, 2, 4))
    assert program.reads_weights
    assert {step.edges.weighted for step in program.steps if step.edges} == {True}

    class Unweighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = BitGCNConv(8, 4)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index)

    assert trace(Unweighted()).reads_edges and not trace(Unweighted()).reads_weights
