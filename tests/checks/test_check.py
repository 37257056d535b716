import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN, RGCNConv

from bitgnn import QuantConfig, check, convert, task
from bitgnn.nn import BitGCN, BitGraphSAGE, BitHeteroLinear, BitLinear, BitMLP, BitSGC
from bitgnn.quant import quantize_rows

EDGE_INDEX = torch.tensor([[0, 1], [1, 0]])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(12345)


def binary(num_nodes: int = 500, num_features: int = 16) -> Tensor:
    return (torch.rand(num_nodes, num_features) < 0.3).float()


def with_year(x: Tensor) -> Tensor:
    return torch.cat([x, torch.randint(1990, 2021, (x.size(0), 1)).float()], dim=1)


def mlp(num_features: int, **kwargs) -> BitMLP:
    return BitMLP([num_features, 64, 3], norm=None, **kwargs)


def found(model, x, normalize=None, **kwargs):
    findings = check(model, Data(x=x, edge_index=EDGE_INDEX, **kwargs), normalize)
    return {(finding.kind, finding.where): str(finding) for finding in findings}


def test_nothing_is_found_in_features_of_one_scale():
    for x in (binary(), torch.randn(500, 16), torch.randn(500, 16).exp(), binary() / 100):
        for model in (mlp(16), BitGCN(16, 64, 2, 3), BitGraphSAGE(16, 64, 2, 3)):
            assert found(model, x) == {}


@pytest.mark.parametrize("model", [BitGCN, BitGraphSAGE])
def test_a_column_that_takes_up_the_scale(model):
    x = with_year(binary())
    findings = found(model(17, 64, 2, 3), x)
    assert list(findings) == [("scale", "x")]
    text = findings["scale", "x"]
    assert "16 of 17 columns" in text and "column 16 sets the scale of 100 %" in text
    # It is true: of the other columns nothing is left.
    assert not quantize_rows(x, QuantConfig())[0][:, :16].any()
    assert found(model(17, 64, 2, 3), (x - x.mean(dim=0)) / x.std(dim=0)) == {}


def test_features_are_looked_at_as_the_model_gets_them():
    x = with_year(torch.cat([torch.ones(500, 1), binary()], dim=1))
    assert set(found(mlp(18), x)) == {("constant", "x"), ("scale", "x")}
    # In rows of sum one, what was constant varies; the year still takes up the scale.
    assert set(found(mlp(18), x, lambda x: x / x.sum(dim=1, keepdim=True))) == {("scale", "x")}
    x = torch.randn(500, 16) * torch.logspace(0, -12, 500).view(-1, 1)
    assert set(found(mlp(16), x)) == {("small", "x")}
    assert found(mlp(16), x, F.normalize) == {}


def test_a_few_lost_columns_are_no_finding():
    x = torch.randn(500, 40)
    x[:, :3] *= 1e-4
    assert found(mlp(40), x) == {}
    x[:, :4] *= 1e-4
    assert "4 of 40 columns" in found(mlp(40), x)["scale", "x"]


def test_fewer_bits_lose_more():
    x = torch.randn(500, 16)
    x[:, 0] *= 20
    assert found(mlp(16), x) == {}
    quant = QuantConfig(activation_bits=4)
    assert "rounded to 4 bits" in found(mlp(16, quant=quant), x)["scale", "x"]


def test_layer_norm_comes_before_rounding():
    x = torch.randn(500, 16) + 1e5
    assert ("scale", "x") in found(mlp(16), x)
    assert found(mlp(16, quant="reloaded"), x) == {}


@pytest.mark.parametrize(
    "model",
    [
        convert(GCN(17, 64, 2, 3), exclude="convs.0.*"),
        BitGCN(17, 64, 2, 3, quant=QuantConfig(activation_bits=None)),
    ],
)
def test_features_that_are_not_rounded_may_have_any_scale(model):
    kinds = {kind for kind, _ in found(model, with_year(binary()))}
    assert kinds <= {"32-bit"}


def test_constant_columns():
    x = binary()
    x[:, 3], x[:, 5], x[:, 7] = 0.5, -1.0, 0.0
    assert "2 columns, 3, 5 are constant" in found(mlp(16), x)["constant", "x"]


def test_rows_below_the_smallest_scale():
    x = 1e-7 * binary()
    assert "no value above 1.27e-06" in found(mlp(16), x)["small", "x"]
    assert found(mlp(16, quant=QuantConfig(eps=1e-10)), x) == {}
    # A row of zeros has no scale to lose.
    assert found(mlp(16), binary() * (torch.arange(500) % 2).view(-1, 1)) == {}


