"""Packed equals trained in every form in which PyG's layers take a graph, or it is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.typing import WITH_TORCH_SPARSE, SparseTensor

from bitgnn.nn import BitGATConv, BitGCNConv, BitSAGEConv
from bitgnn.packed import pack, prepare
from tests.packed.forms import (
    EDGES,
    EQUAL,
    FORMS,
    IN,
    LAYERS,
    NODES,
    NONE,
    OUT,
    REFUSED,
    WEIGHT,
    outcome,
    outcomes,
    table,
)

# Weights that PyG's model drops in silence, and such that a forward calls by another name.
DROPPED = ("SAGE, two layers", "GCN in `forward(x, edge_index, edge_attr=None)`")
ATTENTION = [name for name in LAYERS if "GAT" in name]


@st.composite
def graphs(draw):
    """Edges of few nodes: double ones, self-loops and nodes without any, weights of 0 and 1."""
    nodes = draw(st.integers(1, 6))
    pair = st.tuples(*(st.integers(0, nodes - 1),) * 2)
    edges = draw(st.lists(pair, max_size=12))
    weights = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.0, 2.0, 3.0])
    weight = draw(st.lists(weights, min_size=len(edges), max_size=len(edges)))
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t(), torch.tensor(weight), nodes


@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=8, deadline=None)
@given(graph=graphs(), form=st.sampled_from(list(FORMS)), seed=st.integers(0, 99))
def test_packed_equals_trained_or_refuses(layer, graph, form, seed):
    torch.manual_seed(seed)
    edges, weight, nodes = graph
    assert outcome(LAYERS[layer]().eval(), form, edges, weight, torch.randn(nodes, IN))


def test_what_is_refused():
    for name, row in outcomes(EDGES, WEIGHT).items():
        refused = {form for form, cell in row.items() if cell == REFUSED}
        allowed = set()
        if name in ATTENTION:  # Values that attention does not read.
            allowed = {"CSR", "COO", "SparseTensor with values"}
        elif name in DROPPED:
            allowed = {"edge_index, edge_weight", "EdgeIndex, edge_weight"}
        if "SAGE" in name or "not normalized" in name:
            allowed |= {"SparseTensor with values"}
        assert refused <= allowed, name
        assert row["edge_index"] == row["CSR of ones"] == EQUAL


def test_table_has_a_row_for_each_layer():
    lines = table().splitlines()
    assert len(lines) == len(LAYERS) + 2
    assert all(cell in lines[2] + lines[-1] for cell in (EQUAL, NONE, REFUSED))


class Stand(SparseTensor):
    """As much of a :class:`SparseTensor` as is read, where torch-sparse is not installed."""

    def __init__(self, edges, weight, size):
        self.parts, self.size = (edges[1], edges[0], weight), [size, size]

    def coo(self):
        return self.parts

    def sizes(self):
        return self.size


@pytest.mark.skipif(WITH_TORCH_SPARSE, reason="The forms above are the real ones")
def test_sparse_tensors():
    torch.manual_seed(12)
    x, loops = torch.randn(NODES, IN), EDGES[0] == EDGES[1]
    size = {"edge_index": EDGES, "num_nodes": NODES}
    # `fill_diag` replaces the weights of self-loops, and `set_value(None)` drops those of SAGE.
    for improved, fill in ((False, 1.0), (True, 2.0)):
        packed = pack(BitGCNConv(IN, OUT, improved=improved))
        for weight in (WEIGHT, torch.ones_like(WEIGHT)):
            replaced = weight.masked_fill(loops, fill)
            expected = packed(x, prepare(**size, edge_weight=replaced), exact=True)
            given = None if weight is not WEIGHT else WEIGHT
            found = packed(x, Stand(EDGES, given, NODES), exact=True)
            torch.testing.assert_close(found, expected)
            copied = packed(x, prepare(Stand(EDGES, given, NODES)), exact=True)
            assert torch.equal(copied, found)
    for conv in (BitSAGEConv, BitGATConv):
        packed = pack(conv(IN, OUT))
        assert torch.equal(packed(x, Stand(EDGES, None, NODES)), packed(x, EDGES))
        with pytest.raises(ValueError, match="values of the SparseTensor are not all 1"):
            packed(x, Stand(EDGES, WEIGHT, NODES))
    with pytest.raises(ValueError, match="more than num_nodes=6"):
        prepare(Stand(EDGES + 2, None, NODES))
