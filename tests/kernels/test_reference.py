import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.kernels import reference


def random_operands(shape, out_channels, dtype=torch.float32, channel=False, high=1):
    x_q = torch.randint(-127, 128, shape).to(dtype)
    weight_q = torch.randint(-high, high + 1, (out_channels, shape[-1])).to(dtype)
    x_scale = torch.rand(*shape[:-1], 1, dtype=dtype) + 0.1
    weight_scale = torch.rand((out_channels, 1) if channel else (), dtype=dtype) + 0.1
    return x_q, x_scale, weight_q, weight_scale


def oracle(x_q, x_scale, weight_q, weight_scale, bias=None, rescale_bias=False):
    """The formula, entry by entry, for one or two dimensions of rows and channels."""
    out = torch.empty(x_q.size(0), weight_q.size(0), dtype=torch.float64)
    scales = weight_scale.expand(weight_q.size(0), 1).flatten().tolist()
    for i, row in enumerate(x_q.tolist()):
        for j, channel in enumerate(weight_q.tolist()):
            total = sum(int(x) * int(w) for x, w in zip(row, channel, strict=True))
            b = 0.0 if bias is None else float(bias[j])
            total = total + b if rescale_bias else total
            out[i, j] = total * float(x_scale[i]) * scales[j] + (0.0 if rescale_bias else b)
    return out


@pytest.mark.parametrize("rescale_bias", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channel", [False, True])
def test_quantized_linear_equals_the_formula(channel, bias, rescale_bias):
    torch.manual_seed(12345)
    operands = random_operands((5, 12), 7, torch.float64, channel)
    bias = torch.randn(7, dtype=torch.float64) if bias else None
    out = reference.quantized_linear(*operands, bias, rescale_bias)
    expected = oracle(*operands, bias, rescale_bias)
    assert out.shape == (5, 7)
    assert torch.allclose(out, expected, rtol=1e-13, atol=1e-13)


@given(st.integers(0, 4), st.integers(0, 9), st.integers(0, 5), st.integers(0, 2**32))
def test_quantized_linear_of_any_shape(rows, in_channels, out_channels, seed):
    torch.manual_seed(seed)
    operands = random_operands((rows, in_channels), out_channels, torch.float64)
    bias = torch.randn(out_channels, dtype=torch.float64)
    out = reference.quantized_linear(*operands, bias)
    assert torch.allclose(out, oracle(*operands, bias), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("in_channels", [1, 100, 5000])
def test_integer_part_is_exact(in_channels):
    torch.manual_seed(12345)
    x_q, _, weight_q, _ = random_operands((3, in_channels), 4)
    x_q[0], weight_q[0] = 127.0, 1.0  # The largest sum there can be.
    one = torch.ones(())
    out = reference.quantized_linear(x_q, one.expand(3, 1), weight_q, one)
    assert torch.equal(out.long(), x_q.long() @ weight_q.long().t())
    assert out[0, 0] == 127 * in_channels


def test_bias_is_added_after_the_rescale():
    one, two = torch.ones(1, 1), torch.full((), 2.0)
    bias = torch.tensor([10.0])
    assert reference.quantized_linear(3 * one, two.view(1, 1), one, two, bias) == 3 * 4 + 10
    assert reference.quantized_linear(3 * one, two.view(1, 1), one, two, bias, True) == (3 + 10) * 4


def test_quantized_linear_with_more_dimensions():
    torch.manual_seed(12345)
    x_q, x_scale, weight_q, weight_scale = random_operands((2, 3, 8), 5, channel=True)
    bias = torch.randn(5)
    out = reference.quantized_linear(x_q, x_scale, weight_q, weight_scale, bias)
    flat = reference.quantized_linear(
        x_q.view(-1, 8), x_scale.view(-1, 1), weight_q, weight_scale, bias
    )
    assert out.shape == (2, 3, 5)
    assert torch.allclose(out.view(-1, 5), flat)
