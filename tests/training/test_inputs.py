import copy

import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE
from torch_geometric.transforms import NormalizeFeatures

from bitgnn import convert
from bitgnn.nn import BitMLP, static_inputs
from bitgnn.training import Recipe, build_model
from bitgnn.training.inputs import drop_features, model_inputs, takes_sparse

RECIPE = Recipe(hidden_channels=16)
RAW = RECIPE.replace(feature_norm="none")
models = pytest.mark.parametrize("name", ["gcn", "sage", "gat", "sgc", "mlp"])
graph_models = pytest.mark.parametrize("name", ["gcn", "sage", "gat", "sgc"])
presets = pytest.mark.parametrize("quant", [None, "b158"])


@pytest.fixture
def sparse_tiny(tiny):
    tiny.data.x = tiny.data.x * (torch.rand(60, 16, generator=torch.Generator()) < 0.2)
    return tiny


def add_edges(t, *edges):
    t.data.edge_index = torch.cat([t.data.edge_index, torch.tensor(edges).t()], dim=1)


@models
@presets
def test_same_outputs_as_of_features_and_edges(name, quant, sparse_tiny):
    t = sparse_tiny
    add_edges(t, (0, 7), (4, 9), (5, 5), (6, 6))  # Two of one direction, two self-loops.
    torch.manual_seed(12345)
    # In 64 bits: where rounding errors decide, aggregates could be quantized in two ways.
    model = build_model(name, 16, 3, RAW, quant).double().eval()
    t.data.x = t.data.x.double()
    x, *edges = model_inputs(model, t, RAW)
    assert x.layout == torch.sparse_csr and x.dtype == torch.float64
    assert [each.layout for each in edges] == [torch.sparse_csr] * (name != "mlp")
    plain = copy.deepcopy(model)
    expected = plain(t.data.x, t.data.edge_index) if edges else plain(t.data.x)
    torch.testing.assert_close(model(x, *edges), expected)


def test_feature_norm(tiny):
    model = build_model("gcn", 16, 3, RECIPE)
    x, _ = model_inputs(model, tiny, RECIPE)
    assert torch.equal(x, NormalizeFeatures()(copy.copy(tiny.data)).x)
    x, _ = model_inputs(model, tiny, RAW)
    assert x is tiny.data.x


def test_sparse_features_are_the_same_numbers(sparse_tiny):
    model = build_model("mlp", 16, 3, RECIPE)
    (x,) = model_inputs(model, sparse_tiny, RECIPE)
    assert x.layout == torch.sparse_csr
    assert torch.equal(x.to_dense(), NormalizeFeatures()(copy.copy(sparse_tiny.data)).x)
    (raw,) = model_inputs(model, sparse_tiny, RAW)
    assert torch.equal(raw.to_dense(), sparse_tiny.data.x)


def test_sparse_features_are_made_once_and_follow_the_data(sparse_tiny):
    model = build_model("mlp", 16, 3, RECIPE)
    with static_inputs(sparse_tiny.data.x):
        (x,) = model_inputs(model, sparse_tiny, RAW)
        assert model_inputs(model, sparse_tiny, RAW)[0] is x
        sparse_tiny.data.x.mul_(2)
        (changed,) = model_inputs(model, sparse_tiny, RAW)
    assert torch.equal(changed.to_dense(), 2 * x.to_dense())


def test_features_with_few_zeros_stay_dense(tiny):
    for name in ("mlp", "gcn"):
        assert model_inputs(build_model(name, 16, 3, RAW), tiny, RAW)[0].layout == torch.strided


def test_only_layers_of_this_package_take_sparse_features():
    for name in ("gcn", "sage", "gat", "sgc", "mlp"):
        for quant in (None, "b158"):
            assert takes_sparse(build_model(name, 16, 3, RECIPE, quant))
        assert not takes_sparse(build_model(name, 16, 3, RECIPE, "reloaded"))
    for model in (GCN(16, 8, 2, 3), convert(GraphSAGE(16, 8, 2, 3)), torch.nn.Linear(16, 3)):
        assert not takes_sparse(model)


def test_pygs_models(sparse_tiny):
    x, edges = model_inputs(GCN(16, 8, 2, 3), sparse_tiny, RAW)
    assert x is sparse_tiny.data.x and edges is sparse_tiny.data.edge_index
    model = GraphSAGE(16, 8, 2, 3)
    x, adj_t = model_inputs(model, sparse_tiny, RAW)
    assert x is sparse_tiny.data.x and adj_t.layout == torch.sparse_csr
    torch.testing.assert_close(model(x, adj_t), model(x, sparse_tiny.data.edge_index))


@graph_models
def test_edges_that_occur_twice_stay_edges(name, tiny):
    tiny.data.edge_index = torch.cat([tiny.data.edge_index, tiny.data.edge_index[:, :1]], dim=1)
    _, edge_index = model_inputs(build_model(name, 16, 3, RECIPE), tiny, RECIPE)
    assert edge_index is tiny.data.edge_index


def test_self_loops_that_layers_treat_differently_stay_edges(tiny):
    model = build_model("gcn", 16, 3, RECIPE)
    model.convs[0].add_self_loops = False
    assert model_inputs(model, tiny, RECIPE)[1].layout == torch.sparse_csr
    add_edges(tiny, (5, 5))
    assert model_inputs(model, tiny, RECIPE)[1] is tiny.data.edge_index


def test_improved_self_loops_stay_edges(tiny):
    model = build_model("gcn", 16, 3, RECIPE)
    model.convs[1].improved = True
    assert model_inputs(model, tiny, RECIPE)[1] is tiny.data.edge_index


@pytest.mark.gpu
@graph_models
def test_on_a_gpu(name, sparse_tiny):
    x, edges = model_inputs(build_model(name, 16, 3, RAW), sparse_tiny, RAW, "cuda")
    assert x.layout == torch.strided and x.is_cuda and edges.is_cuda
    assert edges.layout == (torch.sparse_csr if name == "sage" else torch.strided)


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
def test_drop_features(layout):
    torch.manual_seed(12345)
    dense = (torch.rand(200, 500) + 1.0) * (torch.rand(200, 500) < 0.3)
    x = dense if layout == torch.strided else dense.to_sparse_csr()
    assert drop_features(x, 0.0) is x
    out = drop_features(x, 0.6)
    assert out.layout == layout and torch.equal(x.to_dense(), dense)
    found = out.to_dense()
    kept = found != 0
    assert kept[dense == 0].sum() == 0
    assert kept[dense != 0].float().mean().item() == pytest.approx(0.4, abs=0.01)
    torch.testing.assert_close(found[kept], dense[kept] / 0.4)


def test_dropped_features_train_like_dense_ones(sparse_tiny):
    model = BitMLP([16, 3], norm=None)
    x = model_inputs(model, sparse_tiny, RAW)[0]
    torch.manual_seed(12345)
    dropped = drop_features(x, 0.5)
    outs = model(dropped), model(dropped.to_dense())
    torch.testing.assert_close(*outs)
    weight = model.lins[0].weight
    grads = [torch.autograd.grad(out.square().sum(), weight)[0] for out in outs]
    torch.testing.assert_close(*grads)
