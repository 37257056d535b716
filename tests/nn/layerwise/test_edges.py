import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_remaining_self_loops, to_torch_csr_tensor

from bitgnn.nn.layerwise import edges
from bitgnn.nn.layerwise.edges import EdgesByTarget, Range


@st.composite
def graphs(draw, weighted=None):
    """Edges between few nodes, some of them twice or to their own node, with weights or without."""
    nodes = draw(st.integers(1, 9))
    node = st.integers(0, nodes - 1)
    pairs = draw(st.lists(st.tuples(node, node), max_size=25))
    edge_index = torch.tensor(pairs, dtype=torch.long).view(-1, 2).t()
    weights = draw(st.booleans()) if weighted is None else weighted
    weight = torch.arange(1.0, len(pairs) + 1) if weights else None
    return edge_index, nodes, weight


def listed(graph, batch_size, **how):
    """All edges as (source, target, weight), in the order of the blocks."""
    found = []
    for targets in graph.ranges(batch_size):
        block = graph.block(targets, **how)
        source, target = block.edge_index()
        weight = torch.ones(len(source)) if block.weight is None else block.weight
        assert block.crow[0] == 0 and block.crow[-1] == len(source)
        found += list(
            zip(source.tolist(), (target + targets.start).tolist(), weight.tolist(), strict=True)
        )
    return found


def expected(edge_index, weight):
    weight = torch.ones(edge_index.size(1)) if weight is None else weight
    edges = zip(*edge_index.tolist(), weight.tolist(), strict=True)
    return sorted(edges, key=lambda edge: edge[1])  # stable: edges of a target keep their order


@given(graphs(), st.integers(1, 10))
def test_blocks_are_the_edges_by_target(drawn, batch_size):
    edge_index, nodes, weight = drawn
    graph = EdgesByTarget(edge_index, nodes, weight)
    assert listed(graph, batch_size) == expected(edge_index, weight)


@given(graphs(), st.integers(1, 10), st.sampled_from([1.0, 2.0]))
def test_loops_are_those_of_pyg(drawn, batch_size, fill):
    edge_index, nodes, weight = drawn
    found = listed(EdgesByTarget(edge_index, nodes, weight), batch_size, loops=True, fill=fill)
    with_loops, weights = add_remaining_self_loops(edge_index, weight, fill, nodes)
    assert sorted(found) == sorted(expected(with_loops, weights))
    replaced = listed(EdgesByTarget(edge_index, nodes, weight), batch_size, loops=True)
    assert all(w == 1.0 for source, target, w in replaced if source == target)
    assert [edge[:2] for edge in replaced] == [edge[:2] for edge in found]


@given(graphs(), st.integers(1, 10), st.booleans())
def test_normalization_is_that_of_pyg(drawn, batch_size, loops):
    edge_index, nodes, weight = drawn
    graph = EdgesByTarget(edge_index, nodes, weight)
    factor = graph.normalization(batch_size, loops, 1.0)
    index, norm = gcn_norm(edge_index, weight, nodes, add_self_loops=loops)
    if loops:
        weight = add_remaining_self_loops(edge_index, weight, 1.0, nodes)[1]
    weight = torch.ones(index.size(1)) if weight is None else weight
    found = factor[index[0]] * weight.double() * factor[index[1]]
    torch.testing.assert_close(found.float(), norm, rtol=1e-5, atol=1e-7)
    assert graph.normalization(batch_size, loops, 1.0) is factor  # computed once


@given(graphs(), st.integers(1, 10))
def test_gathered_blocks_begin_with_their_targets(drawn, batch_size):
    edge_index, nodes, weight = drawn
    graph = EdgesByTarget(edge_index, nodes, weight)
    for targets in graph.ranges(batch_size):
        block = graph.block(targets)
        fewer, places = block.gathered()
        count = targets.stop - targets.start
        assert places[:count].tolist() == list(range(*targets))
        assert len(places.unique()) == len(places) <= count + len(block.col)
        assert torch.equal(places[fewer.col], block.col)
        assert torch.equal(fewer.crow, block.crow)


