import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.quant import QuantConfig, dequantize_rows, quantize_rows

configs = st.builds(QuantConfig, activation_bits=st.integers(2, 8), full_range=st.booleans())
symmetric = configs.map(lambda config: config.replace(full_range=False))
layouts = st.sampled_from([torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])


@st.composite
def grids(draw):
    """Multiples of 1/8, where ties of rounding and rows of zeros are frequent."""
    columns = draw(st.integers(1, 8))
    row = st.lists(
        (st.integers(-16, 16) | st.just(0)).map(lambda n: n / 8),
        min_size=columns,
        max_size=columns,
    )
    return draw(st.lists(row, min_size=1, max_size=6))


@st.composite
def rows(draw, dtype=torch.float32):
    """Random matrices with zeros and with rows of very different size."""
    shape = draw(st.integers(0, 6)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(shape, generator=generator, dtype=dtype)
    x = x * (torch.rand(shape, generator=generator) < draw(st.sampled_from([0.2, 1.0])))
    exponents = torch.randint(-4, 30, (shape[0], 1), generator=generator)
    return x * 10.0**exponents


def oracle(rows, bits, full_range, eps=1e-8):
    """The formula, in Python's numbers."""
    top = 2 ** (bits - 1) - 1
    low = -top - 1 if full_range else -top
    scales = [max(max(abs(x) for x in row) / -low, eps) for row in rows]
    return [
        [min(max(round(x / scale), low), top) for x in row]
        for row, scale in zip(rows, scales, strict=True)
    ], scales


@given(grids(), configs)
def test_quantize_rows_equals_the_formula(rows, config):
    x_q, scale = quantize_rows(torch.tensor(rows, dtype=torch.float64), config)
    expected_q, expected_scale = oracle(rows, config.activation_bits, config.full_range)
    assert x_q.tolist() == expected_q
    assert scale.flatten().tolist() == expected_scale


@given(rows(), configs)
def test_quantize_rows_returns_integers_in_range(x, config):
    x_q, scale = quantize_rows(x, config)
    low, high = config.activation_range
    assert x_q.shape == x.shape and scale.shape == (x.size(0), 1)
    assert x_q.dtype == scale.dtype == torch.float32
    assert torch.equal(x_q, x_q.round())
    assert bool((x_q >= low).all()) and bool((x_q <= high).all())
    assert bool((x_q * x >= 0).all())


@given(rows(), symmetric)
def test_row_error_is_at_most_half_a_step(x, config):
    x_q, scale = quantize_rows(x, config)
    assert bool(((dequantize_rows(x_q, scale) - x).abs() <= scale * 0.50002).all())


@given(rows(), symmetric)
def test_largest_entry_of_a_row_gets_the_largest_integer(x, config):
    x_q, _ = quantize_rows(x, config)
    absmax = x.abs().amax(dim=-1)
    expected = torch.where(absmax > 0, config.activation_range[1], 0).float()
    free = (absmax == 0) | (absmax > 128 * config.eps)  # Not clamped at `eps`.
    assert torch.equal(x_q.abs().amax(dim=-1)[free], expected[free])


@given(rows(), symmetric, st.integers(-3, 3))
def test_quantize_rows_is_scale_equivariant(x, config, exponent):
    x_q, scale = quantize_rows(x, config.replace(eps=1e-30))
    scaled_q, scaled_scale = quantize_rows(x * 2.0**exponent, config.replace(eps=1e-30))
    assert torch.equal(scaled_q, x_q)
    nonzero = x.abs().amax(dim=-1) > 0
    assert torch.equal(scaled_scale[nonzero], scale[nonzero] * 2.0**exponent)


@given(rows(), symmetric)
def test_quantized_rows_are_a_fixed_point(x, config):
    x_q, scale = quantize_rows(x, config)
    again_q, again_scale = quantize_rows(dequantize_rows(x_q, scale), config)
    assert torch.equal(again_q, x_q)
    assert torch.allclose(again_scale, scale, rtol=1e-6, atol=0)


def test_rounding_is_half_to_even():
    x = torch.tensor([[127.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 3.5]])
    x_q, scale = quantize_rows(x, QuantConfig())
    assert scale.tolist() == [[1.0]]
    assert x_q.tolist() == [[127, 0, 0, 2, -2, 2, -2, 4]]


def test_full_range():
    x = torch.tensor([[128.0, 1.0], [-128.0, 1.0]])
    x_q, scale = quantize_rows(x, QuantConfig(full_range=True))
    assert scale.tolist() == [[1.0], [1.0]]
    assert x_q.tolist() == [[127, 1], [-128, 1]]  # Only the negative end reaches 128.


def test_rows_of_zeros_and_constant_rows():
    x = torch.tensor([[0.0, 0.0], [3.0, 3.0], [-0.1, -0.1], [0.0, 0.0]])
    x_q, scale = quantize_rows(x, QuantConfig())
    assert x_q.tolist() == [[0, 0], [127, 127], [-127, -127], [0, 0]]
    assert torch.allclose(scale.flatten(), torch.tensor([1e-8, 3 / 127, 0.1 / 127, 1e-8]))


def test_scale_is_clamped_at_eps():
    x = torch.tensor([[1e-30, -1e-30], [1e-3, -2e-3], [1e30, -2e30]])
    x_q, scale = quantize_rows(x, QuantConfig(eps=1e-3))
    assert x_q.tolist() == [[0, 0], [1, -2], [64, -127]]
    assert torch.allclose(scale, torch.tensor([[1e-3], [1e-3], [2e30 / 127]]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr])
def test_non_finite_values_spoil_their_row_only(bad, layout):
    torch.manual_seed(12345)
    x = torch.randn(4, 5)
    x_q, scale = quantize_rows(x, QuantConfig())
    x[1, 3] = bad
    x = x if layout == torch.strided else x.to_sparse(layout=layout)
    spoiled_q, spoiled_scale = quantize_rows(x, QuantConfig())
    out = dequantize_rows(spoiled_q, spoiled_scale).to_dense()
    assert torch.isnan(out[1]).all()
    rest = [0, 2, 3]
    assert torch.equal(spoiled_q.to_dense()[rest], x_q[rest])
    assert torch.equal(spoiled_scale[rest], scale[rest])


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0), (2, 0, 4), (2, 3, 0)])
def test_empty_rows(shape):
    x_q, scale = quantize_rows(torch.empty(shape), QuantConfig())
    assert x_q.shape == shape
    assert scale.shape == (*shape[:-1], 1)
    assert torch.isfinite(scale).all()


