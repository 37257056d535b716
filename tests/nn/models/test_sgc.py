import copy
import pickle

import pytest
import torch
from torch_geometric.nn import SGConv

from bitgnn.nn import BitSGC, BitSGConv
from bitgnn.nn.twin import is_ternary

EDGE_INDEX = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


@pytest.mark.parametrize("quant", [None, "b158", "reloaded"])
@pytest.mark.parametrize("cached", [True, False])
def test_sgc(quant, cached):
    x = torch.randn(3, 8)
    model = BitSGC(8, 5, K=3, cached=cached, quant=quant)
    assert str(model) == "BitSGC(8, 5, K=3)"
    out = model(x, EDGE_INDEX)
    assert out.size() == (3, 5)
    assert torch.equal(model(x, EDGE_INDEX), out)

    conv = BitSGConv(8, 5, K=3, quant=quant)
    conv.load_state_dict(model.conv.state_dict())
    assert torch.equal(conv(x, EDGE_INDEX), out)
    assert is_ternary(model.conv.lin) == (quant is not None)


def test_sgc_off_equals_pyg():
    torch.manual_seed(1)
    original = SGConv(8, 5, K=2)
    torch.manual_seed(1)
    model = BitSGC(8, 5, quant=None)
    assert list(model.state_dict()) == [f"conv.{name}" for name in original.state_dict()]
    x, weight = torch.randn(3, 8), torch.rand(4)
    assert torch.equal(model(x, EDGE_INDEX, weight), original(x, EDGE_INDEX, weight))
    assert torch.equal(model(x, EDGE_INDEX), original(x, EDGE_INDEX))


def test_sgc_copies_and_resets():
    x = torch.randn(3, 8)
    model = BitSGC(-1, 5, cached=True)
    out = model(x, EDGE_INDEX)
    assert torch.equal(copy.deepcopy(model)(x, EDGE_INDEX), out)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x, EDGE_INDEX), out)
    model.reset_parameters()
    assert model.conv._cached_x is None
    assert not torch.equal(model(x, EDGE_INDEX), out)


def test_sgc_learns():
    x, y = torch.eye(6), torch.tensor([0, 0, 0, 1, 1, 1])
    edge_index = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 5], [1, 0, 2, 1, 4, 3, 5, 4]])
    model = BitSGC(6, 2, cached=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x, edge_index), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
