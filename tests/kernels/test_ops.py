import pytest
import torch
from torch.library import opcheck

from bitgnn.kernels import blockwise, native, ops
from bitgnn.nn import BitLinear

pytestmark = pytest.mark.usefixtures("form")
HOW = 8, False, 1e-5


def operands(dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.randn(9, 6, dtype=dtype, requires_grad=True)
    weight = torch.randn(4, 6, dtype=dtype, requires_grad=True)
    return x, weight, torch.randint(-1, 2, (4, 6)).to(dtype), torch.rand(4, 1, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators_are_sound(dtype):
    x, weight, weight_q, scale = operands(dtype)
    opcheck(torch.ops.bitgnn.product, (x, weight))
    opcheck(torch.ops.bitgnn.ternary_product, (x, weight, weight_q, scale, *HOW))
    grad = torch.randn(9, 4, dtype=dtype)
    for how in ((None, False, 0.0), HOW, (4, True, 1e-5)):
        opcheck(torch.ops.bitgnn.weight_gradient, (x.detach(), grad, *how))


def test_product_passes_gradcheck():
    x, weight, *_ = operands(torch.float64)
    assert torch.autograd.gradcheck(ops.product, (x, weight))


def test_gradients_pass_straight_through_both_quantizers():
    x, weight, weight_q, scale = operands()
    out = ops.ternary_product(x, weight, weight_q, scale, *HOW)
    grad = torch.randn_like(out)
    grad_x, grad_weight = torch.autograd.grad(out, (x, weight), grad)
    torch.testing.assert_close(grad_x, grad @ (weight_q * scale))
    x_scale = x.detach().abs().amax(dim=-1, keepdim=True) / 127
    rounded = (x.detach() / x_scale).round() * x_scale
    torch.testing.assert_close(grad_weight, grad.t() @ rounded)
    # One of them alone.
    out = ops.ternary_product(x.detach(), weight, weight_q, scale, *HOW)
    assert torch.equal(torch.autograd.grad(out, weight, grad)[0], grad_weight)


def test_a_compiled_layer_keeps_the_operator(monkeypatch, form):
    monkeypatch.setattr(blockwise, "PAYS", 0)
    torch.manual_seed(0)
    lin, graphs = BitLinear(20, 7), []

    def backend(graph, inputs):
        graphs.append(graph.print_readable(print_output=False))
        return graph

    compiled = torch.compile(lin, backend=backend, fullgraph=True)
    x = torch.randn(30, 20, requires_grad=True)
    out = compiled(x)
    assert ("ternary_product" in "".join(graphs)) == (form == "native")
    torch.testing.assert_close(out, lin(x))
    grad = torch.randn_like(out)
    leaves = x, lin.weight, lin.bias
    found = torch.autograd.grad(out, leaves, grad)
    for mine, expected in zip(found, torch.autograd.grad(lin(x), leaves, grad), strict=True):
        torch.testing.assert_close(mine, expected)


def test_takes():
    x = torch.randn(3, 4)
    assert native.takes(x) == native.enabled()
    assert not native.takes(x.double()) and not native.takes(x.to_sparse())
    assert not native.takes(torch.empty(3, 4, device="meta"))
    seen = []
    torch.vmap(lambda row: seen.append(native.takes(row)) or row)(x)
    assert seen == [False]
