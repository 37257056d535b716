import pytest
import torch
from torch_geometric.nn import GATConv
from torch_geometric.testing import assert_module, withPackage
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import to_torch_csc_tensor

from bitgnn.nn import BitGATConv, BitLinear

EDGE_INDEX = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])


@pytest.mark.parametrize("residual", [False, True])
def test_gat_conv(residual):
    x1, x2 = torch.randn(4, 8), torch.randn(2, 16)
    conv = BitGATConv(8, 32, heads=2, residual=residual)
    assert str(conv) == "BitGATConv(8, 32, heads=2)"
    out = assert_module(conv, x1, EDGE_INDEX, expected_size=(4, 64), atol=1e-6)
    assert torch.equal(conv(x1, EDGE_INDEX, size=(4, 4)), out)

    # Test bipartite message passing:
    conv = BitGATConv((8, 16), 32, heads=2, residual=residual)
    assert str(conv) == "BitGATConv((8, 16), 32, heads=2)"
    assert_module(conv, (x1, x2), EDGE_INDEX, expected_size=(2, 64), atol=1e-6)
    assert_module(conv, (x1, None), EDGE_INDEX, size=(4, 2), expected_size=(2, 64), atol=1e-6)


@pytest.mark.parametrize("concat", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_gat_conv_equals_its_formula(oracle, concat, residual):
    # PyG's layer with the dequantized weights, on the dequantized rows.
    x = torch.randn(4, 8)
    conv = BitGATConv(8, 32, heads=2, concat=concat, residual=residual)
    original = GATConv(8, 32, heads=2, concat=concat, residual=residual)
    original.load_state_dict(conv.state_dict())
    with torch.no_grad():
        for linear in [original.lin, original.res] if residual else [original.lin]:
            linear.weight.copy_(oracle.ternary(linear.weight))
    expected = original(oracle.rows(x), EDGE_INDEX)
    assert torch.allclose(conv(x, EDGE_INDEX), expected, atol=1e-5)


def test_gat_conv_quantizes_linears_only():
    conv = BitGATConv((8, 16), 32, heads=2, edge_dim=4, residual=True)
    ternary = {name for name, m in conv.named_modules() if isinstance(m, BitLinear)}
    assert ternary == {"lin_src", "lin_dst", "lin_edge", "res"}
    x = (torch.randn(4, 8), torch.randn(2, 16))
    out = conv(x, EDGE_INDEX, torch.randn(4, 4))
    with torch.no_grad():
        conv.att_src += 1e-3  # Attention vectors are in 32 bits: nothing is rounded away.
    assert not torch.equal(conv(x, EDGE_INDEX, torch.randn(4, 4)), out)


def test_gat_conv_attention_weights():
    x = torch.randn(4, 8)
    conv = BitGATConv(8, 32, heads=2)
    out = conv(x, EDGE_INDEX)
    result = conv(x, EDGE_INDEX, return_attention_weights=True)
    assert torch.equal(result[0], out)
    assert result[1][0].size() == (2, 7)
    assert result[1][1].size() == (7, 2)
    assert result[1][1].min() >= 0 and result[1][1].max() <= 1

    adj_t = to_torch_csc_tensor(EDGE_INDEX, size=(4, 4)).t()
    result = conv(x, adj_t, return_attention_weights=True)
    assert torch.allclose(result[0], out, atol=1e-6)
    assert result[1][0].size() == (4, 4, 2)
    assert result[1][0]._nnz() == 7


@withPackage("torch_sparse")
def test_gat_conv_attention_weights_of_sparse_tensor():
    x = torch.randn(4, 8)
    conv = BitGATConv(8, 32, heads=2)
    adj = SparseTensor.from_edge_index(EDGE_INDEX, sparse_sizes=(4, 4))
    result = conv(x, adj.t(), return_attention_weights=True)
    assert torch.allclose(result[0], conv(x, EDGE_INDEX), atol=1e-6)
    assert result[1].sizes() == [4, 4, 2] and result[1].nnz() == 7

    conv = BitGATConv(8, 32, heads=2, edge_dim=1)
    adj = SparseTensor.from_edge_index(EDGE_INDEX, torch.randn(4), (4, 4))
    with pytest.raises(NotImplementedError, match="'edge_attr' and 'add_self_loops'"):
        conv(x, adj.t())


@pytest.mark.parametrize("fill_value", [0.5, "mean"])
@pytest.mark.parametrize("edge_dim", [1, 4])
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_gat_conv_with_edge_attr(oracle, fill_value, edge_dim, add_self_loops):
    x, edge_attr = torch.randn(4, 8), torch.randn(4, edge_dim)
    kwargs = {
        "heads": 2,
        "edge_dim": edge_dim,
        "fill_value": fill_value,
        "add_self_loops": add_self_loops,
    }
    conv = BitGATConv(8, 32, **kwargs)
    out = conv(x, EDGE_INDEX, edge_attr)
    assert out.size() == (4, 64)
    if edge_dim == 1:
        assert torch.equal(conv(x, EDGE_INDEX, edge_attr.view(-1)), out)
    if not add_self_loops:  # Self-loops get attributes that are quantized on their own.
        original = GATConv(8, 32, **kwargs)
        original.load_state_dict(conv.state_dict())
        with torch.no_grad():
            for linear in (original.lin, original.lin_edge):
                linear.weight.copy_(oracle.ternary(linear.weight))
        expected = original(oracle.rows(x), EDGE_INDEX, oracle.rows(edge_attr))
        assert torch.allclose(out, expected, atol=1e-5)

    perm = torch.tensor([2, 0, 3, 1])
    permuted = conv(x, EDGE_INDEX[:, perm], edge_attr[perm])
    assert torch.allclose(permuted, out, atol=1e-5)


def test_gat_conv_lazy_bipartite():
    conv = BitGATConv((-1, -1), 32, heads=2, residual=True)
    out = conv((torch.randn(4, 8), torch.randn(2, 16)), EDGE_INDEX)
    assert out.size() == (2, 64)
    assert (conv.lin_src.in_channels, conv.lin_dst.in_channels) == (8, 16)


def test_gat_conv_static_graphs_are_refused_as_in_pyg():
    with pytest.raises(AssertionError, match="Static graphs not supported in 'GATConv'"):
        BitGATConv(8, 32)(torch.randn(3, 4, 8), EDGE_INDEX)
