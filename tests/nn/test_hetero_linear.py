import copy
import pickle

import pytest
import torch
import torch_geometric.backend
from torch.nn.parameter import UninitializedParameter
from torch.testing import assert_close
from torch_geometric.nn import HeteroLinear

from bitgnn.nn import BitHeteroLinear, BitLinear, set_strength
from bitgnn.quant import QuantConfig

configs = [
    QuantConfig(),
    QuantConfig(weight_measure="absmedian", granularity="channel"),
    QuantConfig(weight_bits=4, layer_norm=True),
    QuantConfig(activation_bits=None),
]
with_config = pytest.mark.parametrize(
    "quant", configs, ids=["b158", "channel", "layer_norm", "float"]
)
type_vecs = pytest.mark.parametrize(
    "type_vec,is_sorted",
    [([0, 0, 1, 1, 2], False), ([2, 1, 0, 2, 1], False), ([0, 0, 1, 2, 2], True), ([1] * 5, True)],
    ids=["in-order", "shuffled", "sorted", "one-type"],
)


def single_layers(lin):
    """One BitLinear a type, with copies of its weights."""
    out = []
    for i in range(lin.num_types):
        bit = BitLinear(
            lin.in_channels, lin.out_channels, bias=lin.bias is not None, quant=lin.quant
        ).to(lin.weight.dtype)
        with torch.no_grad():
            bit.weight.copy_(lin.weight[i].t())
            if lin.bias is not None:
                bit.bias.copy_(lin.bias[i])
        bit.strength = lin.strength
        out.append(bit.train(lin.training))
    return out


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("bias", [True, False])
@type_vecs
@with_config
def test_bit_hetero_linear_equals_one_layer_a_type(quant, type_vec, is_sorted, bias, strength):
    torch.manual_seed(12345)
    lin = BitHeteroLinear(16, 8, 3, is_sorted, quant=quant, bias=bias).double()
    lin.strength = strength
    lins = single_layers(lin)
    x1 = torch.randn(5, 16, dtype=torch.float64, requires_grad=True)
    x2 = x1.detach().clone().requires_grad_()
    out1 = lin(x1, torch.tensor(type_vec))
    out2 = torch.cat([lins[kind](x2[i : i + 1]) for i, kind in enumerate(type_vec)])
    assert_close(out1, out2)

    grad = torch.randn_like(out1)
    out1.backward(grad)
    out2.backward(grad)
    assert_close(x1.grad, x2.grad)
    for i in range(3):
        weight_grad = torch.zeros(16, 8, dtype=torch.float64)
        if lins[i].weight.grad is not None:
            weight_grad = lins[i].weight.grad.t()
        assert_close(lin.weight.grad[i], weight_grad)
        if bias and lins[i].bias.grad is not None:
            assert_close(lin.bias.grad[i], lins[i].bias.grad)


@pytest.mark.parametrize("lazy", [True, False])
@type_vecs
def test_full_precision_equals_pyg_to_the_last_bit(type_vec, is_sorted, lazy):
    x, type_vec = torch.randn(5, 16), torch.tensor(type_vec)
    results = []
    for kind, kwargs in ((BitHeteroLinear, {"quant": None}), (HeteroLinear, {})):
        torch.manual_seed(12345)
        lin = kind(-1 if lazy else 16, 8, 3, is_sorted, **kwargs)
        out = lin(x, type_vec)
        out.pow(2).sum().backward()
        results.append([out, lin.weight, lin.bias, lin.weight.grad, lin.bias.grad])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("quant", [None, "b158"])
def test_identical_initialization(quant):
    kwargs = {"weight_initializer": "glorot", "bias_initializer": "zeros"}
    torch.manual_seed(12345)
    lin1 = BitHeteroLinear(16, 8, 3, quant=quant, **kwargs)
    torch.manual_seed(12345)
    lin2 = HeteroLinear(16, 8, 3, **kwargs)
    assert torch.equal(lin1.weight, lin2.weight)
    assert torch.equal(lin1.bias, torch.zeros(3, 8))
    assert str(lin1) == "BitHeteroLinear(16, 8, num_types=3, bias=True)"
    lin1.load_state_dict(lin2.state_dict(), strict=True)
    lin2.load_state_dict(lin1.state_dict(), strict=True)


def test_lazy_bit_hetero_linear():
    x, type_vec = torch.randn(5, 16), torch.tensor([2, 1, 0, 2, 1])
    lin = BitHeteroLinear(-1, 8, 3)
    assert str(lin) == "BitHeteroLinear(-1, 8, num_types=3, bias=True)"
    assert isinstance(lin.weight, UninitializedParameter)
    assert lin(x, type_vec).size() == (5, 8)
    assert str(lin) == "BitHeteroLinear(16, 8, num_types=3, bias=True)"


