import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GAT, GCN, GraphSAGE, JumpingKnowledge, to_hetero
from torch_geometric.testing import onlyNeighborSampler

from bitgnn import QuantConfig
from bitgnn.nn import BitGAT, BitGATConv, BitGCN, BitGraphSAGE, BitLinear

TWINS = {"gcn": (GCN, BitGCN), "sage": (GraphSAGE, BitGraphSAGE), "gat": (GAT, BitGAT)}
EDGE_INDEX = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
JKS = [None, "last", "cat", "max", "lstm"]

every_model = pytest.mark.parametrize("name", TWINS)


def build(cls: type, *args: Any, **kwargs: Any) -> torch.nn.Module:
    torch.manual_seed(1)
    return cls(8, 16, 3, *args, **kwargs)


def forward(model: torch.nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(2)  # For dropout.
    return model(x, EDGE_INDEX)


def assert_off_equals_pyg(name: str, **kwargs: Any) -> None:
    original, twin = (
        build(cls, **kwargs, **extra)
        for cls, extra in zip(TWINS[name], ({}, {"quant": None}), strict=True)
    )
    assert list(twin.state_dict()) == list(original.state_dict())
    x = torch.randn(3, 8)
    out, expected = forward(twin, x), forward(original, x)
    assert torch.equal(out, expected)

    out.square().sum().backward()
    expected.square().sum().backward()
    for parameter, other in zip(twin.parameters(), original.parameters(), strict=True):
        assert torch.equal(parameter, other)
        assert (parameter.grad is None) == (other.grad is None)
        assert parameter.grad is None or torch.equal(parameter.grad, other.grad)


@every_model
@pytest.mark.parametrize("jk", JKS)
@pytest.mark.parametrize("out_channels", [None, 5])
def test_off_equals_pyg_with_jk(name, jk, out_channels):
    assert_off_equals_pyg(name, jk=jk, out_channels=out_channels, dropout=0.5)


@every_model
@pytest.mark.parametrize("norm", [None, "BatchNorm", "GraphNorm", "LayerNorm"])
@pytest.mark.parametrize("act", [None, "leaky_relu", F.elu, torch.nn.ReLU()])
@pytest.mark.parametrize("act_first", [True, False])
def test_off_equals_pyg_with_norm(name, norm, act, act_first):
    assert_off_equals_pyg(name, norm=norm, act=act, act_first=act_first)


@pytest.mark.parametrize("v2", [True, False])
@pytest.mark.parametrize(
    "kwargs", [{"heads": 4}, {"heads": 4, "concat": False}, {"edge_dim": 2}], ids=str
)
def test_off_equals_pyg_gat(v2, kwargs):
    assert_off_equals_pyg("gat", v2=v2, out_channels=5, dropout=0.3, **kwargs)


@every_model
@pytest.mark.parametrize("jk", JKS)
@pytest.mark.parametrize("quant", ["b158", "reloaded"])
def test_quantized_everywhere(name, jk, quant):
    original, twin = TWINS[name]
    model = build(twin, out_channels=5, jk=jk, quant=quant)
    assert str(model) == f"Bit{build(original, out_channels=5, jk=jk)}"
    assert model.quant == QuantConfig.preset(quant)

    within_jk = {m for j in model.modules() if isinstance(j, JumpingKnowledge) for m in j.modules()}
    linears = {m for m in model.modules() if type(m).__name__.endswith("Linear")}
    assert all(type(m) is BitLinear for m in linears - within_jk)
    assert linears & within_jk == ({model.jk.att} if jk == "lstm" else set())
    if jk is not None:
        assert type(model.lin) is BitLinear

    # Same weights as PyG's model of the same seed, and the state passes both ways.
    other = build(original, out_channels=5, jk=jk)
    for parameter, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, expected)
    model.load_state_dict(other.state_dict(), strict=True)
    other.load_state_dict(model.state_dict(), strict=True)

    x = torch.randn(3, 8)
    out = forward(model, x)
    assert out.size() == (3, 5)
    assert not torch.allclose(out, forward(other, x), atol=1e-3)


@every_model
@pytest.mark.parametrize("num_layers", [1, 2])
def test_few_layers(name, num_layers):
    model = TWINS[name][1](8, 16, num_layers, out_channels=5)
    assert len(model.convs) == num_layers
    assert model(torch.randn(3, 8), EDGE_INDEX).size() == (3, 5)
    assert TWINS[name][1](8, 16, num_layers)(torch.randn(3, 8), EDGE_INDEX).size() == (3, 16)


@every_model
def test_lazy(name):
    model = TWINS[name][1](-1, 16, 2, out_channels=5)
    assert model(torch.randn(3, 8), EDGE_INDEX).size() == (3, 5)
    assert model(torch.randn(3, 8), EDGE_INDEX).isfinite().all()


@every_model
def test_deepcopy_and_pickle(name):
    x = torch.randn(3, 8)
    model = build(TWINS[name][1], out_channels=5, jk="cat").eval()
    expected = model(x, EDGE_INDEX)
    assert torch.equal(copy.deepcopy(model)(x, EDGE_INDEX), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x, EDGE_INDEX), expected)


@every_model
def test_reset_parameters(name):
    model, other = build(TWINS[name][1], jk="cat"), build(TWINS[name][0], jk="cat")
    for m in (model, other):
        torch.manual_seed(7)
        m.reset_parameters()
    for parameter, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, expected)


