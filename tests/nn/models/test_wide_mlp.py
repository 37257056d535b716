import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.nn import BitWideMLP
from bitgnn.training.latent import latent_weights


def bags(num_bags=6, num_words=20):
    x = torch.rand(num_bags, num_words, generator=torch.Generator().manual_seed(0))
    return (x * (x < 0.4)).to_sparse_csr()


@given(st.integers(1, 8), st.integers(1, 30), st.integers(1, 16), st.integers(1, 5))
def test_full_precision_equals_its_formula(num_bags, num_words, width, classes):
    model = BitWideMLP(num_words, width, classes, quant=None).eval()
    x = bags(num_bags, num_words)
    hidden = (x.to_dense() @ model.embedding.weight).relu()
    expected = F.linear(hidden, model.lin.weight, model.lin.bias)
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("ternary", ["all", "output"])
def test_ternary_equals_its_formula(ternary):
    def quantized(value, scale):
        return (value / scale).round().clamp(-127, 127)

    model = BitWideMLP(20, 16, 3, ternary=ternary).eval()
    x = bags().to_dense()
    weight = model.embedding.weight
    if ternary == "all":
        x_scale, scale = x.amax(dim=1, keepdim=True) / 127, weight.abs().mean()
        hidden = (quantized(x, x_scale) @ quantized(weight, scale).clamp(-1, 1)) * x_scale * scale
    else:
        hidden = x @ weight
    hidden = hidden.relu()
    x_scale, scale = hidden.amax(dim=1, keepdim=True) / 127, model.lin.weight.abs().mean()
    product = quantized(hidden, x_scale) @ quantized(model.lin.weight, scale).clamp(-1, 1).t()
    expected = product * x_scale * scale + model.lin.bias
    torch.testing.assert_close(model(bags()), expected)


def test_which_layers_are_ternary():
    latent = {
        ternary: [tuple(weight.shape) for weight in latent_weights(model)]
        for ternary in ("all", "output")
        for model in [BitWideMLP(20, 16, 3, ternary=ternary)]
    }
    assert latent == {"all": [(20, 16), (3, 16)], "output": [(3, 16)]}
    assert latent_weights(BitWideMLP(20, 16, 3, quant=None)) == []


def test_dropout_in_training_only():
    model = BitWideMLP(20, 256, 3, embedding_dropout=0.5, dropout=0.2, quant=None)
    seen = []
    model.lin.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.embedding.weight.data.fill_(1.0)
    x = torch.ones(200, 20).to_sparse_csr()
    model.train()(x)
    assert 0.57 < float((seen[0] == 0).float().mean()) < 0.63  # 1 - 0.5 * 0.8
    torch.testing.assert_close(seen[0].unique(), torch.tensor([0.0, 20 / 0.5 / 0.8]))
    model.eval()(x)
    assert torch.equal(seen[1], torch.full((200, 256), 20.0))


def test_state_dict_is_that_of_either_side():
    full, ternary = BitWideMLP(20, 16, 3, quant=None), BitWideMLP(20, 16, 3)
    assert list(full.state_dict()) == ["embedding.weight", "lin.weight", "lin.bias"]
    ternary.load_state_dict(full.state_dict(), strict=True)
    assert torch.equal(ternary.embedding.weight, full.embedding.weight)
    before = ternary.lin.weight.detach().clone()
    ternary.reset_parameters()
    assert not torch.equal(ternary.lin.weight, before)
    assert not torch.equal(ternary.embedding.weight, full.embedding.weight)


def test_forms_and_errors():
    assert str(BitWideMLP(20, 16, 3)) == "BitWideMLP(20, 16, 3)"
    with pytest.raises(ValueError, match="'ternary' must be 'all' or 'output'.*'both'"):
        BitWideMLP(20, 16, 3, ternary="both")
    with pytest.raises(ValueError, match="No preset is called 'b159'"):
        BitWideMLP(20, 16, 3, quant="b159")
