import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_self_loops, remove_self_loops, to_dense_adj

from bitgnn.kernels import native as kernels
from bitgnn.packed.graph import PreparedGraph, prepare
from bitgnn.packed.program import Edges

KINDS = [
    Edges(),
    Edges(weighted=True),
    Edges(self_loops=True),
    Edges("gcn"),
    Edges("gcn", self_loops=True),
    Edges("gcn", self_loops=True, fill=2.0),
    Edges("gcn", self_loops=True, weighted=True),
    Edges("gcn", self_loops=True, fill=2.0, weighted=True),
]


@st.composite
def graphs(draw):
    """Edges of few nodes: doubled ones, self loops and nodes without any among them."""
    nodes = draw(st.integers(1, 9))
    pair = st.tuples(*(st.integers(0, nodes - 1),) * 2)
    edges = draw(st.lists(pair, max_size=20))
    weights = draw(st.lists(st.floats(0.25, 2.0), min_size=len(edges), max_size=len(edges)))
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t(), torch.tensor(weights), nodes


def pyg_edges(kind, edge_index, weight, nodes):
    """What PyG's layers sum over, as a dense matrix with targets as rows."""
    weight = weight if kind.weighted else None
    if kind.norm == "gcn":
        edge_index, weight = gcn_norm(
            edge_index, weight, nodes, kind.fill == 2.0, kind.self_loops, dtype=torch.float32
        )
    elif kind.self_loops:  # GATConv
        edge_index, _ = add_self_loops(remove_self_loops(edge_index)[0], num_nodes=nodes)
    return to_dense_adj(edge_index, edge_attr=weight, max_num_nodes=nodes)[0].t()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(graph=graphs())
def test_matrix_is_what_pyg_sums_over(kind, graph):
    edge_index, weight, nodes = graph
    if not edge_index.numel():
        return  # `to_dense_adj` has no word for it.
    found = prepare(edge_index, nodes, weight).matrix(kind)
    torch.testing.assert_close(found.to_dense(), pyg_edges(kind, edge_index, weight, nodes))


@pytest.mark.skipif(not kernels.enabled(), reason="There are no native kernels")
@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(graph=graphs())
def test_native_edges_are_the_matrix(kind, graph):
    edge_index, weight, nodes = graph
    prepared = prepare(edge_index, nodes, weight)
    prepared.native(kind)
    rows = prepared._native[kind][1]
    count = int(rows.crow[-1])
    row, col = torch.arange(nodes).repeat_interleave(rows.crow.diff()), rows.col[:count].long()
    value = torch.ones(count)
    if rows.weighted:
        value = rows.weight[:count]
    elif rows.noded:
        value = rows.node[row] * rows.node[col]
    dense = torch.zeros(nodes, nodes).index_put_((row, col), value, accumulate=True)
    torch.testing.assert_close(dense, prepared.matrix(kind).to_dense())


def test_each_form_is_made_once():
    prepared = prepare(torch.tensor([[0, 1], [1, 2]]))
    assert prepared.num_nodes == 3 and prepared.num_edges == 2
    assert prepared.matrix(KINDS[3]) is prepared.matrix(Edges("gcn"))
    assert repr(prepared) == "PreparedGraph(num_nodes=3, num_edges=2)"
    assert prepare(torch.empty(2, 0, dtype=torch.long)).num_nodes == 0


@pytest.mark.parametrize(
    ("edges", "nodes", "weight", "error", "match"),
    [
        ([[0, 4], [1, 2]], 4, None, ValueError, "nodes up to 4, more than num_nodes=4: pass the"),
        ([[0, -2], [1, 2]], 4, None, ValueError, "Nodes are counted from 0 .got -2 in 'edge_index"),
        ([[0, 1], [1, 2]], 4, [1.0], ValueError, r"one number an edge, 2 .got shape \(1,\)"),
        ([0, 1], None, None, ValueError, r"shape \(2, number of edges\) .got torch.int64 of shape"),
        ([[0.0], [1.0]], None, None, ValueError, "must hold integers of shape"),
        ("edges", None, None, TypeError, "must be edges or a sparse matrix .got str"),
    ],
)
def test_what_is_no_graph(edges, nodes, weight, error, match):
    edges = torch.tensor(edges) if isinstance(edges, list) else edges
    with pytest.raises(error, match=match):
        PreparedGraph(edges, nodes, None if weight is None else torch.tensor(weight))


def test_weights_of_a_sparse_matrix_are_its_values():
    matrix = torch.tensor([[0.0, 2.0], [3.0, 0.0]]).to_sparse_csr()
    kind = Edges(weighted=True)
    assert torch.equal(prepare(matrix).matrix(kind).to_dense(), matrix.to_dense())
    with pytest.raises(ValueError, match="values of a sparse matrix are its weights"):
        prepare(matrix, edge_weight=torch.ones(2))


def test_two_types_of_nodes():
    edge_index = torch.tensor([[0, 4, 4, 2], [1, 0, 1, 1]])
    expected = torch.zeros(2, 5).index_put((edge_index[1], edge_index[0]), torch.ones(4))
    graph = PreparedGraph(edge_index, (5, 2))
    assert torch.equal(graph.matrix(Edges()).to_dense(), expected)
    forms = [edge_index, expected.to_sparse_csr(), expected.to_sparse_coo()]
    for form in forms:
        found = prepare({("a", "to", "b"): form}, {"a": 5, "b": 2})
        assert torch.equal(found.matrix(Edges(relation=("a", "to", "b"))).to_dense(), expected)
    with pytest.raises(ValueError, match="Edges have nodes up to 4, more than num_nodes=4"):
        PreparedGraph(edge_index, (4, 2))
    with pytest.raises(ValueError, match="Edges have nodes up to 1, more than num_nodes=1"):
        PreparedGraph(edge_index, (5, 1))


def test_several_types_of_edges():
    forth, back = torch.tensor([[0, 4], [1, 0]]), torch.tensor([[1], [5]])
    graph = prepare({("a", "to", "b"): forth, ("b", "to", "a"): back})
    assert graph.num_nodes == {"a": 6, "b": 2}  # As many as any type of edges shows.
    assert graph["a", "to", "b"].matrix(Edges()).shape == (2, 6)
    assert graph["b", "to", "a"].num_edges == 1
    assert repr(graph) == (
        "PreparedHeteroGraph(num_nodes={'a': 6, 'b': 2}, "
        "num_edges={('a', 'to', 'b'): 2, ('b', 'to', 'a'): 1})"
    )
    with pytest.raises(ValueError, match=r"reads edges of type .'a', 'a', 'a'.: pass them, .2, 0"):
        graph["a", "a", "a"]
    with pytest.raises(ValueError, match=r".'a', 'to', 'b'.: Edges have nodes up to 4, more than"):
        prepare({("a", "to", "b"): forth}, {"a": 4, "b": 2})
    with pytest.raises(ValueError, match=r"'num_nodes' has \['a'\], but not both of .'a', 'b'."):
        prepare({("a", "to", "b"): forth}, {"a": 5})
    with pytest.raises(TypeError, match="A type of edges is .source, name, target. .got 'to'."):
        prepare({"to": forth})
    with pytest.raises(ValueError, match="none has weights: leave 'edge_weight'"):
        prepare({("a", "to", "b"): forth}, edge_weight=torch.ones(2))
