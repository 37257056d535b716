import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.kernels import dense_linear, native_products, quantized_linear, reference

layouts = pytest.mark.parametrize(
    "layout", [torch.strided, torch.sparse_coo, torch.sparse_csr], ids=["dense", "coo", "csr"]
)


class Operands:
    """Random integers and scales, and the tensors that get their gradients."""

    def __init__(self, shape=(6, 8), out_channels=5, bias=True, channel=False, dtype=torch.float64):
        self.x_q = torch.randint(-127, 128, shape).to(dtype)
        self.weight_q = torch.randint(-1, 2, (out_channels, shape[-1])).to(dtype)
        self.x_scale = torch.rand(*shape[:-1], 1, dtype=dtype) + 0.1
        self.weight_scale = torch.rand((out_channels, 1) if channel else (), dtype=dtype) + 0.1
        self.x = torch.randn(shape, dtype=dtype, requires_grad=True)
        self.weight = torch.randn(out_channels, shape[-1], dtype=dtype, requires_grad=True)
        self.bias = torch.randn(out_channels, dtype=dtype, requires_grad=True) if bias else None

    def kernel(self, rescale_bias=False, layout=torch.strided):
        x_q = self.x_q if layout == torch.strided else self.x_q.to_sparse(layout=layout)
        scales = x_q, self.x_scale, self.weight_q, self.weight_scale
        return quantized_linear(self.x, self.weight, self.bias, *scales, rescale_bias)

    def reference(self, rescale_bias=False):
        integers = self.x_q, self.x_scale, self.weight_q, self.weight_scale
        return reference.quantized_linear(*integers, self.bias, rescale_bias)

    def gradients(self, out, grad):
        leaves = [leaf for leaf in (self.x, self.weight, self.bias) if leaf is not None]
        return torch.autograd.grad(out, leaves, grad)

    def expected_gradients(self, grad, rescale_bias=False):
        """Autograd through the dequantized operands, as if they were leaves."""
        x = (self.x_q * self.x_scale).requires_grad_()
        weight = (self.weight_q * self.weight_scale).requires_grad_()
        out = F.linear(x, weight)
        if self.bias is None:
            return torch.autograd.grad(out, [x, weight], grad)
        rescale = self.x_scale * self.weight_scale.view(-1) if rescale_bias else 1.0
        return torch.autograd.grad(out + self.bias * rescale, [x, weight, self.bias], grad)