def test_nonfinite_features():
    x = binary()
    x[1, 2], x[9, 4] = torch.nan, -torch.inf
    for model in (mlp(16), BitGCN(16, 64, 2, 3)):
        text = found(model, x)["nonfinite", "x"]
        assert text.startswith(
            "x: 0.4 % of the rows have NaN or infinite features, in columns 2, 4"
        )
    assert ("nonfinite", "x") in found(GCN(16, 64, 2, 3), x)
    assert set(found(mlp(16), x * torch.nan)) == {("nonfinite", "x")}


def test_edge_weights():
    x = binary()
    for name in ("edge_weight", "edge_attr"):
        weights = {name: torch.tensor([1.0, torch.nan])}
        assert set(found(BitGCN(16, 64, 2, 3), x, **weights)) == {("nonfinite", name)}
        assert found(BitGCN(16, 64, 2, 3), x, **{name: torch.ones(2)}) == {}
    negative = torch.tensor([1.0, -1.0])
    assert set(found(BitGCN(16, 64, 2, 3), x, edge_weight=negative)) == {
        ("nonfinite", "edge_weight")
    }
    assert found(BitGraphSAGE(16, 64, 2, 3), x, edge_weight=negative) == {}
    assert found(BitGCN(16, 64, 2, 3), x, edge_attr=torch.randint(3, (2, 4))) == {}


@pytest.mark.parametrize("shape", [(0,), (0, 3), (0, 3, 2)])
def test_a_graph_without_edges(shape):
    edges = torch.empty(2, 0, dtype=torch.long)
    data = Data(x=torch.rand(5, 8), edge_index=edges, edge_attr=torch.empty(shape))
    assert check(BitGCN(8, 8, 2, 3), data) == check(BitGCN(8, 8, 2, 3), Data(x=data.x))


def test_weights_of_uneven_scale():
    model = mlp(16)
    with torch.no_grad():
        model.lins[0].weight[5] *= 1e3
    text = found(model, binary())["weights", "lins.0"]
    assert "98.4 % of its weights are 0 in ternary, all of them in 63 of 64 outputs" in text
    per_channel = mlp(16, quant=QuantConfig(granularity="channel"))
    per_channel.load_state_dict(model.state_dict())
    assert found(per_channel, binary()) == {}


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_weights_below_the_smallest_scale(granularity):
    model = mlp(16, quant=QuantConfig(granularity=granularity))
    with torch.no_grad():
        model.lins[0].weight *= 1e-9
    text = found(model, binary())["weights", "lins.0"]
    assert "in 64 of 64 outputs: they are so small that eps=1e-08" in text
    with torch.no_grad():
        model.lins[0].weight *= 0
    assert "all of them are 0. Initialize" in found(model, binary())["weights", "lins.0"]
    smaller = mlp(16, quant=QuantConfig(granularity=granularity, eps=1e-20))
    with torch.no_grad():
        smaller.lins[0].weight *= 1e-9
    assert found(smaller, binary()) == {}


def test_weights_of_few_outputs_below_the_smallest_scale():
    model = mlp(16, quant=QuantConfig(granularity="channel"))
    with torch.no_grad():
        model.lins[0].weight[:9] *= 1e-9
    text = found(model, binary())["weights", "lins.0"]
    assert "in 9 of 64 outputs: they are so small that eps=1e-08" in text


def test_weights_of_which_few_reach_half_the_smallest_scale():
    model = mlp(16)
    with torch.no_grad():
        model.lins[0].weight.fill_(1e-9)
        model.lins[0].weight[0, :] = 1e-8
    text = found(model, binary())["weights", "lins.0"]
    assert "in 63 of 64 outputs: they are so small that eps=1e-08" in text


def test_weights_by_type_and_weights_that_are_nan():
    model = nn.ModuleDict({"lin": BitHeteroLinear(16, 64, num_types=2), "head": BitLinear(64, 3)})
    assert found(model, binary()) == {}
    with torch.no_grad():
        model["lin"].weight[0] *= 0
        model["head"].weight[0, 0] = torch.nan
    findings = found(model, binary())
    assert set(findings) == {("weights", "lin"), ("nonfinite", "head.weight")}
    assert "in 64 of 128 outputs: they are so small" in findings["weights", "lin"]


def test_what_is_left_in_32_bits():
    model = convert(nn.ModuleDict({"conv": RGCNConv(16, 64, 3), "head": nn.Linear(64, 3)}))
    text = found(model, binary())["32-bit", ""]
    assert "in 32 bits: 4,160 in RGCNConv (conv)" in text
    assert "No layer is quantized" in found(GCN(16, 64, 2, 3), binary())["32-bit", ""]


