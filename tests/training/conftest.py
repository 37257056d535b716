import pytest
import torch
from torch_geometric.data import Data

from bitgnn.data import Split, Task
from bitgnn.data.splits import FixedSplit


def make_task(metric="accuracy", num_classes=3, num_nodes=60, noise=1.0):
    r"""Noisy class prototypes on a graph that links equal classes in a ring."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(num_nodes) % num_classes
    x = torch.eye(num_classes, 16)[y] + noise * torch.rand(num_nodes, 16, generator=generator)
    source = torch.arange(num_nodes)
    target = (source + num_classes) % num_nodes
    edge_index = torch.stack([torch.cat([source, target]), torch.cat([target, source])])
    part = (source // num_classes) % 3
    split = Split("public", part == 0, part == 1, part == 2)
    data = Data(x=x, edge_index=edge_index, y=y)
    return Task("Tiny", data, metric, "public", "0" * 64, None, FixedSplit(split))


@pytest.fixture
def tiny():
    return make_task()


@pytest.fixture
def tiny_rocauc():
    return make_task("rocauc", num_classes=2)
