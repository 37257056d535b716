import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from bitgnn.quant import QuantConfig, quantize_weight, weight_scale

bits = st.sampled_from([1.58, 2, 3, 4, 5, 6, 7, 8])
measures = st.sampled_from(["absmean", "absmedian", "absmax"])
granularities = st.sampled_from(["tensor", "channel"])
configs = st.builds(
    QuantConfig, weight_bits=bits, weight_measure=measures, granularity=granularities
)
ternary_configs = configs.map(lambda config: config.replace(weight_bits=1.58))


@st.composite
def weights(draw, dtype=torch.float32):
    """Random matrices, some with many zeros, some on a grid where ties of rounding occur."""
    shape = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    weight = torch.randn(shape, generator=generator, dtype=dtype)
    keep = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return (weight * 4).round() / 8 if draw(st.booleans()) else weight * keep


@st.composite
def grids(draw):
    """Multiples of 1/8 in 64 bits: sums are exact and ties of rounding are frequent."""
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    eighths = st.sampled_from([0] * 20 + list(range(-16, 17)))
    row = st.lists(eighths.map(lambda n: n / 8), min_size=columns, max_size=columns)
    return draw(st.lists(row, min_size=rows, max_size=rows))


def oracle(rows, bits, measure, eps):
    """The formula, in Python's numbers, with one scale for all rows."""
    size = sorted(abs(w) for row in rows for w in row)
    top = 1 if bits == 1.58 else 2 ** (bits - 1) - 1
    low = -1 if bits == 1.58 else -(2 ** (bits - 1))
    if measure == "absmax":
        scale = size[-1] / top
    else:
        scale, median = sum(size) / len(size), size[(len(size) - 1) // 2]
        if measure == "absmedian" and median > eps:
            scale = median
        scale = scale if bits == 1.58 else scale * (2 / top**0.5)
    scale = max(scale, eps)
    return [[min(max(round(w / scale), low), top) for w in row] for row in rows], scale


@given(grids(), configs)
def test_quantize_weight_equals_the_formula(rows, config):
    weight_q, scale = quantize_weight(torch.tensor(rows, dtype=torch.float64), config)
    args = config.weight_bits, config.weight_measure, config.eps
    if config.granularity == "tensor":
        expected_q, expected_scale = oracle(rows, *args)
    else:
        parts = [oracle([row], *args) for row in rows]
        expected_q = [part[0][0] for part in parts]
        expected_scale = [[part[1]] for part in parts]
    assert weight_q.tolist() == expected_q
    assert scale.tolist() == expected_scale


@given(weights(), configs)
def test_quantize_weight_returns_integers_in_range(weight, config):
    weight_q, scale = quantize_weight(weight, config)
    low, high = config.weight_range
    assert weight_q.shape == weight.shape
    assert weight_q.dtype == scale.dtype == torch.float32
    assert scale.shape == (() if config.granularity == "tensor" else (weight.size(0), 1))
    assert torch.equal(weight_q, weight_q.round())
    assert low <= weight_q.min() and weight_q.max() <= high
    assert scale.min() >= config.eps


@given(weights(), ternary_configs)
def test_ternary_weights_keep_their_sign_and_follow_the_threshold(weight, config):
    weight_q, scale = quantize_weight(weight, config)
    assert set(weight_q.flatten().tolist()) <= {-1.0, 0.0, 1.0}
    nonzero = weight_q != 0
    assert torch.equal(weight_q[nonzero], weight[nonzero].sign())
    threshold = scale / 2
    clear = (weight.abs() - threshold).abs() > 1e-6 * scale  # Not a tie, up to float rounding.
    assert torch.equal(nonzero[clear], (weight.abs() > threshold)[clear])


@given(weights(), configs, st.integers(-8, 8))
def test_quantize_weight_is_scale_equivariant(weight, config, exponent):
    weight_q, scale = quantize_weight(weight, config)
    assume(bool((scale > 1e-3).all()))  # Far from `eps`.
    scaled_q, scaled_scale = quantize_weight(weight * 2.0**exponent, config)
    assert torch.equal(scaled_q, weight_q)
    assert torch.equal(scaled_scale, scale * 2.0**exponent)


@given(weights(), ternary_configs)
def test_ternary_weights_are_a_fixed_point(weight, config):
    weight_q, scale = quantize_weight(weight, config)
    assert torch.equal(quantize_weight(weight_q * scale, config)[0], weight_q)


@given(weights(), bits.filter(lambda bits: bits != 1.58))
def test_absmax_error_is_at_most_half_a_step(weight, bits):
    config = QuantConfig(weight_bits=bits, weight_measure="absmax", granularity="channel")
    weight_q, scale = quantize_weight(weight, config)
    assert bool(((weight_q * scale - weight).abs() <= scale * 0.5001).all())
    nonzero = weight.abs().amax(dim=1) > 0
    assert bool((weight_q.abs().amax(dim=1)[nonzero] == config.weight_range[1]).all())


def test_rounding_is_half_to_even():
    # The scale is 1, so that 0.5, 1.5, 2.5 and 3.5 are exact ties.
    weight = torch.tensor([[0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 1.0, 1.0]])
    weight_q, scale = quantize_weight(weight, QuantConfig())
    assert scale == 1.0
    assert weight_q.tolist() == [[0, 0, 1, -1, 1, -1, 1, 1]]
    weight = torch.tensor([[7.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 3.5]])
    weight_q, scale = quantize_weight(weight, QuantConfig(weight_bits=4, weight_measure="absmax"))
    assert scale == 1.0
    assert weight_q[0].tolist() == [7, 0, 0, 2, -2, 2, -2, 4]


def test_absmedian_is_the_lower_of_two_middles():
    config = QuantConfig(weight_measure="absmedian")
    assert weight_scale(torch.tensor([[1.0, -2.0, 4.0, -8.0]]), config) == 2.0
    assert weight_scale(torch.tensor([[1.0, -2.0], [4.0, -8.0]]), config) == 2.0
    assert weight_scale(torch.tensor([[1.0, -2.0, 4.0]]), config) == 2.0
    config = config.replace(granularity="channel")
    weight = torch.tensor([[1.0, -2.0, 4.0, -8.0], [-9.0, 5.0, 7.0, 3.0]])
    assert weight_scale(weight, config).tolist() == [[2.0], [5.0]]


def test_k_bit_scale():
    weight = torch.tensor([[1.0, -3.0, 2.0], [6.0, 0.0, 0.0]])
    for bits, top in [(2, 1), (4, 7), (8, 127)]:
        config = QuantConfig(weight_bits=bits)
        assert torch.allclose(weight_scale(weight, config), torch.tensor(2 * 2.0 / top**0.5))
        absmax = config.replace(weight_measure="absmax")
        assert torch.allclose(weight_scale(weight, absmax), torch.tensor(6.0 / top))


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("measure", ["absmean", "absmedian", "absmax"])
@pytest.mark.parametrize("bits", [1.58, 2, 8])
def test_all_zero_weight(bits, measure, granularity):
    config = QuantConfig(bits, measure, granularity, eps=1e-6)
    weight_q, scale = quantize_weight(torch.zeros(3, 4), config)
    assert torch.equal(weight_q, torch.zeros(3, 4))
    assert bool((scale <= 1.2e-6).all()) and bool((scale >= 0.9e-6).all())


def test_scale_is_clamped_at_eps():
    weight = torch.tensor([[1e-9, -1e-9], [1.0, -1.0]])
    for measure in ("absmean", "absmax", "absmedian"):
        config = QuantConfig(weight_measure=measure, granularity="channel", eps=1e-4)
        weight_q, scale = quantize_weight(weight, config)
        assert torch.equal(scale, torch.tensor([[1e-4], [1.0]]))
        assert weight_q.tolist() == [[0.0, 0.0], [1.0, -1.0]]


def test_absmean_stands_in_for_a_collapsed_absmedian():
    weight = torch.tensor([[0.0, 0.0, 0.0, 4.0, -4.0], [1.0, 2.0, 3.0, 4.0, 9.0]])
    config = QuantConfig(weight_measure="absmedian")
    weight_q, scale = quantize_weight(weight[:1], config)
    assert scale == 8 / 5
    assert weight_q.tolist() == [[0.0, 0.0, 0.0, 1.0, -1.0]]
    # Each channel is judged by itself.
    scale = weight_scale(weight, config.replace(granularity="channel"))
    assert scale.flatten().tolist() == pytest.approx([8 / 5, 3.0])
    scale = weight_scale(weight[:1], config.replace(weight_bits=4))
    assert scale == pytest.approx(8 / 5 * 2 / 7**0.5)


def test_stochastic_rounding_applies_in_training_only():
    torch.manual_seed(12345)
    weight = torch.randn(16, 32)
    config = QuantConfig(rounding="stochastic")
    nearest = quantize_weight(weight, QuantConfig())[0]
    state = torch.get_rng_state()
    assert torch.equal(quantize_weight(weight, config)[0], nearest)
    assert torch.equal(quantize_weight(weight, QuantConfig(), training=True)[0], nearest)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(quantize_weight(weight, config, training=True)[0], nearest)


@pytest.mark.parametrize("bits", [1.58, 4])
def test_stochastic_rounding_is_unbiased(bits):
    torch.manual_seed(12345)
    weight = torch.randn(6, 8)
    config = QuantConfig(weight_bits=bits, rounding="stochastic")
    low, high = config.weight_range
    num_draws = 3000
    draws = torch.stack(
        [quantize_weight(weight, config, training=True)[0] for _ in range(num_draws)]
    )
    assert torch.equal(draws, draws.round())
    assert low <= draws.min() and draws.max() <= high
    expected = (weight / weight_scale(weight, config)).clamp(low, high)
    assert bool(((draws - expected).abs() < 1).all())  # One of the two neighbours.
    # The standard error is at most 0.5 / sqrt(3000) < 0.01.
    assert bool(((draws.mean(dim=0) - expected).abs() < 0.05).all())
    assert abs((draws.mean(dim=0) - expected).mean()) < 0.01


@given(weights(), configs)
def test_stochastic_rounding_stays_in_range(weight, config):
    config = config.replace(rounding="stochastic")
    low, high = config.weight_range
    weight_q, scale = quantize_weight(weight, config, training=True)
    assert torch.equal(weight_q, weight_q.round())
    assert low <= weight_q.min() and weight_q.max() <= high
    assert torch.equal(scale, weight_scale(weight, config))
    assert bool((weight_q[weight == 0] == 0).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scale_has_at_least_32_bits(dtype):
    torch.manual_seed(12345)
    weight = torch.randn(300, 300).to(dtype)
    weight_q, scale = quantize_weight(weight, QuantConfig())
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert weight_q.dtype == scale.dtype == wide
    assert torch.equal(scale, weight.to(wide).abs().mean())
    assert torch.equal(weight_q, quantize_weight(weight.to(wide), QuantConfig())[0])


@pytest.mark.parametrize("value", [1e-30, 1e30])
def test_tiny_and_huge_weights(value):
    weight = torch.tensor([[value, -value, 0.0, value]])
    weight_q, scale = quantize_weight(weight, QuantConfig(weight_measure="absmedian"))
    assert torch.isfinite(scale)
    assert weight_q.tolist() == ([[0, 0, 0, 0]] if value < 1 else [[1, -1, 0, 1]])


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
@pytest.mark.parametrize("measure", ["absmean", "absmedian", "absmax"])
def test_empty_weight(shape, measure):
    config = QuantConfig(weight_measure=measure)
    weight_q, scale = quantize_weight(torch.empty(shape), config)
    assert weight_q.shape == shape
    assert scale == pytest.approx(config.eps)
    scale = weight_scale(torch.empty(shape), config.replace(granularity="channel"))
    assert scale.shape == (shape[0], 1)


def test_quantize_weight_leaves_the_latent_weight_alone():
    for dtype in (torch.float32, torch.float16):
        weight = torch.nn.Parameter(torch.randn(4, 8).to(dtype))
        before = weight.detach().clone()
        for rounding in ("nearest", "stochastic"):
            config = QuantConfig(rounding=rounding)
            weight_q, scale = quantize_weight(weight, config, training=True)
            assert torch.equal(weight, before)
            assert not weight_q.requires_grad and not scale.requires_grad
