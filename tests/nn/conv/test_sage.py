import pytest
import torch
from torch_geometric.nn import SAGEConv
from torch_geometric.testing import assert_module, withPackage
from torch_geometric.typing import SparseTensor

from bitgnn import QuantConfig
from bitgnn.nn import BitLinear, BitSAGEConv

EDGE_INDEX = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
MEAN = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("aggr", ["mean", "sum", "max"])
def test_sage_conv(project, aggr):
    x = torch.randn(4, 8)
    conv = BitSAGEConv(8, 32, project=project, aggr=aggr)
    assert str(conv) == f"BitSAGEConv(8, 32, aggr={aggr})"
    out = assert_module(conv, x, EDGE_INDEX, expected_size=(4, 32), atol=1e-6)
    assert torch.equal(conv(x, EDGE_INDEX, size=(4, 4)), out)

    # Test bipartite message passing:
    x1, x2 = torch.randn(4, 8), torch.randn(2, 16)
    conv = BitSAGEConv((8, 16), 32, project=project, aggr=aggr)
    assert str(conv) == f"BitSAGEConv((8, 16), 32, aggr={aggr})"
    assert_module(conv, (x1, x2), EDGE_INDEX, expected_size=(2, 32), atol=1e-6)
    assert_module(conv, (x1, None), EDGE_INDEX, size=(4, 2), expected_size=(2, 32), atol=1e-6)


def test_sage_conv_equals_its_formula(oracle):
    x = torch.randn(4, 8)
    conv = BitSAGEConv(8, 32)
    torch.nn.init.normal_(conv.lin_l.bias)

    rows = oracle.rows(x)
    expected = oracle.linear(MEAN @ rows, conv.lin_l.weight, conv.lin_l.bias)
    expected = expected + rows @ oracle.ternary(conv.lin_r.weight).t()
    assert torch.allclose(conv(x, EDGE_INDEX), expected, atol=1e-5)


def test_sage_conv_with_project_equals_its_formula(oracle):
    x = torch.randn(4, 8)
    conv = BitSAGEConv(8, 32, project=True, normalize=True)
    sources = oracle.rows(oracle.linear(x, conv.lin.weight, conv.lin.bias).relu())
    expected = oracle.linear(MEAN @ sources, conv.lin_l.weight, conv.lin_l.bias)
    expected = expected + oracle.linear(x, conv.lin_r.weight)
    expected = torch.nn.functional.normalize(expected, dim=-1)
    assert torch.allclose(conv(x, EDGE_INDEX), expected, atol=1e-5)


@pytest.mark.parametrize("quant", ["b158", "reloaded"])
def test_sage_conv_shares_its_rows(quant):
    conv = BitSAGEConv(8, 32, quant=quant)
    seen = {}
    conv.register_message_forward_hook(lambda m, inputs, x_j: seen.update(x_j=x_j))
    conv.lin_r.register_forward_pre_hook(lambda m, inputs: seen.update(x_r=inputs[0]))
    conv(torch.randn(4, 8), EDGE_INDEX)
    # What the neighbours send and what `lin_r` receives are the very same rows, on the
    # grid of 8 bits, and `lin_r` does not quantize them a second time.
    assert torch.equal(seen["x_j"], seen["x_r"][EDGE_INDEX[0]])
    bound = 127 if quant == "b158" else 128
    scale = seen["x_r"].abs().amax(dim=-1, keepdim=True) / bound
    if quant == "b158":
        codes = seen["x_r"] / scale
        assert torch.allclose(codes, codes.round(), atol=1e-4)
    assert conv.lin_r.quant == conv.quant.replace(activation_bits=None, layer_norm=False)
    assert conv.lin_l.quant == conv.quant


