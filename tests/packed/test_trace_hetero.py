import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import HeteroConv, HeteroDictLinear, HGTConv, SAGEConv, to_hetero

from bitgnn import convert, pack
from bitgnn.nn import (
    BitGAT,
    BitGATConv,
    BitGCN,
    BitGCNConv,
    BitGraphSAGE,
    BitLinear,
    BitSAGEConv,
)
from bitgnn.packed.trace_hetero import trace_hetero, types_of

WRITES, CITES, BY = ("author", "writes", "paper"), ("paper", "cites", "paper"), (
    "paper", "rev_writes", "author",
)  # fmt: skip
METADATA = (["paper", "author"], [WRITES, CITES, BY])
SIZES = {"paper": 20, "author": 12}
# Drawn apart from all other numbers: which rows lie between two integers depends on them.
_DRAWN = torch.Generator().manual_seed(0)
X = {
    "paper": torch.randn(20, 8, generator=_DRAWN),
    "author": torch.randn(12, 6, generator=_DRAWN),
}


@pytest.fixture
def edges():
    torch.manual_seed(12)
    ends = {key: (SIZES[key[0]], SIZES[key[2]]) for key in METADATA[1]}
    return {
        key: torch.stack([torch.randint(size, (50,)) for size in sizes])
        for key, sizes in ends.items()
    }


def relations(conv=lambda relation: BitSAGEConv((-1, -1), 16), **options):
    return HeteroConv({relation: conv(relation) for relation in METADATA[1]}, **options)


class Net(nn.Module):
    r"""What people write by hand."""

    def __init__(self, first, second=None):
        super().__init__()
        self.lin = HeteroDictLinear({"paper": 8, "author": 6}, 12)
        self.first, self.second = first, second or relations()
        self.last = BitLinear(16, 4)

    def forward(self, x_dict, edge_index_dict):
        x_dict = {kind: x.tanh() for kind, x in self.lin(x_dict).items()}
        x_dict = self.first(x_dict, edge_index_dict)
        x_dict = {
            kind: F.dropout(F.relu(x), 0.5, training=self.training) for kind, x in x_dict.items()
        }
        return self.last(self.second(x_dict, edge_index_dict)["paper"])


def of_every_kind(relation):
    if relation == CITES:
        return BitGATConv(12, 8, heads=2, add_self_loops=False)
    return BitSAGEConv((-1, -1), 16, aggr="max", normalize=relation == BY)


MODELS = {
    "to_hetero": lambda: to_hetero(BitGraphSAGE((-1, -1), 16, 2, 5), METADATA),
    "mean": lambda: to_hetero(BitGraphSAGE((-1, -1), 16, 2, 5), METADATA, aggr="mean"),
    "max": lambda: to_hetero(BitGraphSAGE((-1, -1), 16, 2, 5), METADATA, aggr="max"),
    "norm": lambda: to_hetero(
        BitGraphSAGE((-1, -1), 16, 2, 5, norm="batch_norm", jk="cat", dropout=0.5), METADATA
    ),
    "by hand": lambda: Net(relations(of_every_kind)),
    "by hand, mean": lambda: Net(relations(aggr="mean"), relations(aggr="mean")),
    "by hand, max": lambda: Net(relations(aggr="max")),
    "by hand, gcn": lambda: Net(
        relations(lambda r: BitGCNConv(12, 16) if r == CITES else BitSAGEConv((-1, -1), 16))
    ),
    "converted": lambda: convert(Net(relations(lambda _: SAGEConv((-1, -1), 16)))),
    "32-bit": lambda: to_hetero(BitGraphSAGE((-1, -1), 16, 2, 5, quant=None), METADATA),
    "one conv": lambda: relations(aggr="cat"),
}


@pytest.mark.parametrize("name", MODELS)
def test_packed_equals_trained(name, edges):
    model = MODELS[name]()
    model(X, edges)  # Sizes, and statistics of batches.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.weight)
    packed = pack(model)
    expected, found = model.eval()(X, edges), packed(X, edges)
    exact = packed(X, edges, exact=True)
    if isinstance(expected, torch.Tensor):
        expected, found, exact = ({"paper": each} for each in (expected, found, exact))
    assert list(found) == list(expected) == list(exact)
    for kind, out in expected.items():
        assert torch.allclose(exact[kind], out, rtol=1e-4, atol=1e-5 * float(out.abs().max()))
        # Where a number lies between two integers, another order of sums may round it otherwise.
        error = (found[kind] - out).abs() / out.abs().max()
        assert (error <= 1e-5).float().mean() > 0.8
        assert error.square().mean().sqrt() < 1e-3


class InPlace(Net):
    def forward(self, x_dict, edge_index_dict):
        x_dict = self.first(x_dict, edge_index_dict)
        for x in x_dict.values():
            x.relu_()
        return self.second(x_dict, edge_index_dict)["paper"]


class InPlaceOfSum(Net):
    def forward(self, x_dict, edge_index_dict):
        out = self.first(x_dict, edge_index_dict)["paper"]
        total = torch.add(out, out.tanh())
        return total + torch.relu_(total)


