import torch

from bitgnn.data.digits import digits_graph


def test_digits_graph():
    data = digits_graph()
    assert data.num_nodes == 1797
    assert data.x.shape == (1797, 64)
    assert data.x.dtype == torch.float
    assert data.x.min() == 0 and data.x.max() == 1
    assert data.y.unique().tolist() == list(range(10))
    assert data.is_undirected()
    assert data.is_coalesced()
    assert not data.has_self_loops()


def test_digits_graph_links_nearest_neighbors():
    data = digits_graph(num_neighbors=3)
    distance = torch.cdist(data.x.double(), data.x.double())
    distance.fill_diagonal_(float("inf"))
    adj = torch.zeros(1797, 1797, dtype=torch.bool)
    adj[data.edge_index[0], data.edge_index[1]] = True
    third = distance.sort(dim=1).values[:, 2:3]
    assert adj[distance < third - 1e-6].all()
    near = distance <= third + 1e-6
    assert (near | near.t())[adj].all()
    assert (adj.sum(dim=1) >= 3).all()
    assert (data.y[data.edge_index[0]] == data.y[data.edge_index[1]]).float().mean() > 0.95