def test_edges_by_target_are_not_copied(tmp_path):
    numbers = torch.tensor([[2, 0, 1, 1], [0, 1, 1, 2]])
    path = tmp_path / "edges"
    path.write_bytes(numbers.numpy().tobytes())
    mapped = torch.from_file(str(path), size=8, dtype=torch.long).view(2, 4)
    graph = EdgesByTarget(mapped, 3)
    assert graph.col.data_ptr() == mapped.data_ptr()
    assert graph.crow.tolist() == [0, 1, 3, 4]
    other = EdgesByTarget(numbers.flip(1), 3)
    assert other.col.tolist() == [2, 1, 0, 1]


def test_order_is_seen_across_pieces(monkeypatch):
    monkeypatch.setattr(edges, "CHUNK", 3)
    for numbers in ([], [4], [0, 1, 1, 2, 3, 3, 5], [0, 1, 2, 1, 3, 3, 5], [0, 1, 2, 3, 3, 5, 4]):
        assert edges._ascends(torch.tensor(numbers)) == (numbers == sorted(numbers))


def test_sparse_matrix():
    index = torch.tensor([[1, 0, 2], [0, 2, 2]])
    plain = to_torch_csr_tensor(index.flip(0), size=3)
    graph = EdgesByTarget(plain, 3)
    assert graph.weight is None and listed(graph, 2) == expected(index, None)
    weight = torch.tensor([3.0, 2.0, 1.0])
    graph = EdgesByTarget(to_torch_csr_tensor(index.flip(0), weight, size=3), 3)
    assert listed(graph, 2) == expected(index, weight)


def test_matrix_is_what_edges_say():
    weight = torch.tensor([2.0, 3.0, 5.0])
    graph = EdgesByTarget(torch.tensor([[0, 2, 1], [1, 1, 0]]), 3, weight)
    block = graph.block(Range(0, 2))
    dense = [[0.0, 5.0, 0.0], [2.0, 0.0, 3.0]]
    assert block.matrix(3, torch.double).to_dense().tolist() == dense
    assert block.matrix(3, torch.double).dtype == torch.double


@pytest.mark.parametrize(
    ("edge_index", "weight", "error", "message"),
    [
        ([[0, 1]], None, ValueError, r"shape \(2, number of edges\) \(got torch.int64 of shape"),
        ([[0.0], [1.0]], None, ValueError, "must hold integers"),
        ([[0], [3]], None, ValueError, "nodes from 0 to 3, but 'x' has rows 0 to 2"),
        ([[-1], [0]], None, ValueError, "nodes from -1 to 0"),
        ([[0], [1]], [1.0, 2.0], ValueError, r"one number an edge, 1 \(got shape \(2,\)\)"),
    ],
)
def test_what_does_not_fit(edge_index, weight, error, message):
    weight = None if weight is None else torch.tensor(weight)
    with pytest.raises(error, match=message):
        EdgesByTarget(torch.tensor(edge_index), 3, weight)


def test_matrices_that_do_not_fit():
    matrix = to_torch_csr_tensor(torch.tensor([[0], [1]]), size=2)
    with pytest.raises(ValueError, match=r"a row of 'x', 3 \(got shape \(2, 2\)\)"):
        EdgesByTarget(matrix, 3)
    with pytest.raises(ValueError, match="leave 'edge_weight'"):
        EdgesByTarget(matrix, 2, torch.ones(1))
    with pytest.raises(TypeError, match=r"in CSR form \(got torch.sparse_coo\)"):
        EdgesByTarget(matrix.to_sparse_coo(), 2)
    with pytest.raises(TypeError, match=r"in CSR form \(got list\)"):
        EdgesByTarget([[0], [1]], 2)
