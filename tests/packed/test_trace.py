import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch_geometric.nn import RGCNConv

from bitgnn import pack
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


def weights_by_default(model, x, edge_index, edge_weight):
    if edge_weight is None:
        edge_weight = torch.full((edge_index.size(1),), 0.5)
    return model.conv(x, edge_index, edge_weight)


def more_with_weights(model, x, edge_index, edge_weight):
    h = model.conv(x, edge_index)
    return h if edge_weight is None else h.relu()


def another_layer_with_weights(model, x, edge_index, edge_weight):
    return (model.conv if edge_weight is None else model.other)(x, edge_index, edge_weight)


class Branches(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.conv, self.other, self.call = BitGCNConv(8, 4), BitGCNConv(8, 4), call

    def forward(self, x, edge_index, edge_weight=None):
        return self.call(self, x, edge_index, edge_weight)


@pytest.mark.parametrize(
    "call", [weights_by_default, more_with_weights, another_layer_with_weights]
)
def test_what_depends_on_weights_being_given_is_refused(call):
    with pytest.raises(ValueError, match="does something else without 'edge_weight' than with it"):
        trace(Branches(call))


def where_given(model, x, graph):
    h = model.lin(x)
    return h if graph is None else model.conv(h, graph)


OPTIONAL = {
    "edge_index": lambda self, x, edge_index=None: where_given(self, x, edge_index),
    "adj_t": lambda self, x, adj_t=None: where_given(self, x, adj_t),
    "adj": lambda self, x, adj=None: where_given(self, x, adj),
}


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_graph_that_may_be_left_out_is_read(name):
    class Optional(nn.Module):
        forward = OPTIONAL[name]

        def __init__(self):
            super().__init__()
            self.lin, self.conv = BitLinear(8, 4), BitGCNConv(4, 4)

    torch.manual_seed(0)
    model, x, edges = Optional().eval(), torch.randn(5, 8), torch.tensor([[0, 1, 2], [1, 2, 4]])
    packed = pack(model)
    torch.testing.assert_close(packed(x, edges, exact=True), model(x, edges).detach())
    with pytest.raises(ValueError, match="The model reads edges"):
        packed(x)


def test_a_second_graph_is_left_at_its_default():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.other = BitGCNConv(8, 4), BitGCNConv(8, 4)

        def forward(self, x, edge_index, adj_t=None):
            return self.conv(x, edge_index) if adj_t is None else self.other(x, adj_t)

    assert {step.name for step in trace(Two()).steps} >= {"conv.lin"}


def relu(x):
    return 2 * x


fx.wrap("relu")


def test_a_function_of_the_same_name_is_not_taken_for_torchs():
    with pytest.raises(ValueError, match="'tests.packed.test_trace.relu' cannot be packed"):
        trace(Calls(lambda _, x, h: relu(h)))


def test_results_of_another_type_are_refused():
    with pytest.raises(
        ValueError, match="'log_softmax' with dtype=torch.bfloat16 cannot be packed"
    ):
        trace(Calls(lambda _, x, h: F.log_softmax(h, -1, dtype=torch.bfloat16)))
    assert acts(trace(Calls(lambda _, x, h: F.softmax(h, -1, dtype=torch.float32))))


def test_normalization_over_several_dimensions_is_refused():
    model = nn.Sequential(BitLinear(8, 4), nn.LayerNorm((5, 4)))
    with pytest.raises(ValueError, match="'1' normalizes over 2 dimensions"):
        trace(model)


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
