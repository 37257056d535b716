"""Layers see what is in their inputs now, however it came there."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from bitgnn.nn import (
    BitGATConv,
    BitGCNConv,
    BitLinear,
    BitSAGEConv,
    BitSGConv,
    static_inputs,
)

torch.manual_seed(0)
ADJ = (torch.rand(8, 8) < 0.4).float().fill_diagonal_(0.0)
CONVS = [BitGCNConv, BitSAGEConv, BitGATConv, BitSGConv]
hows = pytest.mark.parametrize("how", ["numpy", "data", "torch"])


def rewrite(tensor, how, content):
    if how == "numpy":
        tensor.numpy()[:] = content.numpy()
    elif how == "data":
        tensor.data.copy_(content)
    else:  # As where a buffer is filled by torch itself.
        tensor.copy_(content)


@hows
@pytest.mark.parametrize("kind", ["linear", "sage"])
@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
def test_features(kind, layout, how):
    layer = BitLinear(6, 3) if kind == "linear" else BitSAGEConv(6, 3)
    rest = () if kind == "linear" else (ADJ.to_sparse_csr(),)
    x = torch.randn(8, 6).to_sparse(layout=layout) if layout != torch.strided else torch.randn(8, 6)
    for _ in range(3):
        layer.train()(x, *rest).sum().backward()
    values = x if layout == torch.strided else x.values()
    rewrite(values, how, torch.randn_like(values))
    for mode in (True, False):
        assert torch.equal(layer.train(mode)(x, *rest), layer(x.clone(), *rest))


@hows
@pytest.mark.parametrize("kind", CONVS)
def test_values_of_an_adjacency_matrix(kind, how):
    conv, adj_t, x = kind(6, 3), ADJ.to_sparse_csr(), torch.randn(8, 6, requires_grad=True)

    def results(adj_t):
        x.grad = None
        out = conv(x, adj_t)
        out.square().sum().backward()
        return out.detach(), x.grad.clone()

    for _ in range(3):
        results(adj_t)
    rewrite(adj_t.values(), how, torch.rand_like(adj_t.values()) + 0.5)
    for mine, expected in zip(results(adj_t), results(adj_t.clone()), strict=True):
        assert torch.equal(mine, expected)


@hows
@pytest.mark.parametrize("kind", CONVS)
def test_columns_of_an_adjacency_matrix(kind, how):
    conv, adj_t, x = kind(6, 3), ADJ.to_sparse_csr(), torch.randn(8, 6, requires_grad=True)

    def results(adj_t):
        x.grad = None
        out = conv(x, adj_t)
        out.square().sum().backward()
        return out.detach(), x.grad.clone()

    for _ in range(3):
        results(adj_t)
    rewrite(adj_t.col_indices(), how, (adj_t.col_indices() + 1) % 8)
    for mine, expected in zip(results(adj_t), results(adj_t.clone()), strict=True):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_of_many_rows(static, use_reentrant):
    """A forward that is run again saves the same tensors, whatever is remembered by then."""
    torch.manual_seed(0)
    layer, x = BitLinear(1024, 3), torch.randn(1100, 1024)
    layer(x).square().sum().backward()
    expected = layer.weight.grad.clone()
    for _ in range(3):
        layer.zero_grad()
        with static_inputs(*[x] * static):
            given = x.clone().requires_grad_() if use_reentrant else x
            checkpoint(layer, given, use_reentrant=use_reentrant).square().sum().backward()
        torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-4, atol=1e-2)


def test_static_inputs_change_no_number_beyond_rounding():
    torch.manual_seed(0)
    x, adj_t = torch.randn(8, 6), ADJ.to_sparse_csr()
    for kind in CONVS:
        conv = kind(6, 3)
        expected = conv(x, adj_t)
        with static_inputs(x, adj_t):
            for _ in range(3):
                torch.testing.assert_close(conv(x, adj_t), expected)
