import pytest
import torch

from bitgnn import QuantConfig
from bitgnn.experiment.speed.case import MODELS, Case
from bitgnn.nn import BitLinear


@pytest.mark.parametrize("model", MODELS)
def test_both_sides_have_the_same_shape(model):
    case = Case(model, "Cora", layers=3, hidden=8, heads=2)
    plain = case.build(12, 4, None, twin=False)
    twin = case.build(12, 4, None, twin=True)
    ternary = case.build(12, 4, QuantConfig(), twin=True)
    assert not plain.training and not ternary.training
    sizes = [sum(p.numel() for p in each.parameters()) for each in (plain, twin, ternary)]
    assert len(set(sizes)) == 1
    assert type(plain).__module__.startswith("torch_geometric")
    assert any(isinstance(module, BitLinear) for module in ternary.modules())
    x, edge_index = torch.randn(6, 12), torch.randint(6, (2, 20))
    out = plain(x) if model == "mlp" else plain(x, edge_index)
    assert out.shape == (6, 4)


def test_a_new_graph_in_each_call_is_not_cached():
    assert not Case("gcn", "request").build(4, 2, None, twin=False).convs[0].cached
    assert Case("gcn", "Cora").build(4, 2, None, twin=False).convs[0].cached


def test_names():
    assert Case("gat", "arxiv", 3, 256, 8).name == "gat 3 x 256, 8 heads"
    assert Case("gcn", "arxiv", 3, 256).name == "gcn 3 x 256"
    with pytest.raises(ValueError, match=r"Unknown model 'gin' .known: gcn, sage, gat, sgc, mlp"):
        Case("gin", "arxiv")
