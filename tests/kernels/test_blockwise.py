import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.kernels import blockwise, blockwise_linear, pays_blockwise, quantized_linear
from bitgnn.nn import BitLinear, static_inputs
from bitgnn.quant import QuantConfig, quantize_rows, quantize_weight

pytestmark = pytest.mark.usefixtures("form")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    # Several blocks, and a last one that is smaller, without large tensors.
    monkeypatch.setattr(blockwise, "BLOCK", 64)


def both_forms(x, weight, bias, config):
    quantized = quantize_weight(weight, config)
    blocks = blockwise_linear(x, weight, bias, *quantized, config)
    rows = quantize_rows(x, config)
    whole = quantized_linear(x, weight, bias, *rows, *quantized, config.rescale_bias)
    return blocks, whole


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("with_bias", [False, True], ids=["no_bias", "bias"])
@pytest.mark.parametrize("preset", ["b158", "reloaded"])
def test_blockwise_linear_equals_the_whole(granularity, with_bias, preset):
    torch.manual_seed(0)
    config = QuantConfig.preset(preset, granularity=granularity)
    x = torch.randn(37, 10, requires_grad=True)
    weight = torch.randn(5, 10, requires_grad=True)
    bias = torch.randn(5, requires_grad=True) if with_bias else None
    blocks, whole = both_forms(x, weight, bias, config)
    assert torch.equal(blocks, whole)

    leaves = [leaf for leaf in (x, weight, bias) if leaf is not None]
    grad = torch.randn_like(whole)
    for mine, oracle in zip(
        torch.autograd.grad(blocks, leaves, grad),
        torch.autograd.grad(whole, leaves, grad),
        strict=True,
    ):
        assert torch.allclose(mine, oracle, atol=1e-5)


@given(st.integers(0, 50), st.integers(1, 200), st.integers(1, 5), st.integers(0, 2**32))
def test_blockwise_linear_of_any_shape(num_rows, in_channels, out_channels, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, in_channels, generator=generator)
    weight = torch.randn(out_channels, in_channels, generator=generator)
    blocks, whole = both_forms(x, weight, None, QuantConfig())
    assert torch.equal(blocks, whole)


def test_blockwise_linear_with_more_dimensions():
    torch.manual_seed(0)
    x, weight = torch.randn(3, 7, 10), torch.randn(5, 10)
    blocks, whole = both_forms(x, weight, torch.randn(5), QuantConfig())
    assert blocks.shape == (3, 7, 5)
    assert torch.equal(blocks, whole)


def test_rows_that_change_before_the_backward_pass_are_noticed():
    x, weight = torch.randn(20, 10), torch.randn(5, 10, requires_grad=True)
    out, _ = both_forms(x, weight, None, QuantConfig())
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_pays_blockwise(monkeypatch):
    monkeypatch.setattr(blockwise, "PAYS", 100)
    config = QuantConfig()
    assert not pays_blockwise(torch.randn(10, 10), config)
    assert pays_blockwise(torch.randn(11, 10), config)
    assert not pays_blockwise(torch.randn(11, 10).to_sparse(), config)


def test_large_rows_go_block_by_block(monkeypatch):
    # In the layer, both forms give the same numbers; static rows are quantized as a whole.
    torch.manual_seed(0)
    lin, x = BitLinear(10, 5), torch.randn(30, 10)
    expected = lin(x).detach()
    calls = []
    monkeypatch.setattr(
        "bitgnn.nn.functional.blockwise_linear",
        lambda *args: calls.append(args) or blockwise_linear(*args),
    )
    monkeypatch.setattr(blockwise, "PAYS", 100)
    for _ in range(3):
        out = lin(x.clone())  # Never the same memory twice: not static.
        assert torch.equal(out, expected)
    assert len(calls) == 3
    with static_inputs(x):
        for _ in range(3):
            out = lin(x)
            assert torch.equal(out, expected)
    assert len(calls) <= 4