class Rounded(Net):
    def forward(self, x_dict, edge_index_dict):
        out = self.first(x_dict, edge_index_dict)["paper"]
        return torch.div(out, 0.25, rounding_mode="floor")


@pytest.mark.parametrize(
    ("kind", "match"),
    [(InPlace, "in place"), (InPlaceOfSum, "in place"), (Rounded, "'div' cannot be packed")],
)
def test_what_would_be_lost_is_refused(kind, match, edges):
    model = kind(relations()).eval()
    model(X, edges)  # Sizes.
    with pytest.raises(ValueError, match=match):
        pack(model)


def test_one_step_a_layer_and_none_for_what_nobody_reads(edges):
    model = Net(relations())
    model(X, edges)
    steps = trace_hetero(model, *types_of(model)).steps
    assert [step.attrs["nodes"] for step in steps if step.op == "pick"] == ["paper", "author"]
    names = [step.name for step in steps if step.op == "linear"]
    convs = [name for name in names if name.startswith("second")]
    # In the second layer nobody reads authors.
    assert convs == [
        f"second.convs.<{key}>.{lin}"
        for key in ("author___writes___paper", "paper___cites___paper")
        for lin in ("lin_l", "lin_r")
    ]
    assert names[0] == "lin.lins.paper" and names[-1] == "last"
    found = [step.edges.relation for step in steps if step.edges is not None]
    assert found == [*METADATA[1], WRITES, CITES]
    # All that reads the same rows reads the same integers.
    read = [step.inputs for step in steps if step.op == "quantize"]
    assert len(read) == len(set(read))


def test_types():
    assert types_of(BitGraphSAGE(8, 16, 2)) == ([], [])
    nodes, found = types_of(to_hetero(BitGraphSAGE((-1, -1), 16, 2), METADATA))
    assert set(nodes) == {"paper", "author"} and found == METADATA[1]
    nodes, found = types_of(nn.Sequential(relations()))
    assert set(nodes) == {"paper", "author"} and found == METADATA[1]


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = HGTConv({"paper": 8, "author": 6}, 16, METADATA, heads=2)

    def forward(self, x_dict, edge_index_dict):
        return self.conv(x_dict, edge_index_dict)


class Reads(nn.Module):
    """One convolution, and then what a function makes of papers."""

    def __init__(self, call):
        super().__init__()
        self.conv, self.call = relations(lambda _: BitSAGEConv((8, 8), 16)), call

    def forward(self, x_dict, edge_index_dict):
        return self.call(x_dict, edge_index_dict, self.conv)


def weighted(x, edges, conv):
    return conv(x, edges, edges)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (Attends(), "'conv', a HGTConv, cannot be packed; what can be is: B"),
        (
            to_hetero(BitGAT((-1, -1), 8, 2, 4, add_self_loops=False), METADATA),
            "'convs.0.author__writes__paper', a BitGATConv, sums over edges between two types of "
            "nodes: of layers that do, only SAGEConv and BitSAGEConv can be packed",
        ),
        (relations(aggr=None), "'HeteroConv' combines edges of several types with aggr=None"),
        (relations(aggr="min"), "combines edges of several types with aggr='min'"),
        (to_hetero(BitGraphSAGE((8, 8), 8, 2), METADATA, aggr="mul"), "'mul' cannot be packed"),
        (to_hetero(BitGraphSAGE((8, 8), 8, 2), METADATA, aggr="min"), "'min' cannot be packed"),
        (Reads(lambda x, e, conv: torch.max(conv(x, e)["paper"], dim=1)), "'max' cannot be packed"),
        (Reads(lambda x, e, conv: conv(x, e)["paper"].sum()), "'sum' cannot be packed"),
        (Reads(lambda x, e, conv: torch.div(x["paper"], x["paper"])), "'div' cannot be packed"),
        (
            Reads(lambda x, e, conv: conv.convs[WRITES]((x["paper"], x["paper"]), e[WRITES])),
            r"reads nodes of types \['paper'\] over edges of type .'author', 'writes', 'paper'",
        ),
        (Reads(lambda x, e, conv: x["paper"] + x["author"]), "'add' reads nodes of types"),
        (Reads(weighted), "'conv.convs.<author.*' must be called with features and edges of one"),
    ],
)
def test_what_cannot_be_packed(model, match, edges):
    with pytest.raises(ValueError, match=match):
        pack(model)


def test_dropout_that_to_hetero_has_fixed():
    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = BitSAGEConv((8, 8), 4)

        def forward(self, x, edge_index):
            return F.dropout(self.conv(x, edge_index), training=self.training)

    with pytest.raises(ValueError, match="or use torch.nn.Dropout, which alone changes with the"):
        pack(to_hetero(Drops(), METADATA).eval())


def test_a_model_of_one_type_is_none_of_several():
    assert not pack(BitGCN(8, 16, 2, 4)).program.is_hetero
