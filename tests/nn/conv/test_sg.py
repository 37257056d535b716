import pytest
import torch
from torch_geometric.testing import assert_module, withPackage
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import to_torch_coo_tensor

from bitgnn.nn import BitSGConv

EDGE_INDEX = torch.tensor([[0, 0, 0, 1, 2, 3], [1, 2, 3, 0, 0, 0]])
EDGE_WEIGHT = torch.tensor([0.1, 0.9, 0.4, 0.7, 0.3, 0.5])


def test_sg_conv():
    conv = BitSGConv(16, 32, K=10)
    assert str(conv) == "BitSGConv(16, 32, K=10)"
    assert_module(conv, torch.randn(4, 16), EDGE_INDEX, expected_size=(4, 32), atol=1e-5)


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("weighted", [True, False])
def test_sg_conv_equals_its_formula(oracle, K, weighted):
    x = torch.randn(4, 16)
    weight = EDGE_WEIGHT if weighted else None
    conv = BitSGConv(16, 32, K=K)
    # Quantization comes after all propagation steps.
    hidden = torch.linalg.matrix_power(oracle.gcn_adjacency(EDGE_INDEX, 4, weight), K) @ x
    expected = oracle.linear(hidden, conv.lin.weight, conv.lin.bias)
    assert torch.allclose(conv(x, EDGE_INDEX, weight), expected, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sg_conv_with_sparse_adjacency(layout):
    x = torch.randn(4, 16)
    conv = BitSGConv(16, 32, K=2)
    adj_t = to_torch_coo_tensor(EDGE_INDEX, EDGE_WEIGHT, size=(4, 4)).t().coalesce()
    out = conv(x, EDGE_INDEX, EDGE_WEIGHT)
    assert torch.allclose(conv(x, adj_t.to_sparse(layout=layout)), out, atol=1e-5)


@withPackage("torch_sparse")
def test_sg_conv_with_sparse_tensor():
    x = torch.randn(4, 16)
    conv = BitSGConv(16, 32, K=2)
    adj = SparseTensor.from_edge_index(EDGE_INDEX, EDGE_WEIGHT, (4, 4))
    assert torch.allclose(conv(x, adj.t()), conv(x, EDGE_INDEX, EDGE_WEIGHT), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_sg_conv_cached(training):
    x = torch.randn(4, 16)
    conv = BitSGConv(16, 32, K=2, cached=True).train(training)
    out = conv(x, EDGE_INDEX)
    assert conv._cached_x is not None
    for _ in range(3):  # The cached features are static rows: quantized once in training.
        assert torch.equal(conv(x, EDGE_INDEX[:, :1]), out)
    conv.reset_parameters()
    assert conv._cached_x is None
    assert not torch.equal(conv(2.0 + x, EDGE_INDEX), out)


def test_sg_conv_cached_learns_like_uncached():
    x = torch.randn(4, 16)
    cached, plain = BitSGConv(16, 32, K=2, cached=True), BitSGConv(16, 32, K=2)
    plain.load_state_dict(cached.state_dict())
    for _ in range(3):
        for conv in (cached, plain):
            conv(x, EDGE_INDEX).square().sum().backward()
            with torch.no_grad():
                for parameter in conv.parameters():
                    parameter -= 0.01 * parameter.grad
            conv.zero_grad()
        assert torch.equal(cached.lin.weight, plain.lin.weight)
