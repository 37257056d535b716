import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import GAT, GCN, GraphSAGE, to_hetero

from bitgnn import QuantConfig, convert, set_strength
from bitgnn.nn import (
    BitGAT,
    BitGATConv,
    BitGCN,
    BitGCNConv,
    BitGraphSAGE,
    BitLinear,
    BitMLP,
    BitSAGEConv,
    BitSGC,
)
from bitgnn.packed import load, pack, prepare

NODES = 60
QUANTS = [
    QuantConfig(),
    QuantConfig(weight_measure="absmedian"),
    QuantConfig(granularity="channel"),
    QuantConfig(weight_bits=4, activation_bits=4),
    QuantConfig(activation_bits=None),
    QuantConfig(weight_bits=None),
    QuantConfig(layer_norm=True, full_range=True, rescale_bias=True),
    None,
]


@pytest.fixture
def graph():
    torch.manual_seed(12)
    return torch.randn(NODES, 8), torch.randint(NODES, (2, 240))


def settle(model):
    r"""Statistics and parameters as training would leave them, none at its initial value."""
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias" or "norm" in type(module).__name__.lower():
                nn.init.normal_(parameter)
    return model.eval()


def assert_same(model, *inputs):
    expected = settle(model)(*inputs)
    packed = pack(model)
    found = packed(*inputs)
    # Where a number lies between two integers, another order of sums may round it to the other.
    error = (found - expected).abs() / expected.abs().max()
    assert (error <= 1e-5).float().mean() > 0.8
    assert error.square().mean().sqrt() < 1e-3
    return packed


@pytest.mark.parametrize("quant", QUANTS, ids=str)
@pytest.mark.parametrize("build", [BitGCN, BitGraphSAGE, BitGAT])
def test_packed_equals_trained(graph, build, quant):
    assert_same(build(8, 16, 2, 4, norm="batch_norm", quant=quant), *graph)


@pytest.mark.parametrize("jk", [None, "last", "cat", "max"])
@pytest.mark.parametrize("norm", [None, "batch_norm", "layer_norm"])
@pytest.mark.parametrize("build", [BitGCN, BitGraphSAGE, BitGAT])
def test_what_lies_between_layers(graph, build, norm, jk):
    assert_same(build(8, 16, 3, 4, dropout=0.5, act="elu", norm=norm, jk=jk), *graph)


@pytest.mark.parametrize("quant", QUANTS, ids=str)
def test_models_of_one_map_and_without_edges(graph, quant):
    x, edge_index = graph
    assert_same(BitSGC(8, 4, K=3, quant=quant), x, edge_index)
    assert_same(BitMLP([8, 16, 4], norm="batch_norm", quant=quant), x)
    assert_same(BitLinear(8, 4, quant=quant), x)


@pytest.mark.parametrize("aggr", ["mean", "sum", "max"])
@pytest.mark.parametrize("options", [{}, {"normalize": True}, {"root_weight": False}], ids=str)
def test_sage(graph, aggr, options):
    assert_same(BitSAGEConv(8, 5, aggr=aggr, **options), *graph)


@pytest.mark.parametrize(
    "options",
    [{"concat": False}, {"residual": True}, {"add_self_loops": False, "bias": False}],
    ids=str,
)
def test_gat(graph, options):
    assert_same(BitGATConv(8, 4, heads=3, negative_slope=0.1, **options), *graph)


@pytest.mark.parametrize(
    "options", [{"improved": True}, {"normalize": False}, {"add_self_loops": False}], ids=str
)
@pytest.mark.parametrize("weighted", [False, True])
def test_gcn(graph, options, weighted):
    x, edge_index = graph
    weights = (torch.rand(edge_index.size(1)),) if weighted else ()
    assert_same(BitGCNConv(8, 5, **options), x, edge_index, *weights)
    assert_same(BitGCN(8, 16, 2, 4, **options), x, edge_index, *weights)


