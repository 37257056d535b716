import pickle

import pytest
import torch
import torch_geometric.typing
from torch import nn
from torch_geometric.nn import PMLP, HeteroDictLinear

from bitgnn import convert


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(12345)


@pytest.mark.parametrize("lazy", [True, False])
def test_hetero_dict_linear(lazy, monkeypatch):
    x_dict = {"v": torch.randn(3, 16), "w": torch.randn(2, 8)}
    sizes = {"v": -1, "w": -1} if lazy else {"v": 16, "w": 8}
    model = convert(HeteroDictLinear(sizes, 5))
    assert model.converted == ["lins.v", "lins.w"]
    out = model(x_dict)
    for key, x in x_dict.items():
        assert torch.equal(out[key], model.lins[key](x))
    assert list(model({"w": x_dict["w"]})) == ["w"]
    assert torch.equal(pickle.loads(pickle.dumps(model))(x_dict)["v"], out["v"])

    # With pyg-lib, PyG multiplies by the weights themselves in one kernel: not here.
    monkeypatch.setattr(torch_geometric.typing, "WITH_GMM", True)
    monkeypatch.setattr(torch_geometric.backend, "use_segment_matmul", True)
    assert torch.equal(model(x_dict)["v"], out["v"])


@pytest.mark.parametrize("training", [True, False])
def test_transformer_does_not_bypass_its_ternary_layers(training):
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True), 2)
    encoder.train(training)
    x = torch.randn(2, 5, 16)
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    converted = convert(encoder)
    assert converted.converted == [f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)]
    with torch.no_grad():  # Where torch takes its fast path.
        out = converted(x, src_key_padding_mask=mask)
        assert not torch.allclose(out[0], encoder(x, src_key_padding_mask=mask)[0], atol=1e-3)
    expected = converted(x, src_key_padding_mask=mask)
    assert torch.allclose(out[0], expected[0], atol=1e-5)
    assert torch.allclose(out[1, :3], expected[1, :3], atol=1e-5)


def test_pmlp_is_left():
    with pytest.raises(ValueError, match=r"lins.0 \(PMLP reads its weight and never calls it\)"):
        convert(PMLP(8, 16, 5, num_layers=2))
