import copy

import pytest
import torch
from torch_geometric.nn import Linear

from bitgnn import convert
from bitgnn.nn import BitGCNConv, BitLinear
from bitgnn.nn.sparse_linear import SparseLinear


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cls", [SparseLinear, lambda *args: BitLinear(*args, quant=None)])
def test_sparse_features_equal_dense_features(cls, bias, layout):
    torch.manual_seed(12345)
    x, lin = torch.randn(6, 8).relu(), cls(8, 5, bias)
    original = Linear(8, 5, bias)
    original.load_state_dict(lin.state_dict())
    outs = lin(x.to_sparse(layout=layout)), original(x)
    torch.testing.assert_close(*outs)
    grad = torch.randn(6, 5)
    grads = (
        torch.autograd.grad(o, list(m.parameters()), grad)
        for o, m in zip(outs, (lin, original), strict=True)
    )
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected)


def test_dense_features_are_pygs_to_the_last_bit():
    lin = SparseLinear(8, 5)
    original = Linear(8, 5)
    original.load_state_dict(lin.state_dict())
    x = torch.randn(2, 3, 8)
    assert torch.equal(lin(x), original(x))


def test_lazy():
    lin = SparseLinear(-1, 5)
    assert lin(torch.eye(8).to_sparse_csr()).size() == (8, 5)
    assert lin.in_channels == 8


def test_is_what_32_bit_layers_hold():
    conv = BitGCNConv(8, 5, quant=None)
    assert type(conv.lin) is SparseLinear
    assert type(copy.deepcopy(conv).lin) is SparseLinear
    converted = convert(conv)
    assert type(converted.lin) is BitLinear and converted.lin.quant is not None
    # PyG's layers are left alone.
    assert type(Linear(8, 5)) is Linear


def test_scripts():
    lin = SparseLinear(8, 5)
    x = torch.randn(3, 8)
    assert torch.equal(torch.jit.script(lin)(x), lin(x))
