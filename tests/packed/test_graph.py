import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_self_loops, remove_self_loops, to_dense_adj

from bitgnn.kernels import native as kernels
from bitgnn.nn import BitGAT, BitGCN, BitGraphSAGE
from bitgnn.packed import pack
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


KEPT = [Edges(), Edges("gcn", self_loops=True), Edges(self_loops=True), Edges(weighted=True)]


@pytest.mark.parametrize("form", ["edges", "weights", "csr", "coo"])
@pytest.mark.parametrize("kind", KEPT, ids=str)
def test_a_graph_stays_what_it_was_prepared_from(kind, form):
    torch.manual_seed(12)
    edges, weight = torch.randint(9, (2, 30)), torch.rand(30)
    matrix = torch.rand(9, 9).mul_(torch.rand(9, 9) < 0.4)
    sparse = getattr(matrix, f"to_sparse_{form}")() if form in ("csr", "coo") else None
    given = {"edges": (edges, 9), "weights": (edges, 9, weight)}.get(form, (sparse, 9))
    expected = prepare(*given).matrix(kind).to_dense()
    graph = prepare(*given)
    for tensor in (edges, weight):
        tensor.fill_(1_000_000)
    if sparse is not None:
        sparse.values().fill_(7.0)
        indices = [sparse.col_indices()] if form == "csr" else [sparse.indices()]
        indices[0].fill_(1_000_000)
    if kernels.enabled():
        graph.native(kind)
        rows = graph._native[kind][1]
        assert int(rows.col[: int(rows.crow[-1])].max()) < 9
    assert torch.equal(graph.matrix(kind).to_dense(), expected)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3), (2, 1, 0, 3), (3, 1, 2, 0)])
@pytest.mark.parametrize("loops", [False, True])
def test_forms_in_any_order(order, loops):
    # The edges that GCN sums over stand for those of the graph from then on.
    torch.manual_seed(12)
    edges = torch.randint(9, (2, 40))
    edges = edges if loops else edges[:, edges[0] != edges[1]]
    graph = prepare(edges, 9)
    for place in order:
        if kernels.enabled():
            graph.native(KEPT[place])
    for kind in KEPT:
        expected = prepare(edges, 9).matrix(kind).to_dense()
        assert torch.equal(graph.matrix(kind).to_dense(), expected)
        if kernels.enabled():
            rows = graph._native[kind][1]
            alone = PreparedGraph(edges, 9, copy=False)
            alone.native(kind)
            other, count = alone._native[kind][1], int(rows.crow[-1])
            assert torch.equal(rows.crow, other.crow)
            assert torch.equal(rows.col[:count], other.col[:count])


def test_edges_take_four_bytes_each():
    edges = torch.randint(50, (2, 10_000))
    edges = edges[:, edges[0] != edges[1]]
    graph = prepare(edges, 50)
    for kind in KEPT[:3] if kernels.enabled() else ():
        graph.native(kind)
    rows = [graph._rows, *(made[1] for made in graph._native.values())]
    pieces = {row.memory.data_ptr(): row.memory.nbytes for row in rows}
    # What the graph itself needs is part of what a layer sums over.
    assert (
        graph._rows.memory.data_ptr()
        in {made[1].memory.data_ptr() for made in graph._native.values()}
        or not kernels.enabled()
    )
    assert sum(pieces.values()) <= len(pieces) * (4 * edges.size(1) + 16 * 51)


@pytest.mark.skipif(not kernels.enabled(), reason="There are no native kernels")
@pytest.mark.parametrize("wrong", [-(2**63), -1, 5, 2**31, 2**32 + 1, 2**63 - 1])
@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("kind", [*KEPT, Edges("gcn", weighted=True)], ids=str)
def test_a_node_that_there_is_not(kind, end, wrong):
    edges = torch.tensor([[0, 1, 4, 2], [1, 2, 3, 2]])
    edges[end, 2] = wrong
    with pytest.raises(ValueError, match="counted from 0|more than num_nodes=5"):
        prepare(edges, 5)
    borrowed = PreparedGraph(edges, 5, torch.ones(4), copy=False)
    with pytest.raises(ValueError, match="counted from 0|more than num_nodes=5"):
        borrowed.native(kind)
    with pytest.raises(ValueError, match="counted from 0|more than num_nodes=5"):
        borrowed.matrix(kind)


def rewrite() -> None:
    """Sorts edges that another thread rewrites meanwhile, also to nodes that there are not."""
    torch.manual_seed(12)
    torch.set_num_threads(1)
    x, edges = torch.randn(3000, 16), torch.randint(3000, (2, 60_000))
    packed = [pack(build(16, 8, 2, 4).eval()) for build in (BitGCN, BitGraphSAGE)]
    stop, refused = threading.Event(), 0

    def write() -> None:
        while not stop.is_set():
            for low, high in ((0, 3000), (0, 10**9), (-(10**9), 3000)):
                edges.random_(low, high)

    writer = threading.Thread(target=write)
    writer.start()
    for turn in range(120):
        try:
            packed[turn % 2](x, edges if turn % 3 else prepare(edges, 3000))
        except ValueError:
            refused += 1
    stop.set()
    writer.join()
    assert refused > 0


@pytest.mark.skipif(not kernels.enabled(), reason="There are no native kernels")
def test_edges_that_another_thread_writes():
    ended = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import rewrite; rewrite()"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def test_numbers_of_nodes():
    edges = torch.tensor([[0, 1], [1, 2]])
    for number in (5, torch.tensor(5), np.int32(5)):
        assert prepare(edges, number).num_nodes == 5
    for wrong in (5.0, "5", True, torch.tensor(5.5), [5]):
        with pytest.raises(TypeError, match="'num_nodes' must be an integer"):
            prepare(edges, wrong)
    with pytest.raises(ValueError, match="must be from 0 to 2147483647 .got 2147483648"):
        prepare(edges, 2**31)


def test_integers_of_every_size():
    for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32):
        edges = torch.tensor([[0, 1], [1, 2]], dtype=dtype)
        assert torch.equal(
            prepare(edges, 3).matrix(Edges()).to_dense(),
            prepare(edges.long(), 3).matrix(Edges()).to_dense(),
        )


def test_one_matrix_for_several_models():
    torch.manual_seed(12)
    matrix = (torch.rand(9, 9) < 0.4).float().fill_diagonal_(1.0).to_sparse_csr()
    x = torch.randn(9, 8)
    models = [pack(build(8, 16, 2, 4).eval()) for build in (BitGCN, BitGAT, BitGraphSAGE)]
    expected = [model(x, matrix) for model in models]
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        graph = prepare(matrix)
        for place in order:
            assert torch.equal(models[place](x, graph), expected[place])
