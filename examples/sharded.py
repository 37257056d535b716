"""Trains on a graph of which each process holds a part: features, labels and edges of some nodes.

python examples/sharded.py                                   two processes on this machine
torchrun --nproc-per-node 2 examples/sharded.py              the same; --nnodes for several
"""

import os
import socket

import torch
import torch.distributed as dist
import torch.distributed.rpc as rpc
import torch.nn.functional as F
from torch_geometric.data import FeatureStore, GraphStore, TensorAttr
from torch_geometric.data.graph_store import EdgeAttr, EdgeLayout
from torch_geometric.loader import NodeLoader
from torch_geometric.sampler import BaseSampler, SamplerOutput
from torch_geometric.utils import index_sort

from bitgnn import task
from bitgnn.nn import BitGraphSAGE


class Shard:
    """What a process holds: node i belongs to process i % parts, an edge goes with its target."""

    def __init__(self, data, part, parts):
        self.rows = {"x": data.x[part::parts].clone(), "y": data.y[part::parts].clone()}
        source, target = data.edge_index
        mine = target % parts == part
        target, order = index_sort(target[mine])
        self.source, self.target, self.parts = source[mine][order], target, parts
        count = torch.bincount(target // parts, minlength=len(self.rows["x"]))
        self.start = torch.cat([torch.zeros(1, dtype=torch.long), count.cumsum(0)])

    def read(self, name, nodes):
        return self.rows[name][nodes // self.parts]

    def edges(self):
        return self.source, self.target

    def sample(self, targets, most):
        """Returns up to so many random edges of each target; all of them for -1."""
        first, last = self.start[targets // self.parts], self.start[targets // self.parts + 1]
        count = last - first
        of = torch.repeat_interleave(torch.arange(len(targets)), count)
        place = torch.arange(len(of)) - torch.repeat_interleave(count.cumsum(0) - count, count)
        edge = first[of] + place
        if most >= 0:  # In random order, still by target, the first ones of each stay.
            order = torch.rand(len(of)).argsort()
            edge = edge[order[of[order].argsort(stable=True)]][place < most]
        return self.source[edge], self.target[edge]


shard = None  # That of this process, where the others find it.


def serve(method, *args):
    return getattr(shard, method)(*args)


def ask(method, of_part):
    """Asks the owners, at the same time, each with arguments of its own."""
    asked = [rpc.rpc_async(f"part{part}", serve, (method, *args)) for part, args in of_part.items()]
    return [each.wait() for each in asked]


def by_owner(nodes):
    """Returns which places of `nodes` belong to each process."""
    parts = (
        (part, (nodes % shard.parts == part).nonzero().flatten()) for part in range(shard.parts)
    )
    return {part: places for part, places in parts if len(places)}


class ShardedFeatures(FeatureStore):
    """Rows of nodes, wherever they are."""

    def __init__(self, num_nodes):
        super().__init__()
        self.num_nodes = num_nodes

    def get_all_tensor_attrs(self):
        return [TensorAttr(None, name) for name in ("x", "y")]

    def _get_tensor(self, attr):
        nodes = torch.arange(self.num_nodes) if attr.index is None else attr.index
        places = by_owner(nodes)
        found = ask("read", {part: (attr.attr_name, nodes[at]) for part, at in places.items()})
        out = found[0].new_empty(len(nodes), *found[0].shape[1:])
        for at, rows in zip(places.values(), found, strict=True):
            out[at] = rows
        return out

    def _get_tensor_size(self, attr):
        return self._get_tensor(attr).size()

    def _put_tensor(self, tensor, attr):
        raise NotImplementedError("Each process holds what it was given")

    _remove_tensor = _put_tensor


class ShardedGraph(GraphStore):
    """All edges, for samplers that want them in one place, such as `NeighborLoader`'s."""

    def __init__(self, num_nodes):
        super().__init__()
        self.size = num_nodes, num_nodes

    def get_all_edge_attrs(self):
        return [EdgeAttr(None, EdgeLayout.COO, size=self.size)]

    def _get_edge_index(self, attr):
        parts = ask("edges", {part: () for part in range(shard.parts)})
        return tuple(torch.cat(ends) for ends in zip(*parts, strict=True))

    def _put_edge_index(self, edge_index, attr):
        raise NotImplementedError("Each process holds what it was given")

    _remove_edge_index = _put_edge_index


class ShardedSampler(BaseSampler):
    """Samples the neighbors of nodes where their edges are."""

    edge_permutation = None

    def __init__(self, num_neighbors):
        self.num_neighbors = num_neighbors

    def sample_from_nodes(self, inputs):
        nodes = latest = inputs.node
        edges = [(nodes[:0], nodes[:0])]
        for most in self.num_neighbors:
            places = by_owner(latest)
            found = ask("sample", {part: (latest[at], most) for part, at in places.items()})
            edges += found
            reached = torch.cat([source for source, _ in found] or [nodes[:0]]).unique()
            latest = reached[~torch.isin(reached, nodes)]
            nodes = torch.cat([nodes, latest])
        order = nodes.argsort()
        ends = (torch.cat(each) for each in zip(*edges, strict=True))
        row, col = (order[torch.searchsorted(nodes[order], each)] for each in ends)
        return SamplerOutput(nodes, row, col, None, metadata=(inputs.input_id, inputs.time))

    def sample_from_edges(self, inputs, neg_sampling=None):
        raise NotImplementedError("It samples for nodes")


def join(data):
    """Joins the other processes, with this one's part of the data."""
    global shard
    part, parts = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    shard = Shard(data, part, parts)
    dist.init_process_group("gloo")
    rpc.init_rpc(f"part{part}", rank=part, world_size=parts)
    return part, parts


def main():
    torch.manual_seed(0)
    digits = task("Digits")  # A real shard would be read from a file of its own.
    split, num_nodes = digits.split(seed=0), digits.data.num_nodes
    sizes = digits.num_features, digits.num_classes
    part, parts = join(digits.data)
    del digits  # From here on each process has its own part alone.

    stores = ShardedFeatures(num_nodes), ShardedGraph(num_nodes)
    train = split.train.nonzero().flatten()
    train = train[: len(train) // parts * parts][part::parts]  # As many steps for each.
    test = split.test.nonzero().flatten()[part::parts]
    loader = NodeLoader(stores, ShardedSampler([10, 10]), train, batch_size=32, shuffle=True)
    model = BitGraphSAGE(sizes[0], 64, num_layers=2, out_channels=sizes[1], dropout=0.5)
    model = torch.nn.parallel.DistributedDataParallel(model)  # Gradients are averaged.
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(1, 11):
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            out = model(batch.x, batch.edge_index)[: batch.batch_size]
            loss = F.cross_entropy(out, batch.y[: batch.batch_size])
            loss.backward()
            optimizer.step()
        if part == 0:
            print(f"Epoch {epoch:02d}: loss {loss:.3f}")

    model.eval()
    right = torch.zeros(2)
    with torch.no_grad():
        for batch in NodeLoader(stores, ShardedSampler([-1, -1]), test, batch_size=256):
            out = model.module(batch.x, batch.edge_index)[: batch.batch_size]
            right[0] += (out.argmax(dim=-1) == batch.y[: batch.batch_size]).sum()
            right[1] += batch.batch_size
    dist.all_reduce(right)
    if part == 0:
        print(f"Test: {100 * right[0] / right[1]:.1f} %")
    rpc.shutdown()  # Waits until nobody asks any more.
    dist.destroy_process_group()


def start(part, parts):
    os.environ.update(RANK=str(part), WORLD_SIZE=str(parts))
    main()


if __name__ == "__main__":
    if "RANK" in os.environ:
        main()
    else:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
        torch.multiprocessing.spawn(start, (2,), nprocs=2)