@every_model
@pytest.mark.parametrize("quant", ["b158", "reloaded"])
def test_learns(name, quant):
    x = torch.eye(6)
    edge_index = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 5], [1, 0, 2, 1, 4, 3, 5, 4]])
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    model = TWINS[name][1](6, 16, 2, out_channels=2, quant=quant)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, edge_index), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert (model(x, edge_index).argmax(dim=-1) == y).all()


# As newer releases of torch do by themselves where the graph is to be whole: PyG masks self-loops.
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
@every_model
@pytest.mark.parametrize("jk", [None, "cat"])
def test_compile_has_no_graph_break(name, jk):
    torch.compiler.reset()
    model = build(TWINS[name][1], out_channels=5, jk=jk).eval()
    x = torch.randn(3, 8)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x, EDGE_INDEX), model(x, EDGE_INDEX), atol=1e-5)


@every_model
def test_explain(name):
    explainer = Explainer(
        model=TWINS[name][1](8, 16, 2, out_channels=5).eval(),
        algorithm=GNNExplainer(epochs=5),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={
            "mode": "multiclass_classification",
            "task_level": "node",
            "return_type": "raw",
        },
    )
    explanation = explainer(torch.randn(3, 8), EDGE_INDEX)
    assert explanation.edge_mask.size() == (4,) and explanation.edge_mask.max() > 0
    assert explanation.node_mask.size() == (3, 8) and explanation.node_mask.max() > 0


def test_edge_weight_and_edge_attr():
    x = torch.randn(3, 8)
    model = BitGCN(8, 16, 2)
    weighted = model(x, EDGE_INDEX, edge_weight=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert not torch.allclose(weighted, model(x, EDGE_INDEX))
    model = BitGAT(8, 16, 2, edge_dim=3)
    assert model(x, EDGE_INDEX, edge_attr=torch.randn(4, 3)).size() == (3, 16)


def test_bipartite_sage():
    model = BitGraphSAGE((8, 6), 16, 1)
    x = (torch.randn(3, 8), torch.randn(2, 6))
    assert model(x, torch.tensor([[0, 1, 2], [0, 1, 1]])).size() == (2, 16)


@pytest.mark.parametrize("v2", [True, False])
def test_heads_must_divide_hidden_channels(v2):
    with pytest.raises(ValueError, match=r"'BitGAT' \(got '16'\) is divisible .* \(got '3'\)"):
        BitGAT(8, 16, 2, out_channels=5, heads=3, v2=v2)
    # The last layer averages its heads: they need not divide the number of classes.
    model = BitGAT(8, 16, 2, out_channels=5, heads=4, v2=v2)
    assert model(torch.randn(3, 8), EDGE_INDEX).size() == (3, 5)


def test_gat_v1_and_v2():
    assert type(BitGAT(8, 16, 2).convs[0]) is BitGATConv
    conv = BitGAT(8, 16, 2, v2=True, share_weights=True).convs[0]
    assert type(conv.lin_l) is BitLinear
    assert conv.lin_l is conv.lin_r  # Shared weights are quantized on both sides.


@pytest.mark.parametrize("jk", [None, "cat"])
def test_to_hetero(jk):
    metadata = (["paper", "author"], [("paper", "by", "author"), ("author", "of", "paper")])
    model = to_hetero(BitGraphSAGE((-1, -1), 16, 2, out_channels=5, jk=jk), metadata)
    x_dict = {"paper": torch.randn(3, 8), "author": torch.randn(2, 6)}
    edge_index_dict = {
        ("paper", "by", "author"): torch.tensor([[0, 1, 2], [0, 1, 1]]),
        ("author", "of", "paper"): torch.tensor([[0, 1, 1], [0, 1, 2]]),
    }
    out = model(x_dict, edge_index_dict)
    assert out["paper"].size() == (3, 5) and out["author"].size() == (2, 5)
    linears = [m for m in model.modules() if type(m).__name__.endswith("Linear")]
    assert linears and all(type(m) is BitLinear for m in linears)

    sum(o.square().sum() for o in out.values()).backward()
    first = model.convs[0]["paper__by__author"]
    assert first.lin_l.weight.grad.abs().sum() > 0 and first.lin_r.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["gcn", "sage"])
def test_trim(name):
    # Nodes 0 and 1 are wanted, 2 to 4 are one hop away, 5 and 6 two hops.
    edge_index = torch.tensor([[2, 3, 4, 5, 6], [0, 1, 1, 2, 3]])
    kwargs = {"normalize": False} if name == "gcn" else {}
    model = TWINS[name][1](8, 16, 2, **kwargs).eval()
    x = torch.randn(7, 8)
    trimmed = model(
        x,
        edge_index,
        num_sampled_nodes_per_hop=[2, 3, 2],
        num_sampled_edges_per_hop=[3, 2],
    )
    assert trimmed.size(0) < 7
    assert torch.allclose(trimmed[:2], model(x, edge_index)[:2], atol=1e-6)


@onlyNeighborSampler
@pytest.mark.parametrize("jk", [None, "last"])
def test_inference(jk):
    x = torch.randn(14, 8)
    edge_index = torch.randint(14, (2, 40))
    loader = NeighborLoader(Data(x=x, edge_index=edge_index), num_neighbors=[-1], batch_size=2)
    model = BitGraphSAGE(8, 16, 2, out_channels=5, jk=jk).eval()
    assert torch.allclose(model.inference(loader), model(x, edge_index), atol=1e-4)


@every_model
def test_quant_is_checked(name):
    with pytest.raises(ValueError, match="No preset is called 'b159'"):
        TWINS[name][1](8, 16, 2, quant="b159")
    with pytest.raises(TypeError, match="'quant' must be a QuantConfig"):
        TWINS[name][1](8, 16, 2, quant=8)