def test_lazy_and_meta_models():
    assert set(found(BitGCN(-1, 64, 2, 3), with_year(binary()))) == {("scale", "x")}
    with torch.device("meta"):
        model = mlp(17)
    assert set(found(model, with_year(binary()))) == {("scale", "x")}


def test_types_of_nodes():
    data = HeteroData()
    data["paper"].x, data["author"].x = with_year(binary()), binary(300)
    data["author"].num_nodes = 300
    data["author", "writes", "paper"].edge_index = EDGE_INDEX
    data["author", "writes", "paper"].edge_weight = torch.tensor([1.0, torch.inf])
    model = nn.ModuleDict({"paper": BitLinear(17, 64), "author": BitLinear(16, 64)})
    kinds = {(finding.kind, finding.where) for finding in check(model, data)}
    assert kinds == {
        ("scale", "paper.x"), ("nonfinite", "author__writes__paper.edge_weight")
    }  # fmt: skip


@pytest.mark.parametrize("layout", ["to_sparse_csr", "to_sparse_coo"])
def test_sparse_features(layout):
    x = with_year(binary())
    dense = check(mlp(17), Data(x=x))
    assert dense and check(mlp(17), Data(x=getattr(x, layout)())) == dense


def test_indices_out_of_bounds_are_refused():
    x = torch.sparse_csr_tensor(
        torch.tensor([0, 1]), torch.tensor([99]), torch.ones(1), (1, 4), check_invariants=False
    )
    with pytest.raises(ValueError, match="indices out of bounds"):
        check(mlp(4), Data(x=x))


def test_large_graphs_are_sampled():
    x = with_year(binary(200_000, 15))
    (finding,) = check(mlp(16), Data(x=x))
    assert "of a sample of 65,536" in finding.message
    assert check(mlp(16), Data(x=x)) == [finding]
    assert check(mlp(16), Data(x=x.to_sparse_csr())) == [finding]


def test_it_leaves_no_trace():
    model, x = BitGCN(17, 64, 2, 3), with_year(binary())
    before, state = x.clone(), torch.get_rng_state()
    check(model, Data(x=x, edge_index=EDGE_INDEX))
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)
    assert model.training and all(p.grad is None for p in model.parameters())


def test_wrong_types():
    with pytest.raises(TypeError, match="'model' must be a torch.nn.Module"):
        check("gcn", Data(x=binary()))
    with pytest.raises(TypeError, match="of a bitgnn task it is 'task.data'"):
        check(mlp(16), task("Digits"))
    with pytest.raises(ValueError, match=r"'x' must be a matrix .*\(16,\)"):
        check(mlp(16), Data(x=torch.ones(16)))


def test_data_without_features():
    for data in (Data(edge_index=EDGE_INDEX), Data(x=None, edge_index=EDGE_INDEX), HeteroData()):
        with pytest.raises(ValueError, match="'data' has no features 'x': set 'data.x'"):
            check(mlp(16), data)
    with pytest.raises(ValueError, match=r"'x' has no rows: .*\(0, 16\)"):
        check(mlp(16), Data(x=torch.ones(0, 16)))
    data = HeteroData()
    data["paper"].x = torch.ones(0, 16)
    with pytest.raises(ValueError, match=r"'paper.x' has no rows"):
        check(mlp(16), data)


@pytest.mark.parametrize(
    "model",
    [
        mlp(16),
        BitGCN(16, 64, 2, 3),
        BitSGC(16, 3),
        BitGraphSAGE((16, 16), 64, 2, 3),
        BitLinear(16, 64),
        nn.Sequential(nn.Dropout(), nn.Linear(16, 64)),
    ],
)
def test_features_of_another_width(model):
    for layout in ("clone", "to_sparse_csr"):
        x = getattr(binary(), layout)()
        assert {finding.kind for finding in check(model, Data(x=x))} <= {"32-bit"}
        x = getattr(binary(500, 5), layout)()
        with pytest.raises(ValueError, match="'x' has 5 columns, but the model takes 16: pass"):
            check(model, Data(x=x))


def test_features_that_a_model_says_nothing_of():
    # It may read them beside others.
    assert found(nn.ModuleDict({"lin": BitLinear(20, 64)}), binary()) == {}
    assert found(nn.Sequential(nn.ModuleDict({"lin": BitLinear(20, 64)})), binary()) == {}
    assert found(BitGCN(-1, 64, 2, 3), binary()) == {}
