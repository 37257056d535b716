"""The stores and the sampler of `examples/sharded.py`. That they work from process to process,
`test_examples.py` sees; here the parts lie in one process, and each batch is looked at."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader, NodeLoader
from torch_geometric.testing import onlyNeighborSampler

from bitgnn.nn import BitGraphSAGE

NODES, PARTS = 50, 3


@pytest.fixture
def data():
    torch.manual_seed(12)
    edge_index = torch.randint(NODES, (2, 300)).unique(dim=1)
    return Data(x=torch.randn(NODES, 8), y=torch.arange(NODES), edge_index=edge_index)


@pytest.fixture
def sharded(data, monkeypatch):
    path = Path(__file__).parents[1] / "examples" / "sharded.py"
    spec = importlib.util.spec_from_file_location("sharded", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shards = [module.Shard(data, part, PARTS) for part in range(PARTS)]
    module.shard = shards[1]

    def ask(method, of_part):
        return [getattr(shards[part], method)(*args) for part, args in of_part.items()]

    monkeypatch.setattr(module, "ask", ask)
    return module


def test_parts_make_up_the_whole(sharded, data):
    features, graph = sharded.ShardedFeatures(NODES), sharded.ShardedGraph(NODES)
    assert torch.equal(features.get_tensor(group_name=None, attr_name="x", index=None), data.x)
    nodes = torch.tensor([7, 3, 7, 49, 0])
    assert torch.equal(features.get_tensor(group_name=None, attr_name="y", index=nodes), nodes)
    row, col = graph.get_edge_index(edge_type=None, layout="coo")
    found = torch.stack([row, col])
    assert (
        torch.equal(found.unique(dim=1), data.edge_index) and found.shape == data.edge_index.shape
    )


def assert_same(batches, model, data):
    expected, seen = model(data.x, data.edge_index), []
    for batch in batches:
        assert torch.equal(batch.x, data.x[batch.n_id])
        seeds = batch.y[: batch.batch_size]
        out = model(batch.x, batch.edge_index)[: batch.batch_size]
        torch.testing.assert_close(out, expected[seeds], atol=1e-4, rtol=1e-4)
        seen.append(seeds)
    assert torch.equal(torch.cat(seen), torch.arange(1, NODES, 2))


def test_whole_neighborhoods(sharded, data):
    stores = sharded.ShardedFeatures(NODES), sharded.ShardedGraph(NODES)
    model = BitGraphSAGE(8, 16, 2, 4).eval()
    seeds = torch.arange(1, NODES, 2)
    assert_same(
        NodeLoader(stores, sharded.ShardedSampler([-1, -1]), seeds, batch_size=7), model, data
    )


@onlyNeighborSampler
def test_pygs_loader(sharded, data):
    stores = sharded.ShardedFeatures(NODES), sharded.ShardedGraph(NODES)
    model = BitGraphSAGE(8, 16, 2, 4).eval()
    seeds = torch.arange(1, NODES, 2)
    assert_same(NeighborLoader(stores, [-1, -1], seeds, batch_size=7), model, data)


def test_sampled_neighbors(sharded, data):
    edges = set(map(tuple, data.edge_index.t().tolist()))
    degree = torch.bincount(data.edge_index[1], minlength=NODES)
    targets = torch.tensor([4, 1, 10])  # Of one part; in no order.
    seen = set()
    for _ in range(60):
        source, target = sharded.Shard(data, 1, PARTS).sample(targets, 2)
        pairs = list(zip(source.tolist(), target.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs) and set(pairs) <= edges
        found = torch.bincount(target, minlength=NODES)
        assert torch.equal(found[targets], degree[targets].clamp(max=2))
        seen |= set(pairs)
    assert seen == {(j, i) for j, i in edges if i in targets.tolist()}  # Each has its chance.