def test_sage_conv_quantizes_a_batch_like_the_graph():
    # Targets that are the first of the sources, as neighbor sampling yields them.
    x = torch.randn(4, 8)
    conv = BitSAGEConv((8, 8), 32)
    out = conv((x, x[:2]), EDGE_INDEX)
    # Equal but for the order of sums in 32 bits: a library multiplies two rows otherwise than four.
    assert torch.allclose(out, conv((x, x), EDGE_INDEX)[:2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation_bits", [None, 4, 8])
def test_sage_conv_activation_bits(activation_bits):
    x = torch.randn(4, 8)
    conv = BitSAGEConv(8, 32, quant=QuantConfig(activation_bits=activation_bits))
    original = SAGEConv(8, 32)
    state = conv.state_dict()
    for name in ("lin_l", "lin_r"):
        values, scale = getattr(conv, name).ternary()
        state[f"{name}.weight"] = values * scale
    original.load_state_dict(state)
    error = (conv(x, EDGE_INDEX) - original(x, EDGE_INDEX)).abs().max()
    bound = {None: 1e-6, 8: 0.05, 4: 0.8}[activation_bits]
    assert error <= bound
    assert activation_bits is None or error > 1e-4


@pytest.mark.parametrize("project", [False, True])
def test_lazy_sage_conv(project):
    if project:
        with pytest.raises(ValueError, match="'BitSAGEConv' does not support lazy"):
            BitSAGEConv(-1, 32, project=project)
    else:
        conv = BitSAGEConv((-1, -1), 32)
        out = conv((torch.randn(4, 8), torch.randn(2, 16)), EDGE_INDEX)
        assert out.size() == (2, 32)
        assert str(conv.lin_l) == "BitLinear(8, 32, bias=True)"
        assert conv.lin_r.in_channels == 16


def test_lstm_aggr_sage_conv():
    x = torch.randn(4, 8)
    conv = BitSAGEConv(8, 32, aggr="lstm")
    assert str(conv) == "BitSAGEConv(8, 32, aggr=lstm)"
    assert_module(
        conv, x, EDGE_INDEX, expected_size=(4, 32), test_edge_permutation=False, atol=1e-5
    )
    with pytest.raises(ValueError, match="'index' tensor is not sorted"):
        conv(x, torch.tensor([[0, 1, 2, 3], [1, 0, 1, 0]]))


@pytest.mark.parametrize(
    "aggr_kwargs",
    [
        {"mode": "cat"},
        {"mode": "proj", "mode_kwargs": {"in_channels": 8, "out_channels": 16}},
        {"mode": "attn", "mode_kwargs": {"in_channels": 8, "out_channels": 16, "num_heads": 4}},
        {"mode": "sum"},
    ],
    ids=lambda kwargs: kwargs["mode"],
)
def test_multi_aggr_sage_conv(aggr_kwargs):
    kwargs = {**aggr_kwargs, "aggrs_kwargs": [{}, {}, {}, {"learn": True, "t": 1}]}
    conv = BitSAGEConv(8, 32, aggr=["mean", "max", "sum", "softmax"], aggr_kwargs=kwargs)
    assert_module(conv, torch.randn(4, 8), EDGE_INDEX, expected_size=(4, 32), atol=1e-5)
    # What the aggregation learns itself stays in 32 bits.
    assert not [m for m in conv.aggr_module.modules() if isinstance(m, BitLinear)]


@withPackage("torch_sparse")
def test_sage_conv_ignores_the_values_of_a_sparse_tensor():
    x = torch.randn(4, 8)
    conv = BitSAGEConv(8, 32)
    adj = SparseTensor.from_edge_index(EDGE_INDEX, torch.rand(4), (4, 4))
    assert torch.allclose(conv(x, adj.t()), conv(x, EDGE_INDEX), atol=1e-6)


def test_sage_conv_without_root_weight(oracle):
    x = torch.randn(4, 8)
    conv = BitSAGEConv(8, 32, root_weight=False, bias=False)
    assert not hasattr(conv, "lin_r")
    expected = oracle.linear(MEAN @ oracle.rows(x), conv.lin_l.weight)
    assert torch.allclose(conv(x, EDGE_INDEX), expected, atol=1e-5)
