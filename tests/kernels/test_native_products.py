import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.kernels import native, native_products, quantize_rows
from bitgnn.quant import QuantConfig, dequantize_rows

built = pytest.mark.skipif(native._native is None, reason="There are no native kernels")

SHAPES = st.integers(0, 70), st.integers(1, 90), st.integers(1, 70), st.integers(0, 2**32)


def operands(rows, k, n, seed):
    generator = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(rows, k, generator=generator), torch.randn(n, k, generator=generator)
    return x, weight, torch.randint(-1, 2, (n, k), generator=generator)


def assert_close(actual, expected):
    """Equal but for the rounding of sums in 32 bits, against an oracle in 64."""
    assert actual.shape == expected.shape and actual.dtype == torch.float32
    assert torch.allclose(actual.double(), expected, rtol=1e-5, atol=2e-5)


@built
@given(*SHAPES)
def test_product(rows, k, n, seed):
    x, weight, ternary = operands(rows, k, n, seed)
    assert_close(native_products.product(x, weight), x.double() @ weight.double().t())
    # Integers, and the transpose of something: what is packed is a copy.
    expected = x.double() @ ternary.double().t()
    assert_close(native_products.product(x, ternary.t().contiguous().t()), expected)


@built
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 4, 2])
@given(*SHAPES, st.booleans())
def test_ternary_product(bits, full_range, rows, k, n, seed, channel):
    x, weight, ternary = operands(rows, k, n, seed)
    config = QuantConfig(activation_bits=bits, full_range=full_range)
    scale = weight.abs().mean(dim=1, keepdim=True) if channel else weight.abs().mean()
    out = native_products.ternary_product(x, ternary, scale, *config.activation_range, config.eps)
    x_q, x_scale = quantize_rows(x, config)
    assert torch.equal(out, (x_q @ ternary.float().t()) * x_scale * scale.view(-1))


@built
@given(*SHAPES)
def test_integer_product(rows, k, n, seed):
    generator = torch.Generator().manual_seed(seed)
    x_q = torch.randint(-128, 128, (rows, k), generator=generator).float()
    ternary = torch.randint(-1, 2, (n, k), generator=generator).float()
    assert torch.equal(native_products.integer_product(x_q, ternary), x_q @ ternary.t())


@built
@pytest.mark.parametrize("full_range", [False, True])
@given(*SHAPES)
def test_weight_gradient(full_range, rows, k, n, seed):
    x, _, _ = operands(rows, k, n, seed)
    grad = torch.randn(rows, n, generator=torch.Generator().manual_seed(seed))
    assert_close(native_products.weight_gradient(x, grad), grad.double().t() @ x.double())
    config = QuantConfig(full_range=full_range)
    rounded = dequantize_rows(*quantize_rows(x, config)).double()
    found = native_products.weight_gradient(x, grad, (*config.activation_range, config.eps))
    assert_close(found, grad.double().t() @ rounded)


@built
def test_products_do_not_depend_on_the_number_of_threads():
    x, weight, ternary = operands(1000, 70, 50, 0)
    grad, found = torch.randn(1000, 50), []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        bounds = -127, 127, 1e-8
        found.append(
            [
                native_products.product(x, weight),
                native_products.ternary_product(x, ternary, torch.ones(1), *bounds),
                native_products.weight_gradient(x, grad),
                native_products.weight_gradient(x, grad, bounds),
            ]
        )
    torch.set_num_threads(threads)
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


@built
def test_products_of_rows_that_are_not_finite():
    x, _, ternary = operands(5, 20, 6, 0)
    x[1, 3], x[3, 0] = float("nan"), float("inf")
    out = native_products.ternary_product(x, ternary, torch.ones(1), -127, 127, 1e-8)
    assert out[[1, 3]].isnan().all() and out[[0, 2, 4]].isfinite().all()


@pytest.mark.parametrize("bits", [torch.float32, torch.float64])
def test_multiplies_says_where_native_products_are_the_faster_ones(monkeypatch, bits):
    x, weight = torch.randn(20, 10, dtype=bits), torch.randn(5, 10, dtype=bits)
    assert not native_products.multiplies(x, weight)
    monkeypatch.setattr(native_products, "MANY", 100)
    assert native_products.multiplies(x, weight) == (native.enabled() and bits == torch.float32)
    assert not native_products.multiplies(x.to_sparse(), weight)
    monkeypatch.setenv("BITGNN_NATIVE", "0")
    assert not native_products.multiplies(x, weight)
