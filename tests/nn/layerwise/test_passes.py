import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv

from bitgnn.nn import BitGATConv, BitGCNConv, BitSAGEConv
from bitgnn.nn.layerwise.edges import EdgesByTarget
from bitgnn.nn.layerwise.layers import layer_of
from bitgnn.nn.layerwise.passes import Passes
from bitgnn.nn.layerwise.storage import Storage

NODES, CPU = 20, torch.device("cpu")


def passes(storage, batch_size=6, tell=lambda *_: None):
    return Passes(storage, NODES, batch_size, CPU, tell)


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return EdgesByTarget(torch.randint(NODES, (2, 90)), NODES)


def test_by_row():
    x, told = torch.randn(NODES, 3), []
    with Storage() as storage:
        run = passes(storage, tell=lambda *what: told.append(what))
        assert torch.equal(run.by_row("sum", torch.add, x, x), 2 * x)
    assert told == [("sum", done, NODES) for done in (6, 12, 18, 20)]


@pytest.mark.parametrize("cls", [GCNConv, BitGCNConv, BitSAGEConv, BitGATConv])
def test_what_another_device_gathers(cls, graph):
    torch.manual_seed(1)
    x = torch.randn(NODES, 5)
    steps = [("conv", layer_of(cls(5, 5).eval(), graph, 6, "conv", CPU), nn.ReLU())] * 2
    with torch.no_grad(), Storage() as storage:
        run = passes(storage)
        expected = run.through(graph, steps, x)[0]
        run.gathers = True
        torch.testing.assert_close(run.through(graph, steps, x)[0], expected)


def test_each_row_is_computed_once(graph):
    conv, seen = BitGCNConv(5, 5).eval(), []
    conv.lin.register_forward_hook(lambda lin, args, out: seen.append(len(out)))
    with torch.no_grad(), Storage() as storage:
        layer = layer_of(conv, graph, 6, "conv", CPU)
        passes(storage).through(graph, [("conv", layer, None)], torch.randn(NODES, 5))
    assert sum(seen) == NODES


@pytest.mark.parametrize("keep", [False, True])
def test_files_go_when_they_are_read(keep, graph, tmp_path):
    files = []
    out, x = tmp_path / "out.npy", torch.randn(NODES, 5)
    with torch.no_grad(), Storage(out) as storage:
        run = passes(storage, tell=lambda *_: files.append(len(list(tmp_path.rglob("*.npy")))))
        layer = layer_of(BitGCNConv(5, 5).eval(), graph, 6, "conv", CPU)
        outs = run.through(graph, [("conv", layer, None)] * 4, x, keep=keep)
        assert len(outs) == (4 if keep else 1)
        assert len(list(tmp_path.rglob("*.npy"))) == len(outs)
    assert max(files) == (5 if keep else 2)
