import pytest
import torch
from torch_geometric.nn import GCNConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.testing import assert_module, withPackage
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csc_tensor

from bitgnn.nn import BitGCNConv

EDGE_INDEX = torch.tensor([[0, 0, 0, 1, 2, 3], [1, 2, 3, 0, 0, 0]])
EDGE_WEIGHT = torch.tensor([0.1, 0.9, 0.4, 0.7, 0.3, 0.5])


def test_gcn_conv():
    conv = BitGCNConv(16, 32)
    assert str(conv) == "BitGCNConv(16, 32)"
    assert_module(conv, torch.randn(4, 16), EDGE_INDEX, expected_size=(4, 32), atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_gcn_conv_equals_its_formula(oracle, bias, weighted):
    x = torch.randn(4, 16)
    weight = EDGE_WEIGHT if weighted else None
    conv = BitGCNConv(16, 32, bias=bias)
    if bias:
        torch.nn.init.normal_(conv.bias)

    adj = oracle.gcn_adjacency(EDGE_INDEX, 4, weight)
    expected = adj @ oracle.linear(x, conv.lin.weight)
    expected = expected + conv.bias if bias else expected
    assert torch.allclose(conv(x, EDGE_INDEX, weight), expected, atol=1e-5)


def test_gcn_conv_aggregates_before_or_after(oracle):
    # The aggregation is linear, so that inference may gather 8-bit rows.
    x = torch.randn(4, 16)
    conv = BitGCNConv(16, 32)
    aggregated = oracle.gcn_adjacency(EDGE_INDEX, 4) @ oracle.rows(x)
    expected = aggregated @ oracle.ternary(conv.lin.weight).t()
    assert torch.allclose(conv(x, EDGE_INDEX), expected, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("weighted", [True, False])
def test_gcn_conv_with_sparse_adjacency(layout, weighted):
    x = torch.randn(4, 16)
    weight = EDGE_WEIGHT if weighted else None
    conv = BitGCNConv(16, 32)
    out = conv(x, EDGE_INDEX, weight)

    adj_t = to_torch_coo_tensor(EDGE_INDEX, weight, size=(4, 4)).t().coalesce()
    assert torch.allclose(conv(x, adj_t.to_sparse(layout=layout)), out, atol=1e-6)
    with pytest.raises(NotImplementedError, match="Sparse CSC matrices are not yet supported"):
        conv(x, adj_t.to_sparse_csc())


@withPackage("torch_sparse")
def test_gcn_conv_with_sparse_tensor():
    x = torch.randn(4, 16)
    conv = BitGCNConv(16, 32)
    out1, out2 = conv(x, EDGE_INDEX), conv(x, EDGE_INDEX, EDGE_WEIGHT)
    adj1 = SparseTensor.from_edge_index(EDGE_INDEX, sparse_sizes=(4, 4))
    adj2 = SparseTensor.from_edge_index(EDGE_INDEX, EDGE_WEIGHT, (4, 4))
    assert torch.allclose(conv(x, adj1.t()), out1, atol=1e-6)
    assert torch.allclose(conv(x, adj2.t()), out2, atol=1e-6)

    conv.cached = True
    conv(x, adj1.t())
    assert conv._cached_adj_t is not None
    assert torch.allclose(conv(x, adj1.t()), out1, atol=1e-6)


@pytest.mark.parametrize(
    ("quant", "layout"),
    [
        (None, torch.sparse_coo),
        ("b158", torch.sparse_coo),
        ("b158", torch.sparse_csr),
        ("reloaded", torch.sparse_coo),
        ("reloaded", torch.sparse_csr),
    ],
)
def test_gcn_conv_with_sparse_features(quant, layout):
    x = torch.randn(4, 16).relu()
    conv = BitGCNConv(16, 32, quant=quant)
    expected = conv(x, EDGE_INDEX)
    expected.square().sum().backward()
    expected_grad = conv.lin.weight.grad.clone()

    conv.zero_grad()
    out = conv(x.to_sparse(layout=layout), EDGE_INDEX)
    out.square().sum().backward()
    assert torch.allclose(out, expected, atol=1e-5)
    assert torch.allclose(conv.lin.weight.grad, expected_grad, atol=1e-4)


@pytest.mark.parametrize("improved", [True, False])
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_gcn_conv_normalization(improved, add_self_loops):
    x = torch.randn(4, 16)
    kwargs = {"improved": improved, "add_self_loops": add_self_loops}
    conv = BitGCNConv(16, 32, **kwargs)
    raw = BitGCNConv(16, 32, normalize=False)
    raw.load_state_dict(conv.state_dict())
    normalized = gcn_norm(EDGE_INDEX, EDGE_WEIGHT, 4, **kwargs)
    assert torch.allclose(conv(x, EDGE_INDEX, EDGE_WEIGHT), raw(x, *normalized), atol=1e-6)


def test_gcn_conv_cached():
    x = torch.randn(4, 16)
    conv = BitGCNConv(16, 32, cached=True)
    out = conv(x, EDGE_INDEX, EDGE_WEIGHT)
    assert conv._cached_edge_index is not None
    assert torch.equal(conv(x, EDGE_INDEX[:, :1]), out)

    adj_t = to_torch_csc_tensor(EDGE_INDEX, EDGE_WEIGHT, size=(4, 4)).t()
    assert torch.allclose(conv(x, adj_t), out, atol=1e-6)
    conv.reset_parameters()
    assert conv._cached_edge_index is None


def test_gcn_conv_with_decomposed_layers():
    x = torch.randn(4, 16)
    conv, decomposed = BitGCNConv(16, 32), BitGCNConv(16, 32, decomposed_layers=2)
    decomposed.load_state_dict(conv.state_dict())
    assert torch.allclose(conv(x, EDGE_INDEX), decomposed(x, EDGE_INDEX), atol=1e-6)


def test_gcn_conv_takes_pygs_positions():
    conv, original = (cls(16, 32, True, True, False, True, False) for cls in (BitGCNConv, GCNConv))
    for name in ("improved", "cached", "add_self_loops", "normalize", "bias"):
        assert getattr(conv, name) == getattr(original, name)


def test_gcn_conv_errors():
    with pytest.raises(ValueError, match="'BitGCNConv' does not support adding self-loops"):
        BitGCNConv(16, 32, normalize=False, add_self_loops=True)
    x = torch.randn(4, 16)
    with pytest.raises(ValueError, match="'BitGCNConv' received a tuple of node features"):
        BitGCNConv(16, 32)((x, x), EDGE_INDEX)
