"""Derivatives of any order are those of v + (v_q - v).detach()."""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch.testing import assert_close

from bitgnn.kernels import attention_ops, blockwise, graph_attention, ops, spmm
from bitgnn.nn import BitGATConv, BitGCNConv, BitLinear, BitSAGEConv, BitSGConv
from bitgnn.nn import functional as bit
from bitgnn.quant import QuantConfig, dequantize_rows, quantize_rows, quantize_weight

NODES = 7
torch.manual_seed(0)
ADJ = (torch.rand(NODES, NODES) < 0.4).double().fill_diagonal_(0.0)
FORMS = {
    "edge_index": ADJ.t().nonzero().t().contiguous(),
    "csr": ADJ.to_sparse_csr(),
    "coo": ADJ.to_sparse_coo().coalesce(),
}
CONVS = {
    "gcn": lambda: BitGCNConv(5, 4),
    "sage": lambda: BitSAGEConv(5, 4),
    "gat": lambda: BitGATConv(5, 4, heads=2, dropout=0.0),
    "sg": lambda: BitSGConv(5, 4, K=2),
}


def straight(value, target):
    return value + (target - value).detach()


def rows(x, config):
    return straight(x, dequantize_rows(*quantize_rows(x, config)))


def written_out(x, weight, bias, config):
    """A ternary layer as its formula reads."""
    weight_q, scale = quantize_weight(weight, config)
    out = rows(x, config) @ straight(weight, weight_q * scale).t()
    if bias is None:
        return out
    if config.rescale_bias:
        bias = bias * (quantize_rows(x, config)[1] * scale.view(-1)).detach()
    return out + bias


def derivatives(call, leaves, order):
    """The gradients of a number that the output makes, and those of their squares, and so on."""
    grads = torch.autograd.grad(call().tanh().square().sum(), leaves, create_graph=True)
    for _ in range(order - 1):
        total = sum(grad.square().sum() for grad in grads)
        grads = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
        grads = [
            torch.zeros_like(leaf) if grad is None else grad
            for grad, leaf in zip(grads, leaves, strict=True)
        ]
    return list(grads)


def assert_equal_derivatives(mine, expected, leaves, orders=(1, 2, 3)):
    for order in orders:
        assert_close(
            derivatives(mine, leaves, order), derivatives(expected, leaves, order),
            rtol=1e-7, atol=1e-10,
        )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=2),
    config=st.builds(
        QuantConfig,
        granularity=st.sampled_from(["tensor", "channel"]),
        activation_bits=st.sampled_from([8, 4, None]),
        weight_bits=st.sampled_from([1.58, 4, None]),
        rescale_bias=st.booleans(),
    ),
    has_bias=st.booleans(),
)
def test_linear(seed, shape, config, has_bias):
    torch.manual_seed(seed)
    layer = BitLinear(5, 3, bias=has_bias, quant=config).double()
    x = torch.randn(*shape, 5, dtype=torch.double, requires_grad=True)

    def expected():
        weight, bias = layer.weight, layer.bias
        if None not in (config.activation_bits, config.weight_bits):
            return written_out(x, weight, bias, config)
        operand, scale = x, torch.ones((), dtype=torch.double)
        if config.activation_bits is not None:
            operand, scale = rows(x, config), quantize_rows(x, config)[1]
        if config.weight_bits is not None:
            weight_q, weight_scale = quantize_weight(weight, config)
            weight, scale = straight(weight, weight_q * weight_scale), scale * weight_scale.view(-1)
        if bias is not None and config.rescale_bias:
            bias = bias * scale
        return F.linear(operand, weight) if bias is None else F.linear(operand, weight) + bias

    assert_equal_derivatives(lambda: layer(x), expected, [x, *layer.parameters()])


@pytest.mark.parametrize("native", ["0", "1"])
def test_linear_of_many_rows(native, monkeypatch):
    monkeypatch.setenv("BITGNN_NATIVE", native)
    monkeypatch.setattr(blockwise, "PAYS", 0)
    torch.manual_seed(0)
    layer = BitLinear(6, 3)
    x = torch.randn(9, 6, requires_grad=True)
    mine = derivatives(lambda: layer(x), [x, *layer.parameters()], 2)
    expected = derivatives(
        lambda: written_out(x, layer.weight, layer.bias, layer.quant), [x, *layer.parameters()], 2
    )
    assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_only_one_operand_needs_a_gradient():
    torch.manual_seed(0)
    layer, x = BitLinear(5, 3).double(), torch.randn(4, 5, dtype=torch.double)
    leaves = list(layer.parameters())

    def expected():
        return written_out(x, layer.weight, layer.bias, layer.quant)

    assert_equal_derivatives(lambda: layer(x), expected, leaves)
    layer.requires_grad_(False)
    x.requires_grad_()
    assert_equal_derivatives(lambda: layer(x), expected, [x])