@pytest.mark.parametrize("shape", [(5,), (2, 3, 5), (2, 1, 3, 5)])
def test_rows_of_any_dimension(shape):
    torch.manual_seed(12345)
    x = torch.randn(shape)
    x_q, scale = quantize_rows(x, QuantConfig())
    assert scale.shape == (*shape[:-1], 1)
    flat_q, flat_scale = quantize_rows(x.view(-1, 5), QuantConfig())
    assert torch.equal(x_q.view(-1, 5), flat_q)
    assert torch.equal(scale.view(-1, 1), flat_scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scale_has_at_least_32_bits(dtype):
    torch.manual_seed(12345)
    x = torch.randn(8, 16).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for form in (x, x.to_sparse(), x.to_sparse_csr()):
        x_q, scale = quantize_rows(form, QuantConfig())
        assert x_q.dtype == scale.dtype == wide
        expected_q, expected_scale = quantize_rows(x.to(wide), QuantConfig())
        assert torch.equal(x_q.to_dense(), expected_q)
        assert torch.equal(scale, expected_scale)


@given(rows(), configs, layouts)
def test_sparse_rows_equal_dense_rows(x, config, layout):
    x_q, scale = quantize_rows(x, config)
    sparse_q, sparse_scale = quantize_rows(x.to_sparse(layout=layout), config)
    # Rows lie together in CSR matrices alone; any other becomes a COO matrix.
    kept = torch.sparse_csr if layout == torch.sparse_csr else torch.sparse_coo
    assert sparse_q.layout == kept and (layout == torch.sparse_csr or sparse_q.is_coalesced())
    assert torch.equal(sparse_q.to_dense(), x_q)
    assert torch.equal(sparse_scale, scale)
    dequantized = dequantize_rows(sparse_q, sparse_scale)
    assert dequantized.layout == kept
    assert torch.equal(dequantized.to_dense(), dequantize_rows(x_q, scale))


def test_sparse_rows_with_entries_stored_twice():
    index = torch.tensor([[0, 0, 1], [1, 1, 0]])
    x = torch.sparse_coo_tensor(index, torch.tensor([1.0, 3.0, 2.0]), (3, 2), check_invariants=True)
    x_q, scale = quantize_rows(x, QuantConfig())
    assert x_q.to_dense().tolist() == [[0, 127], [127, 0], [0, 0]]
    assert torch.allclose(scale, torch.tensor([[4 / 127], [2 / 127], [1e-8]]))


def test_quantize_rows_leaves_its_input_alone():
    for x in (torch.randn(4, 8), torch.randn(4, 8).half(), torch.randn(4, 8).to_sparse()):
        before = x.clone()
        x_q, scale = quantize_rows(x.requires_grad_(), QuantConfig())
        assert torch.equal(x.detach().to_dense(), before.to_dense())
        assert not x_q.requires_grad and not scale.requires_grad


def test_csr_rows_share_their_places():
    # What was found out about the places of values, such as how to transpose them, stays true.
    x = torch.randn(4, 8).relu().to_sparse_csr()
    x_q, scale = quantize_rows(x, QuantConfig())
    for out in (x_q, dequantize_rows(x_q, scale)):
        assert out.crow_indices().data_ptr() == x.crow_indices().data_ptr()
        assert out.col_indices().data_ptr() == x.col_indices().data_ptr()
