import pytest
import torch
from torch_geometric.nn import GATConv, GATv2Conv, GCNConv, SAGEConv

from bitgnn.nn import BitGATConv, BitGCNConv, BitSAGEConv
from bitgnn.nn.layerwise.edges import EdgesByTarget, Range
from bitgnn.nn.layerwise.layers import Attention, Bipartite, Neighborhood, Propagation, layer_of

EDGES = torch.tensor([[0, 1, 2, 3, 3, 2], [1, 0, 1, 2, 2, 2]])
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def graph():
    return EdgesByTarget(EDGES, 4)


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (GCNConv, Propagation),
        (BitGCNConv, Propagation),
        (SAGEConv, Neighborhood),
        (BitSAGEConv, Neighborhood),
        (GATConv, Attention),
        (BitGATConv, Attention),
        (GATv2Conv, Bipartite),
    ],
)
def test_halves_are_the_layer(cls, kind, graph):
    torch.manual_seed(0)
    conv, x = cls(5, 3).eval(), torch.randn(4, 5)
    layer = layer_of(conv, graph, 3, "conv", CPU)
    assert type(layer) is kind
    targets = Range(1, 3)
    sources = layer.rows(x, Range(0, 4))
    block = graph.block(targets, layer.loops, layer.fill)
    if kind is Bipartite:
        block, places = block.gathered()
        sources = (x[places],)
    found = layer.edges(block, sources, layer.rows(x[1:3], targets))
    torch.testing.assert_close(found, conv(x, EDGES)[1:3])


def test_attention_in_its_own_kernel_is_for_the_cpu(graph):
    assert type(layer_of(GATConv(5, 3), graph, 3, "conv", CUDA)) is Bipartite


def test_normalization_is_shared(graph):
    layers = [layer_of(GCNConv(5, 3), graph, 3, "conv", CPU) for _ in range(2)]
    assert layers[0].factor is layers[1].factor


class Loud(GCNConv):
    def message(self, x_j, edge_weight):
        return 2 * super().message(x_j, edge_weight)


def test_subclasses_may_send_other_messages(graph):
    with pytest.raises(ValueError, match=r"'conv' \(Loud, aggr='add'\) cannot be run"):
        layer_of(Loud(5, 3), graph, 3, "conv", CPU)
