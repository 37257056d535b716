import pytest
import torch
from torch_geometric.nn import MLP

from bitgnn import QuantConfig
from bitgnn.nn import BitLinear, BitMLP


@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", None])
@pytest.mark.parametrize("act_first", [False, True])
@pytest.mark.parametrize("plain_last", [False, True])
def test_off_equals_pyg(norm, act_first, plain_last):
    kwargs = {"norm": norm, "act_first": act_first, "plain_last": plain_last, "dropout": 0.5}
    models = []
    for cls, extra in ((MLP, {}), (BitMLP, {"quant": None})):
        torch.manual_seed(1)
        models.append(cls([16, 32, 32, 5], **kwargs, **extra))
    original, model = models
    assert list(model.state_dict()) == list(original.state_dict())

    x = torch.randn(4, 16)
    outs = []
    for m in models:
        torch.manual_seed(2)
        outs.append(m(x))
        outs[-1].square().sum().backward()
    assert torch.equal(*outs)
    for parameter, other in zip(model.parameters(), original.parameters(), strict=True):
        assert torch.equal(parameter, other) and torch.equal(parameter.grad, other.grad)


@pytest.mark.parametrize("plain_last", [False, True])
@pytest.mark.parametrize("quant", ["b158", "reloaded"])
def test_mlp(plain_last, quant):
    models = []
    for cls, extra in ((MLP, {}), (BitMLP, {"quant": quant})):
        torch.manual_seed(1)
        models.append(cls([16, 32, 32, 64], plain_last=plain_last, **extra))
    original, mlp = models
    assert str(mlp) == "BitMLP(16, 32, 32, 64)"
    assert mlp.quant == QuantConfig.preset(quant)
    assert all(type(lin) is BitLinear for lin in mlp.lins)
    for parameter, other in zip(mlp.parameters(), original.parameters(), strict=True):
        assert torch.equal(parameter, other)
    original.load_state_dict(mlp.state_dict(), strict=True)
    mlp.load_state_dict(original.state_dict(), strict=True)

    x = torch.randn(4, 16)
    out = mlp(x)
    assert out.size() == (4, 64)
    assert not torch.allclose(out, original(x), atol=1e-3)


def test_mlp_equals_its_formula():
    mlp = BitMLP([16, 32, 5], norm=None)
    x = torch.randn(4, 16)
    out = x
    for lin in mlp.lins:
        x_scale = out.abs().amax(dim=-1, keepdim=True) / 127
        w_scale = lin.weight.abs().mean()
        integers = (out / x_scale).round() @ (lin.weight / w_scale).round().clamp(-1, 1).t()
        out = integers * x_scale * w_scale + lin.bias
        out = out.relu() if lin is mlp.lins[0] else out
    assert torch.allclose(mlp(x), out, atol=1e-5)


def test_mlp_forms():
    mlp = BitMLP(in_channels=16, hidden_channels=32, out_channels=5, num_layers=3)
    assert str(mlp) == "BitMLP(16, 32, 32, 5)"
    out, emb = mlp(torch.randn(4, 16), return_emb=True)
    assert out.size() == (4, 5) and emb.size() == (4, 32)

    mlp = BitMLP([16, 32, 32, 5], dropout=[0.1, 0.2, 0.3], bias=[False, True, False])
    assert [lin.bias is not None for lin in mlp.lins] == [False, True, False]
    assert mlp(torch.randn(4, 16)).size() == (4, 5)

    mlp = BitMLP([-1, 32, 5])
    assert mlp(torch.randn(4, 16)).size() == (4, 5)


@pytest.mark.parametrize("norm", ["GraphNorm", "InstanceNorm", "LayerNorm"])
def test_mlp_batch(norm):
    mlp = BitMLP([8, 16, 5], norm=norm)
    assert mlp.supports_norm_batch
    assert mlp(torch.randn(3, 8), batch=torch.tensor([0, 0, 1])).size() == (3, 5)


def test_mlp_learns():
    torch.manual_seed(1)
    x, y = torch.randn(20, 8), torch.arange(20) % 4
    mlp = BitMLP([8, 64, 64, 4], norm=None)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=0.01)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(mlp(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