def assert_close(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@layouts
@pytest.mark.parametrize("rescale_bias", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("channel", [False, True], ids=["tensor", "channel"])
def test_quantized_linear_equals_the_reference(channel, bias, rescale_bias, layout):
    torch.manual_seed(12345)
    operands = Operands(bias=bias, channel=channel)
    out = operands.kernel(rescale_bias, layout)
    assert_close([out], [operands.reference(rescale_bias)])
    grad = torch.randn_like(out)
    expected = operands.expected_gradients(grad, rescale_bias)
    assert_close(operands.gradients(out, grad), expected)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.integers(0, 6),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_quantized_linear_of_any_shape(rows, in_channels, out_channels, rescale_bias, seed):
    torch.manual_seed(seed)
    operands = Operands((*rows, in_channels), out_channels)
    out = operands.kernel(rescale_bias)
    assert_close([out], [operands.reference(rescale_bias)])
    grad = torch.randn_like(out)
    expected = operands.expected_gradients(grad, rescale_bias)
    assert_close(operands.gradients(out, grad), expected)


@pytest.mark.parametrize("rescale_bias", [False, True])
def test_quantized_linear_of_one_row(rescale_bias):
    operands = Operands((8,))
    out = operands.kernel(rescale_bias)
    assert_close([out], [operands.reference(rescale_bias)])
    grad = torch.randn_like(out)
    assert_close(operands.gradients(out, grad), operands.expected_gradients(grad, rescale_bias))


@layouts
@pytest.mark.parametrize("in_channels", [5000, 100_000])
def test_integer_part_is_exact(in_channels, layout):
    torch.manual_seed(12345)
    operands = Operands((3, in_channels), 4, bias=False, dtype=torch.float32)
    operands.x_q[0], operands.weight_q[0] = 127.0, 1.0  # The largest sum there can be.
    operands.x_scale = torch.ones(3, 1)
    operands.weight_scale = torch.ones(())
    out = operands.kernel(layout=layout)
    assert torch.equal(out.long(), operands.x_q.long() @ operands.weight_q.long().t())
    assert torch.equal(out, operands.reference())
    assert out[0, 0] == 127 * in_channels


def test_quantized_linear_changes_none_of_its_inputs():
    operands = Operands((1, 1), 1)  # Where a product might be a view of its operand.
    before = {name: value.clone() for name, value in vars(operands).items()}
    operands.gradients(operands.kernel(rescale_bias=True), torch.ones(1, 1))
    operands.gradients(operands.kernel(), torch.ones(1, 1))
    for name, value in vars(operands).items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("needs", ["x", "weight", "bias"])
def test_gradient_of_one_input_only(needs):
    torch.manual_seed(12345)
    operands = Operands()
    expected = dict(
        zip(["x", "weight", "bias"], operands.expected_gradients(torch.ones(6, 5)), strict=True)
    )
    for name in ("x", "weight", "bias"):
        getattr(operands, name).requires_grad_(name == needs)
    operands.kernel().sum().backward()
    for name in ("x", "weight", "bias"):
        grad = getattr(operands, name).grad
        assert (grad is not None) == (name == needs)
        if grad is not None:
            assert_close([grad], [expected[name]])


@pytest.mark.parametrize("rescale_bias", [False, True])
def test_gradient_of_the_bias_is_a_true_gradient(rescale_bias):
    operands = Operands()

    def layer(bias):
        operands.bias = bias
        return operands.kernel(rescale_bias)

    assert torch.autograd.gradcheck(layer, operands.bias)


def test_gradient_can_be_differentiated():
    # Both quantizers are constants to autograd: only the gradient itself varies.
    operands = Operands()
    grad = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    grad_x, grad_weight, grad_bias = torch.autograd.grad(
        operands.kernel(), [operands.x, operands.weight, operands.bias], grad, create_graph=True
    )
    total = grad_x.sum() + grad_weight.sum() + grad_bias.sum()
    (second,) = torch.autograd.grad(total, grad)
    weight = operands.weight_q * operands.weight_scale
    x = operands.x_q * operands.x_scale
    expected = weight.sum(dim=1).view(1, -1) + x.sum(dim=1).view(-1, 1) + 1.0
    assert torch.allclose(second, expected)


@pytest.fixture
def many(monkeypatch):
    """Has small rows, too, multiplied by native kernels."""
    monkeypatch.setattr(native_products, "MANY", 0)


def assert_about(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-3 * b.detach().abs().max().item())


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("rescale_bias", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("shape", [(40, 24), (3, 7, 33)])
def test_quantized_linear_of_many_rows(shape, channel, rescale_bias):
    torch.manual_seed(12345)
    operands = Operands(shape, 21, channel=channel, dtype=torch.float32)
    out = operands.kernel(rescale_bias)
    assert torch.equal(out, operands.reference(rescale_bias))  # Integers: nothing is rounded.
    grad = torch.randn_like(out)
    expected = operands.expected_gradients(grad, rescale_bias)
    assert_about(operands.gradients(out, grad), expected)


@pytest.mark.usefixtures("many")
def test_quantized_linear_of_many_rows_with_more_bits():
    torch.manual_seed(12345)
    operands = Operands((40, 24), 21, dtype=torch.float32)
    operands.weight_q = torch.randint(-7, 8, (21, 24)).float()
    assert torch.equal(operands.kernel(), operands.reference())


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("shape", [(40, 24), (3, 7, 33), (5,)])
def test_dense_linear(shape, bias):
    torch.manual_seed(12345)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(21, shape[-1])
    leaves = [x, weight.requires_grad_()]
    leaves += [torch.randn(21, requires_grad=True)] * bias
    out, expected = dense_linear(*leaves), F.linear(*leaves)
    assert_about([out], [expected])
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, leaves, grad)
    assert_about(found, torch.autograd.grad(expected, leaves, grad))
    # Each gradient by itself.
    for k, leaf in enumerate(leaves):
        (alone,) = torch.autograd.grad(dense_linear(*leaves), leaf, grad)
        assert torch.equal(alone, found[k])


@pytest.mark.filterwarnings("ignore:.*double precision")
@pytest.mark.usefixtures("many")
def test_dense_linear_passes_gradcheck():
    torch.manual_seed(0)
    x, weight = torch.randn(9, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    # Linear in each: differences are exact but for the rounding of 32 bits.
    assert torch.autograd.gradcheck(
        dense_linear, (x, weight), eps=0.5, atol=1e-4, rtol=1e-4, check_undefined_grad=False
    )
