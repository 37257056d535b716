import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bitgnn import QuantConfig
from bitgnn.experiment.cost import weight_bytes
from bitgnn.nn import BitEmbeddingBag, BitLinear
from bitgnn.training.latent import latent_weights

SHAPES = st.tuples(st.integers(0, 6), st.integers(1, 9), st.integers(1, 7))


def bags(num_bags, num_words, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(num_bags, num_words, generator=generator)
    return x * (torch.rand(num_bags, num_words, generator=generator) < 0.5)


@given(SHAPES, st.integers(0, 100))
def test_full_precision_is_torchs_embedding_bag(shape, seed):
    num_bags, num_words, width = shape
    layer = BitEmbeddingBag(num_words, width, quant=None)
    x = bags(num_bags, num_words, seed).to_sparse_csr()
    expected = F.embedding_bag(
        x.col_indices(),
        layer.weight,
        x.crow_indices()[:-1],
        mode="sum",
        per_sample_weights=x.values(),
    )
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("measure", ["absmean", "absmedian"])
@given(shape=SHAPES, seed=st.integers(0, 100))
def test_equals_its_formula(measure, granularity, shape, seed):
    num_bags, num_words, width = shape
    quant = QuantConfig(weight_measure=measure, granularity=granularity)
    layer = BitEmbeddingBag(num_words, width, quant=quant)
    x = bags(num_bags, num_words, seed)

    size = layer.weight.detach().abs()
    if granularity == "tensor":
        scale = size.mean() if measure == "absmean" else size.median()
    else:
        scale = size.mean(dim=0) if measure == "absmean" else size.median(dim=0).values
    embeddings = (layer.weight / scale).round().clamp(-1, 1)
    x_scale = (x.amax(dim=1, keepdim=True) / 127).clamp(min=quant.eps)
    expected = (x / x_scale).round() @ embeddings * x_scale * scale

    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x.to_sparse_csr()), expected)
    weight_q, weight_scale = layer.ternary()
    assert torch.equal(weight_q.t(), embeddings)
    assert torch.equal(weight_scale.flatten(), scale.flatten())


@pytest.mark.parametrize("quant", [None, "b158"])
def test_is_a_bit_linear_turned_round(quant):
    layer = BitEmbeddingBag(12, 5, quant=quant)
    linear = BitLinear(12, 5, bias=False, quant=quant)
    linear.weight.data = layer.weight.detach().t().clone()
    x = bags(8, 12).to_sparse_csr()
    for module in (layer, linear):
        module(x).square().sum().backward()
    torch.testing.assert_close(layer(x), linear(x))
    torch.testing.assert_close(layer.weight.grad, linear.weight.grad.t())


def test_only_words_of_a_bag_get_a_gradient():
    layer = BitEmbeddingBag(4, 3)
    layer(torch.tensor([[0.0, 0.5, 0.0, 1.0]]).to_sparse_csr()).sum().backward()
    assert (layer.weight.grad != 0).any(dim=1).tolist() == [False, True, False, True]


def test_weight_is_stored_word_by_word():
    layer = BitEmbeddingBag(12, 5)
    assert layer.weight.shape == (12, 5) and layer.weight.is_contiguous()
    before = layer.weight.detach().clone()
    layer.reset_parameters()
    assert layer.weight.shape == (12, 5) and not torch.equal(layer.weight, before)
    bound = (6 / 17) ** 0.5
    assert 0.5 * bound < layer.weight.abs().max() <= bound
    copied = copy.deepcopy(layer)
    copied.load_state_dict(layer.state_dict())
    assert torch.equal(copied.weight, layer.weight) and copied.weight.is_contiguous()


def test_counts_as_a_ternary_layer():
    layer = BitEmbeddingBag(12, 5)
    assert latent_weights(layer) == [layer.weight]
    assert weight_bytes(layer) == (60 // 5 + 4, 4 * 60)
    assert latent_weights(BitEmbeddingBag(12, 5, quant=None)) == []


def test_user_errors():
    with pytest.raises(ValueError, match=r"'in_channels' must be the size.*\(got -1\)"):
        BitEmbeddingBag(-1, 5)
    with pytest.raises(ValueError, match="has 32-bit weights: nothing is quantized"):
        BitEmbeddingBag(12, 5, quant=None).ternary()