@pytest.mark.parametrize("use_segment_matmul", [None, True, False])
def test_any_of_pygs_ways_to_multiply_segments(use_segment_matmul, monkeypatch):
    monkeypatch.setattr(torch_geometric.backend, "use_segment_matmul", use_segment_matmul)
    lin, x = BitHeteroLinear(16, 8, 3), torch.randn(5, 16)
    type_vec = torch.tensor([2, 1, 0, 2, 1])
    lins = single_layers(lin)
    expected = torch.cat([lins[kind](x[i : i + 1]) for i, kind in enumerate(type_vec.tolist())])
    assert_close(lin(x, type_vec), expected)
    type_ptr = torch.tensor([0, 2, 4, 5])
    segments = [lins[i](x[start:end]) - lins[i].bias for i, start, end in [(0, 0, 2), (1, 2, 4)]]
    assert_close(lin.forward_segmm(x, type_ptr)[:4], torch.cat(segments))


def test_no_rows():
    lin = BitHeteroLinear(16, 8, 3, is_sorted=True)
    out = lin.forward_naive(torch.randn(0, 16), torch.zeros(4, dtype=torch.long))
    assert out.size() == (0, 8)


def test_rescaled_bias_is_refused():
    message = "'BitHeteroLinear' adds its bias after the rescale; use a configuration with 'resc"
    with pytest.raises(ValueError, match=message):
        BitHeteroLinear(16, 8, 3, quant="reloaded")
    with pytest.raises(ValueError, match=message):
        BitHeteroLinear.from_linear(HeteroLinear(16, 8, 3), "reloaded")


def test_quant_argument():
    with pytest.raises(ValueError, match="No preset is called 'b2'"):
        BitHeteroLinear(16, 8, 3, quant="b2")
    with pytest.raises(TypeError, match="'quant' must be a QuantConfig"):
        BitHeteroLinear(16, 8, 3, quant=2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_from_linear(is_sorted, bias):
    lin = HeteroLinear(16, 8, 3, is_sorted, bias=bias, weight_initializer="glorot").eval()
    state = torch.get_rng_state()
    bit = BitHeteroLinear.from_linear(lin, QuantConfig(weight_bits=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert type(bit) is BitHeteroLinear
    assert bit.weight is lin.weight and bit.bias is lin.bias
    assert bit.quant == QuantConfig(weight_bits=2)
    assert (bit.num_types, bit.is_sorted, bit.training) == (3, is_sorted, False)
    assert bit.kwargs == lin.kwargs
    assert list(bit.state_dict()) == list(lin.state_dict())

    x, type_vec = torch.randn(5, 16), torch.tensor([0, 0, 1, 2, 2])
    full = BitHeteroLinear.from_linear(lin, None)
    assert torch.equal(full(x, type_vec), lin(x, type_vec))
    assert not torch.equal(bit(x, type_vec), lin(x, type_vec))


def test_from_lazy_linear():
    x, type_vec = torch.randn(5, 16), torch.tensor([2, 1, 0, 2, 1])
    bit = BitHeteroLinear.from_linear(HeteroLinear(-1, 8, 3))
    assert str(bit) == "BitHeteroLinear(-1, 8, num_types=3, bias=True)"
    torch.manual_seed(12345)
    assert bit(x, type_vec).size() == (5, 8)
    assert bit.in_channels == 16 and not hasattr(bit, "_hook")
    torch.manual_seed(12345)
    lin = HeteroLinear(-1, 8, 3)
    torch.manual_seed(12345)
    lin(x, type_vec)
    assert torch.equal(bit.weight, lin.weight)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda lin: pickle.loads(pickle.dumps(lin))])
def test_copies(duplicate, lazy):
    x, type_vec = torch.randn(5, 16), torch.tensor([2, 1, 0, 2, 1])
    lin1 = BitHeteroLinear(-1 if lazy else 16, 8, 3, quant=QuantConfig(weight_bits=2))
    lin2 = duplicate(lin1)
    assert type(lin2) is BitHeteroLinear and lin2.quant == lin1.quant
    assert lin2(x, type_vec).size() == (5, 8)
    if not lazy:
        assert torch.equal(lin1(x, type_vec), lin2(x, type_vec))


def test_set_strength():
    lin, x = BitHeteroLinear(16, 8, 3), torch.randn(5, 16)
    type_vec = torch.tensor([2, 1, 0, 2, 1])
    set_strength(lin, 0.0)
    expected = BitHeteroLinear.from_linear(lin, None)(x, type_vec)
    assert_close(lin(x, type_vec), expected)
    set_strength(lin, 1.0)
    assert not torch.allclose(lin(x, type_vec), expected)


def test_stochastic_rounding_in_training_only():
    lin, x = BitHeteroLinear(16, 8, 3, quant=QuantConfig(rounding="stochastic")), torch.randn(5, 16)
    type_vec = torch.tensor([2, 1, 0, 2, 1])
    torch.manual_seed(12345)
    assert not torch.equal(lin(x, type_vec), lin(x, type_vec))
    lin.eval()
    assert torch.equal(lin(x, type_vec), lin(x, type_vec))