def test_rows_that_were_quantized_are_not_kept_for_second_derivatives():
    layer, saved = BitLinear(64, 3), []
    x = torch.randn(50, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(x)
    # The integers of the rows, and of the rows themselves nothing but their place in the graph.
    assert sum(t.untyped_storage().nbytes() == x.untyped_storage().nbytes() for t in saved) == 1
    assert not any(t.data_ptr() == x.data_ptr() for t in saved)


@pytest.mark.parametrize(
    ("name", "form"),
    # torch has no second derivative of its mean over a COO matrix, and says so.
    [(name, form) for name in CONVS for form in FORMS if (name, form) != ("sage", "coo")],
)
def test_convolutions(name, form, monkeypatch):
    """All adjacency forms agree with PyG's own messages around a layer that is written out."""
    torch.manual_seed(0)
    conv = CONVS[name]().double()
    x = torch.randn(NODES, 5, dtype=torch.double, requires_grad=True)
    leaves = [x, *conv.parameters()]
    mine = [derivatives(lambda: conv(x, FORMS[form]), leaves, order) for order in (1, 2)]

    def linear(x, weight, bias, config, strength, training, kept):
        if config.activation_bits is None:  # SAGE's root branch reads quantized rows.
            weight_q, scale = quantize_weight(weight, config)
            return F.linear(x, straight(weight, weight_q * scale), bias)
        return written_out(x, weight, bias, config)

    monkeypatch.setattr("bitgnn.nn.linear.bit_linear", linear)
    expected = [
        derivatives(lambda: conv(x, FORMS["edge_index"]), leaves, order) for order in (1, 2)
    ]
    assert_close(mine, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("native", ["0", "1"])
@pytest.mark.parametrize("wanted", [(0, 1, 2), (0,), (1, 2)])
def test_attention_passes_gradgradcheck(native, wanted, monkeypatch):
    monkeypatch.setenv("BITGNN_NATIVE", native)
    torch.manual_seed(0)
    inputs = [
        torch.randn(*shape, dtype=torch.double) for shape in ((NODES, 2, 3), (NODES, 2), (NODES, 2))
    ]
    for place in wanted:
        inputs[place].requires_grad_()
    adj_t = FORMS["csr"]
    parts = adj_t.crow_indices(), adj_t.col_indices()
    assert torch.autograd.gradgradcheck(
        lambda *each: graph_attention(adj_t, *each), inputs, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(
        lambda *each: attention_ops.attention(*parts, *each, 0.2, 0.0, None)[0],
        inputs,
        fast_mode=True,
    )


@pytest.mark.parametrize("native", ["0", "1"])
def test_second_derivatives_of_attention_drop_the_same_coefficients(native, monkeypatch):
    monkeypatch.setenv("BITGNN_NATIVE", native)

    def attend(x, score):
        torch.manual_seed(3)
        return graph_attention(FORMS["csr"], x, score, score, p=0.5, training=True)

    torch.manual_seed(0)
    inputs = [torch.randn(*shape, dtype=torch.double) for shape in ((NODES, 2, 3), (NODES, 2))]
    assert torch.autograd.gradgradcheck(
        attend, [each.requires_grad_() for each in inputs], fast_mode=True
    )


def test_scores_that_are_computed_from_the_features():
    torch.manual_seed(0)
    x = torch.randn(NODES, 2, 3, dtype=torch.double, requires_grad=True)

    def attend(x):
        return graph_attention(FORMS["csr"], x, x.sum(dim=-1), x.tanh().sum(dim=-1))

    assert torch.autograd.gradgradcheck(attend, [x])


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_products_of_sparse_matrices_pass_gradgradcheck(reduce):
    x = torch.randn(NODES, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: spmm(FORMS["csr"], x, reduce).tanh(), [x])


def test_operators_pass_gradgradcheck():
    torch.manual_seed(0)
    x, weight, grad = (
        torch.randn(*shape, dtype=torch.double, requires_grad=True)
        for shape in ((5, 4), (3, 4), (5, 3))
    )
    assert torch.autograd.gradgradcheck(ops.product, [x, weight])
    assert torch.autograd.gradgradcheck(
        lambda x, grad: ops.weight_gradient(x, grad, None, False, 0.0), [x, grad]
    )


def test_sparse_features_that_need_second_derivatives_are_refused():
    x = torch.eye(4).to_sparse_csr().requires_grad_()
    out = bit.bit_linear(x, torch.randn(3, 4, requires_grad=True), None, QuantConfig())
    with pytest.raises(RuntimeError, match="Second derivatives of sparse features"):
        torch.autograd.grad(out.sum(), x, create_graph=True)
