import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn import quant
from bitgnn.kernels import native, quantize_rows
from bitgnn.kernels.rows import round_rows
from bitgnn.quant import QuantConfig

from .conftest import csr

pytestmark = pytest.mark.usefixtures("form")

configs = st.builds(QuantConfig, activation_bits=st.integers(2, 8), full_range=st.booleans())


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.layout == b.layout
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@given(
    st.lists(st.integers(0, 70), min_size=1, max_size=3),
    st.sampled_from([torch.float32, torch.float64]),
    configs,
    st.integers(0, 2**32),
)
def test_dense_rows_equal_the_reference_to_the_last_bit(shape, dtype, config, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    x = x * 10.0 ** torch.randint(-12, 30, (*shape[:-1], 1), generator=generator)
    x = x * (torch.rand(shape, generator=generator) < 0.7)
    same(quantize_rows(x, config), quant.quantize_rows(x, config))


@given(csr(), configs)
def test_sparse_rows_equal_the_reference_to_the_last_bit(x, config):
    same(quantize_rows(x, config), quant.quantize_rows(x, config))


def test_sparse_rows_of_32_bit_indices():
    x = torch.randn(3, 5).to_sparse_csr()
    other = torch.sparse_csr_tensor(x.crow_indices().int(), x.col_indices().int(), x.values())
    found = quantize_rows(other, QuantConfig())
    expected = quantize_rows(x, QuantConfig())
    assert torch.equal(found[0].values(), expected[0].values())
    assert torch.equal(found[1], expected[1])


def test_ties_round_to_even():
    x = torch.tensor([[127.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 126.5]])
    x_q, scale = quantize_rows(x, QuantConfig())
    assert x_q.tolist() == [[127, 0, 0, 2, -2, 2, -2, 126]] and scale.tolist() == [[1.0]]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("width", [3, 40])
def test_what_is_not_finite_spoils_its_own_row_only(odd, width):
    x = torch.randn(4, width)
    x[2, 1] = odd
    x_q, scale = quantize_rows(x, QuantConfig())
    assert (x_q * scale)[[0, 1, 3]].isfinite().all() and (x_q * scale)[2].isnan().all()
    same((x_q, scale), quant.quantize_rows(x, QuantConfig()))


def test_columns_of_a_matrix_in_other_order():
    x = torch.randn(30, 20).t()
    same(quantize_rows(x, QuantConfig()), quant.quantize_rows(x.contiguous(), QuantConfig()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_takes_torchs_way(dtype):
    x = torch.randn(3, 5).to(dtype)
    same(quantize_rows(x, QuantConfig()), quant.quantize_rows(x, QuantConfig()))


def test_nothing_is_asked_of_gradients():
    x = torch.randn(3, 5, requires_grad=True)
    assert not any(each.requires_grad for each in quantize_rows(x, QuantConfig()))


@given(st.integers(1, 40), configs)
def test_integers_of_rows_whose_scale_is_known(width, config):
    x = torch.randn(5, width)
    x_q, scale = quantize_rows(x, config)
    assert torch.equal(round_rows(x, scale, config), x_q)


def test_the_native_kernel_is_asked(form, monkeypatch):
    asked = []
    monkeypatch.setattr(
        native, "quantize_rows", lambda *args: asked.append(args) or (args[0], args[0])
    )
    quantize_rows(torch.randn(3, 5), QuantConfig())
    quantize_rows(torch.eye(3).to_sparse_csr(), QuantConfig())
    assert len(asked) == (2 if form == "native" else 0)