@pytest.mark.parametrize("build", [GCN, GraphSAGE, GAT])
def test_converted_models(graph, build):
    model = convert(build(8, 16, 2, 4, norm="batch_norm"), exclude="convs.1.*")
    packed = assert_same(model, *graph)
    assert packed.in_32_bits
    assert all(name.startswith("convs.1.") for name in packed.in_32_bits)


class Net(nn.Module):
    r"""What people write by hand: functions, methods, residuals, a 32-bit layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = BitGCNConv(8, 16), BitSAGEConv(16, 16)
        self.skip, self.last = nn.Linear(8, 16), BitGATConv(32, 4, heads=2)

    def forward(self, x, edge_index):
        h = F.dropout(x, 0.5, training=self.training)
        h = F.leaky_relu(self.first(h, edge_index), 0.2) + self.skip(x)
        h = torch.cat([h, self.second(h, edge_index).relu()], dim=-1)
        return F.log_softmax(self.last(h, edge_index), dim=1)


def test_model_written_by_hand(graph):
    packed = assert_same(Net(), *graph)
    assert packed.in_32_bits == ["skip"]
    assert "in_32_bits=['skip']" in repr(packed)


def test_model_is_left_as_it_is(graph):
    model = BitGCN(8, 16, 2, 4, dropout=0.5, norm="batch_norm").train()
    model.norms[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    pack(model)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_file_round_trip(graph, tmp_path):
    for model in (Net(), BitGCN(8, 16, 2, 4, norm="batch_norm"), BitGAT(8, 16, 2, 4, heads=2)):
        packed = pack(settle(model))
        packed.save(tmp_path / "model.safetensors")
        again = load(tmp_path / "model.safetensors")
        assert torch.equal(packed(*graph), again(*graph))
        assert repr(again) == repr(packed)


def test_five_ternary_weights_a_byte(tmp_path):
    model = BitGCN(1433, 64, 2, 7)
    packed = pack(model)
    weights, biases = (1433 * 64, 64 * 7), 64 + 7
    expected = sum(-(-count // 5) for count in weights) + 4 * (biases + 2)
    assert packed.num_bytes == expected
    packed.save(tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size < expected + 4096


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (BitGCN(8, 16, 2, 4, jk="lstm"), "'jk' is jumping knowledge with an LSTM"),
        (BitGCN(8, 16, 2, 4, norm="GraphNorm"), "'norms.0', a GraphNorm, cannot be packed"),
        (BitGAT(8, 16, 2, 4, v2=True), "'convs.0', a GATv2Conv, cannot be packed; what can be is"),
        (BitGraphSAGE(8, 16, 2, 4, aggr="min"), "'convs.0' has aggr='min': only 'add'"),
        (BitGraphSAGE(8, 16, 2, 4, project=True), "'convs.0' has project=True"),
        (BitGraphSAGE((8, 8), 16, 2, 4).convs[0], None),
        (BitGCN(8, 16, 2, 4, flow="target_to_source"), "flow='target_to_source'"),
        (BitGATConv((8, 8), 4), "attends over two kinds of nodes"),
        (BitGATConv(8, 4, edge_dim=2), "attends over edge features"),
    ],
)
def test_what_cannot_be_packed(model, match):
    if match is None:
        assert pack(model)
        return
    with pytest.raises(ValueError, match=match):
        pack(model)


def test_model_in_the_middle_of_its_schedule():
    model = BitGCN(8, 16, 2, 4)
    set_strength(model, 0.5)
    with pytest.raises(ValueError, match="'convs.0.lin' quantizes at strength 0.5: train on"):
        pack(model)


def test_wrong_calls(graph):
    x, edge_index = graph
    packed, prepared = pack(BitGCN(8, 16, 2, 4)), prepare(edge_index, NODES)
    with pytest.raises(ValueError, match="reads edges: pass 'edge_index'"):
        packed(x)
    with pytest.raises(ValueError, match="'x' has 59 rows, but the graph 60 nodes"):
        packed(x[:-1], prepared)
    with pytest.raises(ValueError, match="pass 'edge_weight' to `prepare`"):
        packed(x, prepared, torch.ones(edge_index.size(1)))
    with pytest.raises(ValueError, match="and so two dimensions .got 1"):
        packed(x[0], edge_index)
    with pytest.raises(TypeError, match="'x' must be a tensor .got str"):
        packed("x", edge_index)
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module .got str"):
        pack("model")


def test_features_of_every_type(graph):
    x, edge_index = graph
    packed = pack(BitGCN(8, 16, 2, 4))
    x = (10 * x).round()
    expected = packed(x, edge_index)
    for form in (x.double(), x.half(), x.long(), x.t().contiguous().t(), x.requires_grad_()):
        found = packed(form, edge_index)
        assert torch.equal(found, expected) and not found.requires_grad


def test_sparse_features(graph):
    _, edge_index = graph
    x = torch.rand(edge_index.max() + 1, 12).round()
    packed = pack(BitGraphSAGE(12, 16, 2, 4))
    expected = packed(x, edge_index)
    for sparse in (x.to_sparse_csr(), x.to_sparse_coo(), x.to_sparse_csc()):
        torch.testing.assert_close(packed(sparse, edge_index), expected)
    half = (x / 2).to_sparse_coo()
    indices = half.indices().repeat(1, 2)  # Each number comes in two parts.
    parts = torch.sparse_coo_tensor(indices, half.values().repeat(2), x.shape)
    torch.testing.assert_close(packed(parts, edge_index), expected)
    small = torch.sparse_csr_tensor(
        x.to_sparse_csr().crow_indices().int(), x.to_sparse_csr().col_indices().int(),
        x.to_sparse_csr().values().double(), size=x.shape,
    )  # fmt: skip
    torch.testing.assert_close(packed(small, edge_index), expected)


WRITES, BY = ("author", "writes", "paper"), ("paper", "rev_writes", "author")


@pytest.fixture
def hetero():
    torch.manual_seed(12)
    x = {"paper": torch.randn(20, 8), "author": torch.randn(12, 6)}
    forth = torch.stack([torch.randint(12, (50,)), torch.randint(20, (50,))])
    edges = {WRITES: forth, BY: forth.flip(0)}
    model = to_hetero(BitGraphSAGE((-1, -1), 16, 2, 4), (["paper", "author"], [WRITES, BY]))
    model(x, edges)
    return model, x, edges


def test_types_of_nodes_and_edges(hetero, tmp_path):
    model, x, edges = hetero
    packed = pack(model)
    expected = packed(x, edges)
    packed.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    prepared = prepare(edges, {"paper": 20, "author": 12})
    sparse = {kind: each.to_sparse_csr() for kind, each in x.items()}
    for found in (again(x, prepared), packed(x, prepared), packed(sparse, edges)):
        assert list(found) == ["paper", "author"]
        for kind, out in found.items():
            assert torch.equal(out, expected[kind]) and not out.requires_grad
    few = {"paper": x["paper"][:0], "author": x["author"]}
    none = {relation: torch.empty(2, 0, dtype=torch.long) for relation in edges}
    assert packed(few, none)["paper"].shape == (0, 4)


def test_wrong_calls_with_types(hetero):
    model, x, edges = hetero
    packed = pack(model)
    with pytest.raises(TypeError, match="'x' must be a dict of each type's features .got Tensor"):
        packed(x["paper"], edges)
    with pytest.raises(ValueError, match=r"reads features of \['author'\], which 'x' does not"):
        packed({"paper": x["paper"]}, edges)
    with pytest.raises(ValueError, match="reads edges of type .'paper', 'rev_writes', 'author'"):
        packed(x, {WRITES: edges[WRITES]})
    with pytest.raises(ValueError, match="'x' has 20 rows of 'paper', but the graph 21 nodes"):
        packed(x, prepare(edges, {"paper": 21, "author": 12}))
    with pytest.raises(TypeError, match="of each type's edges, or a prepared graph .got Tensor"):
        packed(x, edges[WRITES])
    with pytest.raises(ValueError, match="none has weights: leave 'edge_weight'"):
        packed(x, edges, torch.ones(50))
    with pytest.raises(ValueError, match="Outputs of several types of nodes have no place"):
        packed(x, edges, out=torch.ones(20, 4))
    with pytest.raises(ValueError, match="'convs.0.author__writes__paper.lin_l' has no sizes yet"):
        pack(to_hetero(BitGraphSAGE((-1, -1), 16, 2), (["paper", "author"], [WRITES, BY])))


@pytest.mark.parametrize("cls", [BitGCN, BitGraphSAGE, BitGAT])
def test_features_and_output_in_files(cls, graph, tmp_path):
    x, edges = graph
    x.numpy().tofile(tmp_path / "x")
    mapped = torch.from_file(str(tmp_path / "x"), size=x.numel()).view(x.shape)
    out = torch.from_file(str(tmp_path / "out"), shared=True, size=5 * NODES).view(NODES, 5)
    packed = pack(settle(cls(8, 16, 2, 5)))
    assert packed(mapped, edges, out=out) is out
    assert torch.equal(out, packed(x, edges))
    assert (tmp_path / "out").read_bytes() == out.numpy().tobytes()


def test_the_place_of_an_output_that_torch_computes(graph):
    x, out = graph[0], torch.empty(NODES, 5)
    model = settle(nn.Sequential(BitLinear(8, 5), nn.Softmax(dim=1)))
    packed = pack(model)
    assert packed(x, out=out) is out and torch.equal(out, packed(x))
    half = packed(x.half(), out=torch.empty(NODES, 5))
    assert torch.equal(half, packed(x.half()))


def test_the_place_of_an_output_without_native_kernels(graph, monkeypatch):
    packed = pack(settle(BitGCN(8, 16, 2, 5)))
    expected, out = packed(*graph), torch.empty(NODES, 5)
    monkeypatch.setattr("bitgnn.packed.native.applies", lambda x: False)
    assert packed(*graph, out=out) is out
    torch.testing.assert_close(out, packed(*graph))
    assert (out - expected).square().mean().sqrt() < 1e-3 * expected.abs().max()
    with pytest.raises(ValueError, match="'out' must be contiguous"):
        packed(*graph, out=out.t())


@pytest.mark.parametrize(
    "out",
    [
        torch.empty(NODES, 4),
        torch.empty(NODES, 5, dtype=torch.double),
        torch.empty(5, NODES).t(),
        torch.empty(NODES, 5, requires_grad=True),
        [[0.0] * 5] * NODES,
    ],
)
def test_outputs_have_one_shape(out, graph):
    packed = pack(settle(BitGCN(8, 16, 2, 5)))
    with pytest.raises(ValueError, match=rf"'out' must be contiguous.*shape \({NODES}, 5\)"):
        packed(*graph, out=out)


@pytest.mark.parametrize(
    ("wrap", "held"),
    [
        (nn.DataParallel, "module"),
        (torch.optim.swa_utils.AveragedModel, "module"),
        (torch.compile, "_orig_mod"),
    ],
)
def test_what_holds_a_model_is_not_packed_itself(wrap, held):
    model = BitMLP([4, 8, 2]).eval()
    with pytest.raises(ValueError, match=f"holds the model: pack 'model.{held}'$"):
        pack(wrap(model))
    with pytest.raises(ValueError, match=f"'model.0', of type .*: replace it by 'model.0.{held}'$"):
        pack(nn.Sequential(wrap(model)))
    assert repr(pack(getattr(wrap(model), held))) == repr(pack(model))
