import pytest
import torch

from bitgnn.experiment.speed.graphs import (
    SHAPES,
    Shape,
    csr,
    graph_of,
    random_graph,
    sparse_features,
)

SMALL = Shape(2000, 40_000, 7, 3)


def test_random_graphs_have_their_shape():
    data = random_graph(SMALL)
    assert data.x.shape == (2000, 7) and data.edge_index.shape == (2, 40_000)
    assert data.edge_index.min() >= 0 and data.edge_index.max() < 2000
    assert torch.equal(random_graph(SMALL).edge_index, data.edge_index)
    assert not torch.equal(random_graph(SMALL, seed=1).edge_index, data.edge_index)


def test_sources_follow_a_power_law_and_targets_do_not():
    data = random_graph(Shape(20_000, 400_000, 1, 2))
    source, target = data.edge_index
    assert len(data.edge_index.unique(dim=1)[0]) == 400_000 and (source != target).all()
    degree = torch.bincount(source, minlength=20_000).sort(descending=True).values.double()
    # The node of rank r is a source in proportion to r^(-2/3): a hundred times the rank, a
    # 21st of the degree.
    assert degree[10:30].mean() / degree[1000:3000].mean() == pytest.approx(100 ** (2 / 3), rel=0.1)
    assert torch.bincount(target).max() < 60


def test_real_graphs():
    data, num_classes = graph_of("Digits")
    assert data.num_nodes == 1797 and num_classes == 10
    data, num_classes = graph_of("request")
    assert (data.num_nodes, num_classes) == (250, SHAPES["request"].num_classes)


def test_forms():
    data = random_graph(Shape(5, 12, 2, 2))
    dense = torch.zeros(5, 5)
    dense[data.edge_index[1], data.edge_index[0]] = 1.0
    assert torch.equal(csr(data.edge_index, 5).to_dense(), dense)
    few = torch.eye(40)
    assert sparse_features(few).layout == torch.sparse_csr
    assert sparse_features(data.x) is data.x
