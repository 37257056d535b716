"""Kernels on sizes around those of their blocks, and on extreme numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitgnn.kernels import graph_attention, native, native_products
from bitgnn.kernels.sparse import csr_matrix
from bitgnn.quant import QuantConfig, quantize_rows

pytestmark = pytest.mark.skipif(not native.enabled(), reason="There are no native kernels")

# One less and one more than vectors (4, 8, 16), cache lines (64), and blocks of rows (24, 64).
SIZES = st.sampled_from(
    [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 63, 64, 65, 129]
)
ROWS = st.one_of(st.just(0), SIZES)
NUMBERS = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 1e-30, 0.5, -0.5, 1.5, 127.0, -128.0, 1e30, 3.4e38]
NOT_FINITE = [float("inf"), float("-inf"), float("nan")]


def numbers(rows, columns, seed, strange=True):
    """Rows of a normal distribution, and some with numbers of the lists above."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator)
    for row in range(0, rows, 3):
        pick = torch.randint(1 << 30, (3,), generator=generator).tolist()
        if row % 2:
            x[row] = NUMBERS[pick[0] % len(NUMBERS)]
        else:
            x[row, pick[1] % columns] = NUMBERS[pick[0] % len(NUMBERS)]
        if strange and pick[2] % 2:
            x[row, pick[2] % columns] = NOT_FINITE[pick[0] % 3]
    return x


def assert_same(found, expected, tolerance=1e-5):
    """Close where the expected numbers are finite, and not finite where they are not."""
    finite = expected.isfinite()
    assert not found[~finite].isfinite().any()
    most = expected[finite].abs().max() if finite.any() else expected.new_ones(())
    error = (found[finite] - expected[finite]).abs()
    assert not found.numel() or (error <= tolerance * most.clamp(min=1e-30)).all()


@settings(max_examples=80)
@given(ROWS, SIZES, st.integers(0, 999), st.sampled_from([2, 4, 8]), st.booleans())
def test_integers_of_rows(rows, columns, seed, bits, full_range):
    x = numbers(rows, columns, seed)
    config = QuantConfig(activation_bits=bits, full_range=full_range)
    found, scale = native.quantize_rows(x, *config.activation_range, config.eps)
    expected, expected_scale = quantize_rows(x, config)
    finite = x.isfinite().all(dim=1)
    assert torch.equal(found[finite], expected[finite])
    assert torch.equal(scale[finite], expected_scale[finite])
    assert not (found * scale)[~finite].isfinite().all(dim=1).any()


@settings(max_examples=80)
@given(ROWS, SIZES, SIZES, st.integers(0, 999))
def test_ternary_products(rows, k, n, seed):
    x = numbers(rows, k, seed)
    weight = torch.randint(-1, 2, (n, k), generator=torch.Generator().manual_seed(seed))
    config = QuantConfig()
    found = native_products.ternary_product(
        x, weight, torch.ones(()), *config.activation_range, config.eps
    )
    x_q, scale = quantize_rows(x, config)
    finite = x.isfinite().all(dim=1)
    assert torch.equal(found[finite], ((x_q @ weight.float().t()) * scale)[finite])
    assert not found[~finite].isfinite().any()  # Nothing of such a row looks like a number.


@settings(max_examples=80)
@given(ROWS, SIZES, SIZES, st.integers(0, 999))
def test_products_of_numbers(rows, k, n, seed):
    x = numbers(rows, k, seed).clamp(-1e15, 1e15)
    weight = torch.randn(n, k, generator=torch.Generator().manual_seed(seed))
    found = native_products.product(x, weight)
    for row in range(rows):
        assert_same(found[row], (x[row].double() @ weight.double().t()).float())


@settings(max_examples=60)
@given(ROWS, SIZES, SIZES, st.integers(0, 999), st.booleans())
def test_gradients_of_weights(rows, k, n, seed, quantized):
    x = numbers(rows, k, seed, strange=False).clamp(-1e9, 1e9)
    grad = torch.randn(rows, n, generator=torch.Generator().manual_seed(seed))
    config = QuantConfig()
    bounds = (*map(float, config.activation_range), config.eps) if quantized else None
    found = native_products.weight_gradient(x, grad, bounds)
    if quantized:
        x_q, scale = quantize_rows(x, config)
        x = x_q * scale
    assert_same(found, (grad.double().t() @ x.double()).float(), tolerance=1e-4)


@st.composite
def edges(draw):
    """A matrix of edges by target: few, none, twice the same, to one target, from one source."""
    targets, sources = draw(SIZES), draw(SIZES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    count = draw(st.sampled_from([0, 1, 15, 16, 17, 64, 65, 127, 128, 129, 400]))
    target = torch.randint(targets, (count,), generator=generator)
    source = torch.randint(sources, (count,), generator=generator)
    shape = draw(st.sampled_from(["any", "hub", "star", "twice"]))
    if shape == "hub":
        target[:] = targets - 1
    if shape == "star":
        source[:] = sources - 1
    if shape == "twice" and count:
        source[:], target[:] = source[0], target[0]
    target = target.sort().values
    crow = torch.zeros(targets + 1, dtype=torch.long)
    crow[1:] = torch.bincount(target, minlength=targets).cumsum(0)
    return csr_matrix(crow, source, torch.ones(count), (targets, sources))


@settings(max_examples=80)
@given(
    edges(),
    st.sampled_from([1, 2, 3, 4, 8, 17, 255, 256, 257, 300]),
    st.sampled_from([1, 2, 5, 8, 16, 33]),
    st.sampled_from(["usual", "large", "equal", "tiny"]),
)
def test_attention_and_its_gradients(adj_t, heads, channels, scores):
    targets, sources = adj_t.shape
    generator = torch.Generator().manual_seed(heads)
    scale = {"usual": 1.0, "large": 1e4, "equal": 0.0, "tiny": 1e-38}[scores]
    operands = [
        torch.randn(sources, heads, channels, generator=generator),
        torch.randn(sources, heads, generator=generator) * scale,
        torch.randn(targets, heads, generator=generator) * scale,
    ]
    found = []
    for on in ("1", "0"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BITGNN_NATIVE", on)
            inputs = [each.clone().requires_grad_() for each in operands]
            out = graph_attention(adj_t, *inputs)
            found.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_scores_that_are_not_finite(value):
    # Of one source: what does not receive from it stays as it is.
    adj_t = torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 0, 0]]).to_sparse_csr()
    x, score = torch.randn(3, 2, 4), torch.randn(3, 2)
    expected = graph_attention(adj_t, x, score, score)
    changed = score.clone()
    changed[0] = value
    found = graph_attention(adj_t, x, changed, score)
    assert torch.equal(found[1:], expected[1:])
