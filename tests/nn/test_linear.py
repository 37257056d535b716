import copy
import io
import pickle
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch.nn.parameter import UninitializedParameter
from torch.testing import assert_close
from torch_geometric.data import HeteroData
from torch_geometric.nn import Linear, SAGEConv, to_hetero

from bitgnn.kernels import vouch
from bitgnn.nn import BitLinear, set_strength
from bitgnn.nn import rows as rows_module
from bitgnn.quant import QuantConfig, quantize_rows, quantize_weight

weight_inits = ["glorot", "uniform", "kaiming_uniform", None]
bias_inits = ["zeros", None]
quants = [None, "b158", "reloaded", QuantConfig(weight_measure="absmedian", granularity="channel")]
with_quant = pytest.mark.parametrize("quant", quants, ids=["None", "b158", "reloaded", "absmedian"])


class ReferenceLinear(torch.nn.Module):
    """The default mathematics in a dozen lines, with the usual detach trick."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight = torch.nn.Parameter(weight.detach().clone())
        self.bias = torch.nn.Parameter(bias.detach().clone())

    def forward(self, x):
        x_scale = (x.detach().abs().amax(dim=-1, keepdim=True) / 127).clamp(min=1e-8)
        x_q = (x / x_scale).round().clamp(-127, 127)
        weight_scale = self.weight.detach().abs().mean().clamp(min=1e-8)
        weight_q = (self.weight / weight_scale).round().clamp(-1, 1)
        x = x + (x_q * x_scale - x).detach()
        weight = self.weight + (weight_q * weight_scale - self.weight).detach()
        return F.linear(x, weight, self.bias)


@with_quant
@pytest.mark.parametrize("weight,bias", list(product(weight_inits, bias_inits)))
def test_bit_linear(weight, bias, quant):
    x = torch.randn(3, 4, 16)
    lin = BitLinear(16, 32, weight_initializer=weight, bias_initializer=bias, quant=quant)
    assert str(lin).startswith("BitLinear(16, 32, bias=True")
    assert (lin.in_features, lin.out_features) == (lin.in_channels, lin.out_channels) == (16, 32)
    assert lin(x).size() == (3, 4, 32)
    assert lin(x[0, 0]).size() == (32,)


@with_quant
@pytest.mark.parametrize("weight,bias", list(product(weight_inits, bias_inits)))
def test_lazy_bit_linear(weight, bias, quant):
    x = torch.randn(3, 4, 16)
    lin = BitLinear(-1, 32, weight_initializer=weight, bias_initializer=bias, quant=quant)
    assert isinstance(lin.weight, UninitializedParameter)
    assert str(lin).startswith("BitLinear(-1, 32, bias=True")
    assert lin(x).size() == (3, 4, 32)
    assert str(lin).startswith("BitLinear(16, 32, bias=True")
    assert lin.in_features == 16


@with_quant
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("weight,bias", list(product(weight_inits, bias_inits)))
def test_identical_initialization(weight, bias, lazy, quant):
    x = torch.randn(3, 4, 16)
    in_channels = -1 if lazy else 16
    kwargs = {"weight_initializer": weight, "bias_initializer": bias}

    torch.manual_seed(12345)
    lin1 = BitLinear(in_channels, 32, quant=quant, **kwargs)
    lin1(x)
    state1 = torch.get_rng_state()

    torch.manual_seed(12345)
    lin2 = Linear(in_channels, 32, **kwargs)
    lin2(x)

    assert torch.equal(lin1.weight, lin2.weight)
    assert torch.equal(lin1.bias, lin2.bias)
    assert torch.equal(torch.get_rng_state(), state1)


def test_reset_parameters():
    lin = BitLinear(16, 32)
    before = lin.weight.detach().clone()
    torch.manual_seed(12345)
    lin.reset_parameters()
    assert not torch.equal(lin.weight, before)
    torch.manual_seed(12345)
    assert torch.equal(lin.weight, Linear(16, 32).weight)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 16), (3, 4, 16), (16,), (0, 16)])
def test_full_precision_equals_pyg_to_the_last_bit(shape, bias):
    x = torch.randn(shape)
    torch.manual_seed(12345)
    lin1 = BitLinear(16, 32, bias=bias, quant=None)
    torch.manual_seed(12345)
    lin2 = Linear(16, 32, bias=bias)
    outs = []
    for lin in (lin1, lin2):
        leaf = x.clone().requires_grad_()
        out = lin(leaf)
        out.pow(2).sum().backward()
        outs.append([out, leaf.grad, *(p.grad for p in lin.parameters())])
    assert len(outs[0]) == 3 + bias
    for a, b in zip(*outs, strict=True):
        assert torch.equal(a, b)
    assert list(lin1.state_dict()) == list(lin2.state_dict())


@pytest.mark.parametrize("shape", [(5, 16), (3, 4, 16), (0, 16)])
def test_output_and_gradients_equal_the_reference(shape):
    torch.manual_seed(12345)
    lin = BitLinear(16, 8).double()
    reference = ReferenceLinear(lin.weight, lin.bias)
    x1 = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    x2 = x1.detach().clone().requires_grad_()
    out1, out2 = lin(x1), reference(x2)
    assert_close(out1, out2)
    grad = torch.randn_like(out1)
    out1.backward(grad)
    out2.backward(grad)
    assert_close(x1.grad, x2.grad)
    assert_close(lin.weight.grad, reference.weight.grad)
    assert_close(lin.bias.grad, reference.bias.grad)


def test_bias_is_added_after_the_rescale():
    lin = BitLinear(16, 8)
    x = torch.randn(5, 16)
    with torch.no_grad():
        out = lin(x)
        lin.bias.add_(1000.0)
        assert_close(lin(x), out + 1000.0, rtol=0, atol=1e-3)


def test_five_steps_of_training_equal_the_reference():
    torch.manual_seed(12345)
    x = torch.randn(64, 16, dtype=torch.float64)
    y = torch.randn(64, 4, dtype=torch.float64)
    lins = torch.nn.Sequential(BitLinear(16, 32), torch.nn.ReLU(), BitLinear(32, 4)).double()
    reference = copy.deepcopy(lins)
    reference[0] = ReferenceLinear(lins[0].weight, lins[0].bias)
    reference[2] = ReferenceLinear(lins[2].weight, lins[2].bias)
    before = lins[0].ternary()[0]

    losses = []
    for model in (lins, reference):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    assert losses[:5] == pytest.approx(losses[5:], rel=1e-9)
    assert losses[4] < losses[0]
    for a, b in zip(lins.parameters(), reference.parameters(), strict=True):
        assert_close(a, b)
    assert not torch.equal(lins[0].ternary()[0], before)  # Integers did change sides.


@pytest.mark.parametrize("measure", ["absmean", "absmedian"])
def test_ternary(measure):
    lin = BitLinear(16, 32, quant=QuantConfig(weight_measure=measure, rounding="stochastic"))
    weight_q, scale = lin.ternary()
    size = lin.weight.detach().abs().flatten().sort().values
    # The lower of the two middles of 512 values.
    assert_close(scale, size.mean() if measure == "absmean" else size[255])
    expected = (lin.weight / scale).round().clamp(-1, 1)
    assert torch.equal(weight_q, expected)
    assert not weight_q.requires_grad and not scale.requires_grad


@pytest.mark.parametrize("quant", [None, QuantConfig(weight_bits=None)])
def test_ternary_of_32_bit_weights(quant):
    lin = BitLinear(16, 32, quant=quant)
    with pytest.raises(ValueError, match=r"'BitLinear\(16, 32, .*' has 32-bit weights"):
        lin.ternary()


def test_quant_argument():
    assert BitLinear(16, 32).quant == QuantConfig()
    assert BitLinear(16, 32, quant="reloaded").quant == QuantConfig.preset("reloaded")
    with pytest.raises(ValueError, match="No preset is called 'b2'"):
        BitLinear(16, 32, quant="b2")
    with pytest.raises(TypeError, match="'quant' must be a QuantConfig"):
        BitLinear(16, 32, quant=8)


def test_repr_shows_what_differs_from_the_default():
    assert str(BitLinear(16, 32)) == "BitLinear(16, 32, bias=True)"
    assert str(BitLinear(16, 32, bias=False)) == "BitLinear(16, 32, bias=False)"
    lin = BitLinear(16, 32, quant=QuantConfig(weight_bits=4, weight_measure="absmedian"))
    expected = "BitLinear(16, 32, bias=True, weight_bits=4, weight_measure=absmedian)"
    assert str(lin) == expected
    assert "layer_norm=True" in str(BitLinear(16, 32, quant="reloaded"))


@with_quant
@pytest.mark.parametrize("bias", [True, False])
def test_state_dict_is_that_of_pyg(bias, quant):
    lin1, lin2 = BitLinear(16, 32, bias=bias, quant=quant), Linear(16, 32, bias=bias)
    assert list(lin1.state_dict()) == list(lin2.state_dict())
    lin1.load_state_dict(lin2.state_dict(), strict=True)
    assert torch.equal(lin1.weight, lin2.weight)
    lin1.reset_parameters()
    lin2.load_state_dict(lin1.state_dict(), strict=True)
    assert torch.equal(lin1.weight, lin2.weight)
    lin3 = torch.nn.Linear(16, 32, bias=bias)
    lin3.load_state_dict(lin1.state_dict(), strict=True)
    assert torch.equal(lin1.weight, lin3.weight)


@pytest.mark.parametrize("lazy1", [True, False])
@pytest.mark.parametrize("lazy2", [True, False])
def test_state_dict_of_lazy_layers(lazy1, lazy2):
    x = torch.randn(5, 16)
    lin1, lin2 = BitLinear(-1 if lazy1 else 16, 32), BitLinear(-1 if lazy2 else 16, 32)
    lin1.load_state_dict(lin2.state_dict(), strict=True)
    if lazy2:
        assert isinstance(lin1.weight, UninitializedParameter)
        assert lin1.in_channels == -1
    else:
        assert torch.equal(lin1.weight, lin2.weight)
        assert torch.equal(lin1(x), lin2(x))
    assert lin1(x).size() == (5, 32)
    assert lin1.in_channels == 16 and not hasattr(lin1, "_hook")


def test_state_dict_goes_through_a_file():
    lin1, lin2 = BitLinear(16, 32), BitLinear(16, 32)
    file = io.BytesIO()
    torch.save(lin1.state_dict(), file)
    file.seek(0)
    lin2.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(5, 16)
    assert torch.equal(lin1(x), lin2(x))


@with_quant
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda lin: pickle.loads(pickle.dumps(lin))],
    ids=["copy", "pickle"],
)
def test_copies(duplicate, lazy, quant):
    x = torch.randn(5, 16)
    lin1 = BitLinear(-1 if lazy else 16, 32, quant=quant)
    lin1.strength = 0.5
    lin2 = duplicate(lin1)
    assert type(lin2) is BitLinear
    assert lin2.quant == lin1.quant and lin2.strength == 0.5
    assert lin2(x).size() == (5, 32)
    if lazy:
        assert isinstance(lin1.weight, UninitializedParameter)
    else:
        assert torch.equal(lin1(x), lin2(x))
        with torch.no_grad():
            lin2.weight.zero_()
        assert not torch.equal(lin1.weight, lin2.weight)


def test_copy_does_not_carry_static_rows():
    lin, x = BitLinear(512, 2), torch.randn(1000, 512)
    size = len(pickle.dumps(lin))
    for _ in range(3):
        lin(x)
    assert len(pickle.dumps(lin)) == size
    assert torch.equal(copy.deepcopy(lin)(x), lin(x))


def test_static_features_are_quantized_once_in_training(monkeypatch):
    calls = []

    def count(x, config):
        calls.append(x)
        return quantize_rows(x, config)

    monkeypatch.setattr(rows_module, "quantize_rows", count)
    lin, x = BitLinear(16, 8), torch.randn(5, 16)
    vouch(x)
    expected = copy.deepcopy(lin).eval()(x)
    calls.clear()
    for _ in range(5):
        assert torch.equal(lin(x), expected)
        assert torch.equal(lin(x.detach()), expected)  # As SGConv's cache hands it over.
    assert len(calls) == 2
    x.mul_(2.0)
    assert_close(lin(x), 2 * (expected - lin.bias) + lin.bias)
    assert len(calls) == 3

    calls.clear()
    lin.eval()
    y = torch.randn(5, 16)
    for _ in range(3):
        lin(y)
    assert len(calls) == 3


def test_to_another_dtype():
    lin, x = BitLinear(16, 8), torch.randn(5, 16)
    expected = lin(x)
    out = lin.to(torch.float64)(x.double())
    assert out.dtype == torch.float64
    assert_close(out.float(), expected)
    for dtype in (torch.float16, torch.bfloat16):
        out = lin.to(dtype)(x.to(dtype))
        assert out.dtype == dtype
        assert_close(out.float(), expected, rtol=0.05, atol=0.05)


def test_to_the_meta_device():
    lin = BitLinear(16, 8).to("meta")
    assert lin(torch.randn(5, 16, device="meta")).size() == (5, 8)
    lin = lin.to_empty(device="cpu")
    lin.reset_parameters()
    assert lin(torch.randn(5, 16)).size() == (5, 8)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@with_quant
def test_sparse_features_equal_dense_features(layout, quant):
    x = torch.randn(5, 16).relu()
    lin = BitLinear(16, 8, quant=quant)
    assert_close(lin(x.to_sparse(layout=layout)), lin(x))
    lazy = BitLinear(-1, 8, quant=quant)
    assert lazy(x.to_sparse(layout=layout)).size() == (5, 8)


def test_strength():
    x = torch.randn(5, 16)
    lin = BitLinear(16, 8)
    full, out = F.linear(x, lin.weight, lin.bias), lin(x)
    lin.strength = 0.0
    assert torch.equal(lin(x), full)
    lin.strength = 0.5
    assert not torch.equal(lin(x), full) and not torch.equal(lin(x), out)
    lin.strength = 1.0
    assert torch.equal(lin(x), out)
    assert "strength" not in lin.state_dict()
    lin.load_state_dict(lin.state_dict(), strict=True)
    model = torch.nn.Sequential(lin, Linear(8, 4), BitLinear(4, 2))
    set_strength(model, 0.25)
    assert model[0].strength == model[2].strength == 0.25


def test_stochastic_rounding_in_training_only():
    torch.manual_seed(12345)
    x = torch.randn(5, 16)
    lin = BitLinear(16, 32, quant=QuantConfig(rounding="stochastic"))
    assert not torch.equal(lin(x), lin(x))
    lin.eval()
    assert torch.equal(lin(x), lin(x))
    assert torch.equal(lin(x), BitLinear.from_linear(lin, "b158")(x))


@pytest.mark.parametrize("kind", [Linear, torch.nn.Linear, BitLinear])
@pytest.mark.parametrize("bias", [True, False])
def test_from_linear(bias, kind):
    lin = kind(16, 32, bias=bias).eval()
    state = torch.get_rng_state()
    bit = BitLinear.from_linear(lin, QuantConfig(weight_bits=4))
    assert torch.equal(torch.get_rng_state(), state)
    assert type(bit) is BitLinear
    assert bit.weight is lin.weight and bit.bias is lin.bias
    assert bit.quant == QuantConfig(weight_bits=4)
    assert not bit.training
    assert str(bit) == f"BitLinear(16, 32, bias={bias}, weight_bits=4)"
    assert list(bit.state_dict()) == list(lin.state_dict())

    full = BitLinear.from_linear(lin, None)
    x = torch.randn(5, 16)
    assert torch.equal(full(x), F.linear(x, lin.weight, lin.bias))


def test_from_linear_keeps_the_initializers():
    lin = Linear(16, 32, weight_initializer="glorot", bias_initializer="zeros")
    bit = BitLinear.from_linear(lin)
    torch.manual_seed(12345)
    bit.reset_parameters()
    weight = lin.weight.detach().clone()
    torch.manual_seed(12345)
    lin.reset_parameters()
    assert torch.equal(lin.weight, weight)
    assert torch.equal(bit.bias, torch.zeros(32))


def test_from_lazy_linear():
    x = torch.randn(5, 16)
    torch.manual_seed(12345)
    lin = Linear(-1, 32)
    bit = BitLinear.from_linear(lin)
    assert str(bit) == "BitLinear(-1, 32, bias=True)"
    assert copy.deepcopy(bit)(x).size() == (5, 32)
    torch.manual_seed(12345)
    bit(x)
    assert bit.in_channels == 16 and not hasattr(bit, "_hook")
    torch.manual_seed(12345)
    assert torch.equal(bit.weight, Linear(16, 32).weight)


@pytest.mark.parametrize(
    "module", [torch.nn.Bilinear(2, 3, 4), torch.nn.LazyLinear(3), torch.nn.ReLU(), None]
)
def test_from_something_else(module):
    with pytest.raises(TypeError, match=r"'linear' must be a .* initialized torch.nn.Linear \(got"):
        BitLinear.from_linear(module)


def test_use_inside_of_sequential():
    torch.manual_seed(12345)
    model = torch.nn.Sequential(
        BitLinear(-1, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), BitLinear(32, 4)
    )
    x = torch.randn(40, 16)
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    model(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert (model.eval()(x).argmax(dim=1) == y).float().mean() > 0.9


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("requires_grad", [False, True])
@with_quant
def test_compile_without_graph_breaks(quant, requires_grad, backend):
    torch._dynamo.reset()
    torch.manual_seed(12345)
    lin1 = BitLinear(16, 8, quant=quant)
    lin2 = torch.compile(copy.deepcopy(lin1), backend=backend, fullgraph=True)
    x1 = torch.randn(5, 16, requires_grad=requires_grad)
    x2 = x1.detach().clone().requires_grad_(requires_grad)
    for _ in range(3):
        out1, out2 = lin1(x1), lin2(x2)
        assert_close(out1, out2)
        out1.pow(2).sum().backward()
        out2.pow(2).sum().backward()
    for a, b in zip(lin1.parameters(), lin2.parameters(), strict=True):
        assert_close(a.grad, b.grad)
    if requires_grad:
        assert_close(x1.grad, x2.grad)


def test_compile_with_strength_and_without_gradients():
    torch._dynamo.reset()
    lin, x = BitLinear(16, 8), torch.randn(5, 16)
    compiled = torch.compile(copy.deepcopy(lin), backend="eager", fullgraph=True)
    for strength in (0.0, 0.5, 1.0):
        lin.strength = compiled.strength = strength
        assert_close(compiled(x), lin(x))
    with torch.no_grad():
        assert_close(compiled.eval()(x), lin.eval()(x))


def test_trace():
    lin, x = BitLinear(16, 8).eval(), torch.randn(5, 16)
    exported = torch.export.export(lin, (x,)).module()
    y = torch.randn(5, 16)
    assert_close(exported(y), lin(y))


class Net(torch.nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.lin1 = linear(-1, 16)
        self.conv = SAGEConv((-1, -1), 16)
        self.lin2 = linear(-1, 4)

    def forward(self, x, edge_index):
        x = self.lin1(x).relu()
        x = self.conv(x, edge_index).relu()
        return self.lin2(x)


def test_to_hetero():
    torch.manual_seed(12345)
    data = HeteroData()
    data["paper"].x = torch.randn(6, 16)
    data["author"].x = torch.randn(4, 8)
    edge_index = torch.tensor([[0, 1, 2, 3], [0, 1, 4, 5]])
    data["author", "writes", "paper"].edge_index = edge_index
    data["paper", "rev_writes", "author"].edge_index = edge_index.flip([0])

    model = to_hetero(Net(BitLinear), data.metadata())
    assert isinstance(model.lin1["paper"], BitLinear)
    out = model(data.x_dict, data.edge_index_dict)
    assert out["paper"].size() == (6, 4) and out["author"].size() == (4, 4)
    assert model.lin1["author"].in_channels == 8
    sum(value.sum() for value in out.values()).backward()
    assert all(p.grad is not None for p in model.parameters())

    # The same model of references gives the same output.
    reference = to_hetero(Net(Linear), data.metadata())
    reference(data.x_dict, data.edge_index_dict)
    reference.load_state_dict(model.state_dict(), strict=True)
    for name in ("lin1", "lin2"):
        lins = getattr(reference, name)
        for key in data.node_types:
            lins[key] = ReferenceLinear(lins[key].weight, lins[key].bias)
    expected = reference(data.x_dict, data.edge_index_dict)
    for key in data.node_types:
        assert_close(out[key], expected[key])


def test_weight_that_is_tied_to_another_layer():
    lin1 = BitLinear(16, 16, bias=False)
    lin2 = BitLinear.from_linear(lin1)
    x = torch.randn(5, 16)
    (lin1(x).sum() + lin2(x).sum()).backward()
    once = copy.deepcopy(lin1)
    once.zero_grad()
    once(x).sum().backward()
    assert_close(lin1.weight.grad, 2 * once.weight.grad)


@pytest.mark.gpu
@with_quant
def test_cuda_equals_cpu(quant):
    torch.manual_seed(12345)
    lin1 = BitLinear(1433, 64, quant=quant)
    lin2 = copy.deepcopy(lin1).to("cuda")
    x1 = torch.randn(500, 1433, requires_grad=True)
    x2 = x1.detach().cuda().requires_grad_()
    out1, out2 = lin1(x1), lin2(x2)
    assert out2.is_cuda
    assert_close(out1, out2.cpu(), rtol=1e-4, atol=1e-3)
    out1.pow(2).sum().backward()
    out2.pow(2).sum().backward()
    assert_close(x1.grad, x2.grad.cpu(), rtol=1e-3, atol=1e-2)
    for a, b in zip(lin1.parameters(), lin2.parameters(), strict=True):
        assert_close(a.grad, b.grad.cpu(), rtol=1e-3, atol=1e-1)


@pytest.mark.gpu
@pytest.mark.parametrize("measure", ["absmean", "absmedian"])
def test_cuda_integers_equal_those_of_the_cpu(measure):
    torch.manual_seed(12345)
    x, weight = torch.randn(500, 1433), torch.randn(64, 1433)
    config = QuantConfig(weight_measure=measure)
    assert (quantize_rows(x, config)[0] != quantize_rows(x.cuda(), config)[0].cpu()).sum() == 0
    weight_q = quantize_weight(weight.cuda(), config)[0].cpu()
    assert (quantize_weight(weight, config)[0] != weight_q).sum() <= 2  # The mean's last bit.


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cuda_half_precision(dtype):
    lin, x = BitLinear(64, 32).cuda(), torch.randn(50, 64, device="cuda")
    expected = lin(x)
    with torch.autocast("cuda", dtype=dtype):
        out = lin(x)
    assert out.dtype == dtype
    assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    assert_close(lin.to(dtype)(x.to(dtype)).float(), expected, rtol=0.05, atol=0.05)
