import copy
import gc
import pickle
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from bitgnn.kernels import vouch
from bitgnn.nn import rows as rows_module
from bitgnn.nn.rows import RowQuantizer
from bitgnn.quant import QuantConfig, dequantize_rows, quantize_rows

b158 = QuantConfig()
layouts = pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
presets = pytest.mark.parametrize("preset", ["b158", "reloaded"])
methods = pytest.mark.parametrize("method", ["integers", "rescaled"])


@pytest.fixture
def calls(monkeypatch):
    """The rows that were quantized."""
    seen = []

    def count(x, config):
        seen.append(tuple(x.shape))
        return quantize_rows(x, config)

    monkeypatch.setattr(rows_module, "quantize_rows", count)
    return seen


def call(rows, method, x):
    vouch(x)
    return getattr(rows, method)(x, training=True)


def normalized(x, preset):
    return F.layer_norm(x, x.shape[-1:]) if preset == "reloaded" else x


@presets
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("shape", [(4, 8), (2, 3, 8), (0, 8)])
def test_integers(shape, requires_grad, preset):
    torch.manual_seed(12345)
    config = QuantConfig.preset(preset)
    x = torch.randn(shape, requires_grad=requires_grad)
    row = RowQuantizer(config).integers(x)
    values, scale = quantize_rows(normalized(x, preset), config)
    assert torch.equal(row.values, values)
    assert torch.equal(row.scale, scale)
    assert not row.values.requires_grad and not row.scale.requires_grad
    assert row.x.shape == x.shape
    if requires_grad:  # Through `row.x`, the gradient finds its way to `x`.
        grad = torch.randn(shape)
        (grad_x,) = torch.autograd.grad(row.x, x, grad)
        (expected,) = torch.autograd.grad(normalized(x, preset).clone(), x, grad)
        assert torch.equal(grad_x, expected)


@presets
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_rescaled(strength, requires_grad, preset):
    torch.manual_seed(12345)
    config = QuantConfig.preset(preset)
    x = torch.randn(4, 8, requires_grad=requires_grad)
    source = normalized(x, preset)
    target = dequantize_rows(*quantize_rows(source, config))
    expected = source + strength * (target - source).detach()
    out, scale = RowQuantizer(config).rescaled(x, strength)
    assert_close(out, expected)
    assert torch.equal(scale, quantize_rows(source, config)[1])
    assert out.requires_grad == requires_grad
    if requires_grad:
        grad = torch.randn(4, 8)
        (grad_x,) = torch.autograd.grad(out, x, grad)
        assert_close(grad_x, torch.autograd.grad(expected, x, grad)[0])


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_rescaled_without_quantization(strength):
    x = torch.randn(4, 8, requires_grad=True)
    out, scale = RowQuantizer(b158.replace(activation_bits=None)).rescaled(x, strength)
    assert out is x
    assert scale == 1.0
    config = b158.replace(activation_bits=None, layer_norm=True)
    out, _ = RowQuantizer(config).rescaled(x, strength)
    assert torch.equal(out, F.layer_norm(x, (8,)))


@presets
@layouts
def test_sparse_rows_equal_dense_rows(layout, preset):
    torch.manual_seed(12345)
    x = torch.randn(4, 8).relu()
    sparse = x.to_sparse(layout=layout)
    rows = RowQuantizer(QuantConfig.preset(preset))
    expected, row = rows.integers(x), rows.integers(sparse)
    assert torch.equal(row.values.to_dense(), expected.values)
    assert torch.equal(row.scale, expected.scale)
    assert torch.equal(rows.rescaled(sparse)[0].to_dense(), rows.rescaled(x)[0])


@layouts
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_strength_of_sparse_rows(strength, layout):
    torch.manual_seed(12345)
    x = torch.randn(4, 8).relu()
    out, _ = RowQuantizer(b158).rescaled(x.to_sparse(layout=layout), strength)
    assert out.layout == layout
    assert_close(out.to_dense(), RowQuantizer(b158).rescaled(x, strength)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rescaled_rows_keep_their_dtype(dtype):
    x = torch.randn(4, 8).to(dtype)
    for form in (x, x.clone().requires_grad_(), x.to_sparse(), x.to_sparse_csr()):
        out, scale = RowQuantizer(b158).rescaled(form)
        assert out.dtype == dtype
        assert scale.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@methods
@presets
@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr])
def test_static_rows_are_quantized_once_and_stay_the_same(layout, preset, method, calls):
    torch.manual_seed(12345)
    x = torch.randn(4, 8)
    x = x if layout == torch.strided else x.to_sparse(layout=layout)
    rows = RowQuantizer(QuantConfig.preset(preset))
    expected = getattr(RowQuantizer(rows.config), method)(x)
    calls.clear()
    for _ in range(6):
        out = call(rows, method, x)
        for a, b in zip(out[-2:], expected[-2:], strict=True):  # What was computed, and its scale.
            assert torch.equal(a.to_dense(), b.to_dense())
    assert calls == [(4, 8)] * 2


@methods
def test_rows_that_need_a_gradient_are_never_kept(method, calls):
    x = torch.randn(4, 8, requires_grad=True)
    rows = RowQuantizer(b158)
    for _ in range(4):
        call(rows, method, x)
    assert len(calls) == 4
    out = call(rows, method, x)[0]
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], torch.ones(4, 8))


@methods
def test_changed_rows_are_quantized_again(method, calls):
    x = torch.randn(4, 8)
    rows = RowQuantizer(b158)
    for _ in range(4):
        call(rows, method, x)
    x.add_(1.0)
    out, expected = call(rows, method, x), getattr(RowQuantizer(b158), method)(x)
    for a, b in zip(out[-2:], expected[-2:], strict=True):  # What was computed, and its scale.
        assert torch.equal(a, b)
    call(rows, method, torch.randn(4, 8))
    assert len(calls) == 5


@methods
def test_strength_below_one_uses_what_is_kept(method, calls):
    x = torch.randn(4, 8)
    rows = RowQuantizer(b158)
    vouch(x)
    for step in range(5):
        strength = step / 4
        out, _ = rows.rescaled(x, strength, training=True)
        assert_close(out, torch.lerp(x, RowQuantizer(b158).rescaled(x)[0], strength))
    assert len(calls) == 5 + 2


@methods
@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr])
def test_rows_are_not_kept_alive(layout, method):
    x = torch.randn(4, 8)
    x = x if layout == torch.strided else x.to_sparse(layout=layout)
    rows = RowQuantizer(b158)
    for _ in range(4):
        call(rows, method, x)
    alive = weakref.ref(x)
    del x
    gc.collect()
    assert alive() is None


@methods
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda rows: pickle.loads(pickle.dumps(rows))]
)
def test_copies_do_not_carry_what_is_kept(duplicate, method, calls):
    x = torch.randn(100, 100)
    rows = RowQuantizer(QuantConfig(activation_bits=4))
    for _ in range(4):
        call(rows, method, x)
    assert len(pickle.dumps(rows)) < 2000
    other = duplicate(rows)
    assert other.config == rows.config
    call(other, method, x)
    assert len(calls) == 3
