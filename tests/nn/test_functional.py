import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from bitgnn.nn.functional import bit_linear
from bitgnn.quant import QuantConfig

b158 = QuantConfig()
layouts = pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
configs = st.builds(
    QuantConfig,
    weight_bits=st.sampled_from([1.58, 2, 4, 8, None]),
    weight_measure=st.sampled_from(["absmean", "absmedian", "absmax"]),
    granularity=st.sampled_from(["tensor", "channel"]),
    activation_bits=st.sampled_from([2, 4, 8, None]),
    layer_norm=st.booleans(),
    full_range=st.booleans(),
    rescale_bias=st.booleans(),
)


def operands(*shape, out_channels=6, dtype=torch.float64, seed=12345):
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    weight = torch.randn(out_channels, shape[-1], dtype=dtype, requires_grad=True)
    bias = torch.randn(out_channels, dtype=dtype, requires_grad=True)
    return x, weight, bias


def formula(x, weight, channel=False, median=False):
    """What the default mathematics makes of both operands: integers and scales."""
    x, weight = x.detach(), weight.detach()
    x_scale = (x.abs().amax(dim=-1, keepdim=True) / 127).clamp(min=1e-8)
    size = weight.abs() if channel else weight.abs().view(1, -1)
    measure = size.median(dim=1, keepdim=True).values if median else size.mean(1, keepdim=True)
    weight_scale = measure.clamp(min=1e-8)
    x_q = torch.clamp(torch.round(x / x_scale), -127, 127)
    weight_q = torch.clamp(torch.round(weight / weight_scale), -1, 1)
    return x_q, x_scale, weight_q, weight_scale


def reloaded(x, weight, bias, strength=1.0, median=False):
    """The layer of the PyPI package `bitlinear`, from its formula."""

    def quantize(value, low, high):
        return strength * (value.round().clamp(low, high) - value).detach() + value

    x = F.layer_norm(x, x.shape[-1:])
    x_scale = 128 / x.detach().abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    size = weight.detach().abs()
    weight_scale = 1 / (size.median() if median else size.mean()).clamp(min=1e-5)
    x_q, weight_q = quantize(x * x_scale, -128, 127), quantize(weight * weight_scale, -1, 1)
    return F.linear(x_q, weight_q, bias) / (weight_scale * x_scale)


def gradients(out, *leaves):
    grad = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad(out, leaves, grad)


