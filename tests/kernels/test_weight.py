import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn import quant
from bitgnn.kernels import quantize_weight
from bitgnn.quant import QuantConfig

configs = st.builds(
    QuantConfig,
    weight_measure=st.sampled_from(["absmean", "absmedian", "absmax"]),
    granularity=st.sampled_from(["tensor", "channel"]),
    weight_bits=st.sampled_from([1.58, 2, 4]),
)


def same(weight, config):
    for a, b in zip(
        quantize_weight(weight, config), quant.quantize_weight(weight, config), strict=True
    ):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@given(
    st.integers(0, 9),
    st.integers(0, 9),
    configs,
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_numbers_of_the_reference(rows, columns, config, dtype, transposed, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-8, 9, (rows, columns), generator=generator).to(dtype) / 8
    same(weight.t() if transposed else weight, config)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_what_is_not_finite(odd, granularity):
    weight = torch.randn(3, 8)
    weight[1, 2] = odd
    same(weight, QuantConfig(weight_measure="absmedian", granularity=granularity))


def test_half_precision_and_other_devices_take_torchs_way():
    config = QuantConfig(weight_measure="absmedian")
    same(torch.randn(3, 5).bfloat16(), config)
    weight_q, _ = quantize_weight(torch.empty(3, 5, device="meta"), config)
    assert weight_q.shape == (3, 5) and weight_q.device.type == "meta"


def test_numpy_finds_the_median(monkeypatch):
    asked = []
    monkeypatch.setattr(np, "partition", lambda x, k, axis: asked.append(k) or np.sort(x, axis))
    weight = torch.randn(3, 5, requires_grad=True)
    weight_q, scale = quantize_weight(weight, QuantConfig(weight_measure="absmedian"))
    assert asked == [7] and not weight_q.requires_grad and not scale.requires_grad
    quantize_weight(weight, QuantConfig())
    assert asked == [7]


def test_stochastic_rounding():
    config = QuantConfig(weight_measure="absmedian", rounding="stochastic")
    weight = torch.randn(20, 20)
    torch.manual_seed(1)
    found, _ = quantize_weight(weight, config, training=True)
    torch.manual_seed(1)
    expected, _ = quant.quantize_weight(weight, config, training=True)
    assert torch.equal(found, expected)