@pytest.mark.parametrize("median", [False, True], ids=["absmean", "absmedian"])
@pytest.mark.parametrize("channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 16)], ids=["2d", "3d"])
def test_bit_linear_equals_the_formula(shape, channel, median):
    x, weight, bias = operands(*shape)
    config = QuantConfig(
        weight_measure="absmedian" if median else "absmean",
        granularity="channel" if channel else "tensor",
    )
    x_q, x_scale, weight_q, weight_scale = formula(x, weight, channel, median)
    expected = (x_q @ weight_q.t()) * x_scale * weight_scale.view(-1) + bias
    assert_close(bit_linear(x, weight, bias, config), expected)
    assert_close(bit_linear(x, weight, None, config), expected - bias)


@pytest.mark.parametrize("channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 16)], ids=["2d", "3d"])
def test_gradient_is_that_of_the_dequantized_operands(shape, channel):
    x, weight, bias = operands(*shape)
    x_q, x_scale, weight_q, weight_scale = formula(x, weight, channel)
    x_leaf = (x_q * x_scale).requires_grad_()
    weight_leaf = (weight_q * weight_scale).requires_grad_()
    expected = F.linear(x_leaf, weight_leaf, bias)
    config = QuantConfig(granularity="channel" if channel else "tensor")
    out = bit_linear(x, weight, bias, config)
    assert_close(out, expected)
    assert_close(gradients(out, x, weight, bias), gradients(expected, x_leaf, weight_leaf, bias))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_rescaled_bias(layer_norm):
    x, weight, bias = operands(5, 16)
    config = QuantConfig(rescale_bias=True, layer_norm=layer_norm)
    normalized = F.layer_norm(x, (16,)) if layer_norm else x
    x_q, x_scale, weight_q, weight_scale = formula(normalized, weight)
    expected = (x_q @ weight_q.t() + bias) * x_scale * weight_scale
    out = bit_linear(x, weight, bias, config)
    assert_close(out, expected)
    grad_bias = (gradients(out, out)[0] * x_scale * weight_scale).sum(dim=0)
    assert_close(gradients(out, bias)[0], grad_bias)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("median", [False, True], ids=["absmean", "absmedian"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_reloaded_equals_the_layer_of_its_authors(bias, median, strength):
    x, weight, b = operands(7, 24)
    b = b if bias else None
    leaves = [x, weight] if b is None else [x, weight, b]
    measure = "absmedian" if median else "absmean"
    config = QuantConfig.preset("reloaded", weight_measure=measure)
    expected = reloaded(x, weight, b, strength, median)
    out = bit_linear(x, weight, b, config, strength)
    assert_close(out, expected)
    assert_close(gradients(out, *leaves), gradients(expected, *leaves))


@given(configs, st.integers(0, 2**32))
def test_any_configuration_has_the_straight_through_gradient(config, seed):
    x, weight, bias = operands(4, 8, seed=seed)
    leaves = [x, weight, bias]
    out = bit_linear(x, weight, bias, config)
    grads = gradients(out, *leaves)
    # A blend of strength 1 takes the other path through the code: floats, not integers.
    blend = bit_linear(x, weight, bias, config, strength=1.0 - 1e-12)
    assert_close(out, blend, rtol=1e-7, atol=1e-9)
    assert_close(grads, gradients(blend, *leaves), rtol=1e-7, atol=1e-9)


@given(configs, st.integers(0, 2**32))
def test_strength_zero_is_full_precision(config, seed):
    config = config.replace(layer_norm=False, rescale_bias=False)
    for dtype in (torch.float32, torch.float64):
        x, weight, bias = operands(4, 8, dtype=dtype, seed=seed)
        out, expected = bit_linear(x, weight, bias, config, 0.0), F.linear(x, weight, bias)
        assert torch.equal(out, expected)
        expected_grads = gradients(expected, x, weight, bias)
        assert_close(gradients(out, x, weight, bias), expected_grads, rtol=0, atol=0)


@pytest.mark.parametrize("strength", [0.25, 0.5])
def test_strength_blends_both_operands(strength):
    x, weight, bias = operands(5, 16)
    x_q, x_scale, weight_q, weight_scale = formula(x, weight)
    x_leaf = (x + strength * (x_q * x_scale - x)).detach().requires_grad_()
    weight_leaf = (weight + strength * (weight_q * weight_scale - weight)).detach()
    weight_leaf.requires_grad_()
    expected = F.linear(x_leaf, weight_leaf, bias)
    out = bit_linear(x, weight, bias, b158, strength)
    assert_close(out, expected)
    assert_close(gradients(out, x, weight, bias), gradients(expected, x_leaf, weight_leaf, bias))


def test_32_bit_weights_or_activations():
    x, weight, bias = operands(5, 16)
    x_q, x_scale, weight_q, weight_scale = formula(x, weight)
    out = bit_linear(x, weight, bias, b158.replace(weight_bits=None))
    assert_close(out, F.linear(x_q * x_scale, weight, bias))
    out = bit_linear(x, weight, bias, b158.replace(activation_bits=None))
    assert_close(out, F.linear(x, weight_q * weight_scale, bias))
    out = bit_linear(x, weight, bias, b158.replace(activation_bits=None, weight_bits=None))
    assert torch.equal(out, F.linear(x, weight, bias))


def test_stochastic_rounding_in_training_only():
    x, weight, bias = operands(5, 16)
    config = b158.replace(rounding="stochastic")
    expected = bit_linear(x, weight, bias, b158)
    assert torch.equal(bit_linear(x, weight, bias, config), expected)
    torch.manual_seed(0)
    first = bit_linear(x, weight, bias, config, training=True)
    second = bit_linear(x, weight, bias, config, training=True)
    assert not torch.equal(first, expected) and not torch.equal(first, second)
    # Gradients belong to the weight that was drawn.
    (grad_x,) = torch.autograd.grad(first.sum(), x)
    torch.manual_seed(0)
    again = bit_linear(x, weight, bias, config, training=True)
    assert torch.equal(again, first)
    assert torch.equal(torch.autograd.grad(again.sum(), x)[0], grad_x)


@layouts
@given(config=configs.filter(lambda config: config.activation_bits), seed=st.integers(0, 2**32))
def test_sparse_input_equals_dense_input(layout, config, seed):
    x, weight, bias = operands(6, 9, seed=seed)
    x = x.detach() * (x.detach() > 0.4)
    expected = bit_linear(x, weight, bias, config)
    out = bit_linear(x.to_sparse(layout=layout), weight, bias, config)
    assert_close(out, expected)
    assert_close(gradients(out, weight, bias), gradients(expected, weight, bias))


@layouts
def test_sparse_input_with_32_bit_activations(layout):
    x, weight, bias = operands(6, 9)
    x = x.detach().relu()
    config = b158.replace(activation_bits=None)
    expected = bit_linear(x, weight, bias, config)
    out = bit_linear(x.to_sparse(layout=layout), weight, bias, config)
    assert_close(out, expected)
    assert_close(gradients(out, weight, bias), gradients(expected, weight, bias))


@pytest.mark.parametrize("strength", [0.0, 0.5])
@layouts
def test_sparse_input_with_strength(layout, strength):
    x, weight, bias = operands(6, 9)
    x = x.detach().relu()
    expected = bit_linear(x, weight, bias, b158, strength)
    out = bit_linear(x.to_sparse(layout=layout), weight, bias, b158, strength)
    assert_close(out, expected)
    assert_close(gradients(out, weight, bias), gradients(expected, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sparse_input_in_half_precision(dtype):
    x, weight, bias = operands(6, 9, dtype=dtype)
    x = x.detach().relu()
    out = bit_linear(x.to_sparse(), weight, bias, b158)
    assert out.dtype == dtype
    assert_close(out, bit_linear(x, weight, bias, b158), rtol=2e-2, atol=2e-2)


@layouts
def test_sparse_input_of_zeros_and_without_rows(layout):
    _, weight, bias = operands(1, 9)
    for rows in (0, 4):
        x = torch.zeros(rows, 9, dtype=torch.float64).to_sparse(layout=layout)
        out = bit_linear(x, weight, bias, b158)
        assert torch.equal(out, bias.expand(rows, -1))


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("preset", ["b158", "reloaded"])
def test_non_finite_values_spoil_their_row_only(preset, bad, layout):
    config = QuantConfig.preset(preset)
    x, weight, bias = operands(5, 16)
    x = x.detach().clone()
    clean = bit_linear(x, weight, bias, config)
    x[1, 3] = x[3, 0] = bad
    x = x if layout == torch.strided else x.to_sparse(layout=layout)
    out = bit_linear(x, weight, bias, config)
    assert torch.isnan(out[[1, 3]]).all()
    assert_close(out[[0, 2, 4]], clean[[0, 2, 4]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", [b158, QuantConfig.preset("reloaded")], ids=["b158", "reloaded"])
def test_rows_of_zeros_and_constant_rows(config):
    _, weight, bias = operands(1, 16)
    x = torch.tensor([[0.0], [2.5], [-2.5]], dtype=torch.float64).expand(3, 16)
    out = bit_linear(x, weight, bias, config)
    assert torch.isfinite(out).all()
    if config == b158:
        _, _, weight_q, weight_scale = formula(x, weight)
        assert torch.equal(out[0], bias)
        assert_close(out[1], 2.5 * (weight_q * weight_scale).sum(dim=1) + bias)
        assert_close(out[2], -2.5 * (weight_q * weight_scale).sum(dim=1) + bias)
    else:  # Layer normalization makes zeros of a constant row, and the bias is rescaled.
        expected = bias * config.eps * weight.abs().mean()
        assert_close(out, expected.expand(3, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_and_huge_values(dtype):
    _, weight, bias = operands(1, 16, dtype=dtype)
    pattern = torch.linspace(-1, 1, 16, dtype=dtype)
    x = torch.stack([pattern * 1e-30, pattern, pattern * 1e30])
    out = bit_linear(x, weight, bias, b158)
    assert torch.equal(out[0], bias)  # Below the smallest scale: zeros.
    assert_close(out[2] / 1e30, out[1] - bias, rtol=1e-4, atol=1e-5)
    for w in (1e-30, 1e30):
        out = bit_linear(x, weight * w, bias, b158)
        assert torch.isfinite(out[:2]).all()
    assert torch.equal(bit_linear(x, weight * 1e-30, bias, b158)[:2], bias.expand(2, -1))


@pytest.mark.parametrize("shape", [(0, 16), (0, 3, 16), (3, 0, 16)])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_no_rows(shape, strength):
    x, weight, bias = operands(*shape)
    out = bit_linear(x, weight, bias, b158, strength)
    assert out.shape == (*shape[:-1], 6)
    out.sum().backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))
    assert torch.equal(bias.grad, torch.zeros_like(bias))
    assert x.grad.shape == shape


@pytest.mark.parametrize("config", [b158, b158.replace(granularity="channel")])
def test_no_features(config):
    x, weight, bias = operands(4, 0)
    out = bit_linear(x, weight, bias, config)
    assert torch.equal(out, bias.expand(4, -1))
    out.sum().backward()
    assert weight.grad.shape == (6, 0)
    assert bias.grad.tolist() == [4.0] * 6


@pytest.mark.parametrize("measure", ["absmean", "absmedian", "absmax"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_all_zero_weight_leaves_the_bias(granularity, measure):
    x, weight, bias = operands(5, 16)
    config = QuantConfig(weight_measure=measure, granularity=granularity)
    zero = torch.zeros_like(weight).requires_grad_()
    out = bit_linear(x, zero, bias, config)
    assert torch.equal(out, bias.expand(5, -1))
    grad_weight = gradients(out, zero)[0]
    assert torch.isfinite(grad_weight).all()
    assert grad_weight.abs().max() > 0.1  # The layer can still learn.


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_collapsed_absmedian_does_not_zero_the_output(granularity):
    x, weight, _ = operands(50, 100, dtype=torch.float32)
    weight = weight.detach().clone()
    weight[:, :60] = 0.0  # More than half.
    config = QuantConfig(weight_measure="absmedian", granularity=granularity)
    out, expected = bit_linear(x, weight, None, config), F.linear(x, weight)
    assert 0.2 < out.std() / expected.std() < 2.0
    assert F.cosine_similarity(out, expected).mean() > 0.8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("preset", ["b158", "reloaded"])
def test_half_precision(preset, dtype):
    config = QuantConfig.preset(preset)
    x, weight, bias = operands(5, 16, dtype=dtype)
    out = bit_linear(x, weight, bias, config)
    grads = gradients(out, x, weight, bias)
    assert {out.dtype, *(grad.dtype for grad in grads)} == {dtype}
    wide = [leaf.detach().float().requires_grad_() for leaf in (x, weight, bias)]
    expected = bit_linear(*wide, config)
    eps = torch.finfo(dtype).eps
    assert_close(out.float(), expected, rtol=8 * eps, atol=16 * eps)
    for grad, wide_grad in zip(grads, gradients(expected, *wide), strict=True):
        assert_close(grad.float(), wide_grad, rtol=8 * eps, atol=16 * eps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow_where_32_bits_do_not(dtype):
    # 300 values of 200 have a sum of 60,000, that of their integers is 38,100.
    x = torch.full((1, 300), 200.0, dtype=dtype)
    out = bit_linear(x, torch.ones(1, 300, dtype=dtype), None, b158)
    assert_close(out, torch.full((1, 1), 60_000.0, dtype=dtype), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("preset", ["b158", "reloaded"])
def test_autocast(preset, dtype):
    config = QuantConfig.preset(preset)
    x, weight, bias = operands(5, 16, dtype=torch.float32)
    expected = bit_linear(x, weight, bias, config)
    with torch.autocast("cpu", dtype=dtype):
        out = bit_linear(x, weight, bias, config)
    assert out.dtype == dtype
    grads = gradients(out.float(), x, weight, bias)
    assert {grad.dtype for grad in grads} == {torch.float32}
    eps = torch.finfo(dtype).eps
    assert_close(out.float(), expected, rtol=8 * eps, atol=16 * eps)
    for grad, wide in zip(grads, gradients(expected, x, weight, bias), strict=True):
        assert_close(grad, wide, rtol=8 * eps, atol=16 * eps)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("preset", ["b158", "reloaded"])
def test_autocast_of_two_layers(preset, strength):
    config = QuantConfig.preset(preset)
    x, weight, bias = operands(5, 16, out_channels=16, dtype=torch.float32)
    expected = bit_linear(
        bit_linear(x, weight, bias, config, strength), weight, bias, config, strength
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = bit_linear(x, weight, bias, config, strength)
        out = bit_linear(hidden, weight, bias, config, strength)
    assert hidden.dtype == out.dtype == torch.bfloat16
    assert F.cosine_similarity(out.float().flatten(), expected.flatten(), dim=0) > 0.99
    grads = gradients(out.float(), x, weight, bias)
    for grad, wide in zip(grads, gradients(expected, x, weight, bias), strict=True):
        assert grad.dtype == torch.float32
        assert F.cosine_similarity(grad.flatten(), wide.flatten(), dim=0) > 0.99


def test_operands_of_different_types_are_refused():
    x, weight, bias = operands(5, 16)
    for strength in (0.5, 1.0):
        with pytest.raises(RuntimeError, match="dtype"):
            bit_linear(x.float(), weight, bias, b158, strength)
