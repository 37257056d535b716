"""Ternary layers on a graph of the shape of ogbn-mag: four types of nodes, of which papers alone
have features, and four types of edges in both directions."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import HeteroData
from torch_geometric.loader import HGTLoader, NeighborLoader
from torch_geometric.nn import (
    GATConv,
    GCNConv,
    GraphSAGE,
    HeteroConv,
    HeteroDictLinear,
    HeteroLinear,
    HGTConv,
    RGCNConv,
    SAGEConv,
    to_hetero,
)
from torch_geometric.transforms import ToUndirected
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

from bitgnn import convert
from bitgnn.nn import BitGATConv, BitGCNConv, BitGraphSAGE, BitHeteroLinear, BitLinear, BitSAGEConv

NODES = {"paper": 60, "author": 50, "institution": 9, "field_of_study": 12}
EDGES = {
    ("author", "affiliated_with", "institution"): 50,
    ("author", "writes", "paper"): 120,
    ("paper", "cites", "paper"): 150,
    ("paper", "has_topic", "field_of_study"): 120,
}
CLASSES = 4
# PyG's normalization is over all nodes, unless told otherwise.
OPTIONS = {"norm": "layer_norm", "norm_kwargs": {"mode": "node"}, "jk": "cat"}
without_sampler = pytest.mark.skipif(
    not WITH_TORCH_SPARSE and not WITH_PYG_LIB, reason="needs torch-sparse or pyg-lib"
)
LOADERS = [
    pytest.param(
        partial(NeighborLoader, num_neighbors=[5, 5]), marks=without_sampler, id="neighbors"
    ),
    pytest.param(
        partial(HGTLoader, num_samples=[20, 20]),
        marks=pytest.mark.skipif(not WITH_TORCH_SPARSE, reason="needs torch-sparse"),
        id="hgt",
    ),
]


@pytest.fixture
def mag():
    torch.manual_seed(12345)
    data = HeteroData()
    for kind, count in NODES.items():
        data[kind].num_nodes = count
    topics = torch.randint(CLASSES, (NODES["field_of_study"],))
    for relation, count in EDGES.items():
        sources, targets = NODES[relation[0]], NODES[relation[2]]
        index = torch.stack([torch.randint(sources, (count,)), torch.randint(targets, (count,))])
        data[relation].edge_index = index
    # Papers are of the class of one of their topics, of which their features tell a little.
    paper, topic = data["paper", "has_topic", "field_of_study"].edge_index
    data["paper"].y = torch.zeros(NODES["paper"], dtype=torch.long)
    data["paper"].y[paper] = topics[topic]
    data["paper"].x = F.one_hot(data["paper"].y, 16) + torch.randn(NODES["paper"], 16)
    return ToUndirected()(data)


class Own(nn.Module):
    r"""A model as in PyG's tutorial."""

    def __init__(self, conv):
        super().__init__()
        self.conv1, self.conv2 = conv((-1, -1), 16), conv((-1, -1), CLASSES)

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


class OfConvs(nn.Module):
    r"""Another convolution for each kind of edges."""

    def __init__(self, metadata, sage, gat, gcn):
        super().__init__()
        self.convs = nn.ModuleList()
        for width in (16, CLASSES):
            kinds = {
                "cites": lambda n=width: gcn(-1, n),
                "writes": lambda n=width: gat((-1, -1), n, add_self_loops=False),
            }
            convs = {r: kinds.get(r[1], lambda n=width: sage((-1, -1), n))() for r in metadata[1]}
            self.convs.append(HeteroConv(convs))

    def forward(self, x_dict, edge_index_dict):
        x_dict = self.convs[0](x_dict, edge_index_dict)
        return self.convs[1]({kind: x.relu() for kind, x in x_dict.items()}, edge_index_dict)


class Embedded(nn.Module):
    r"""Learns the features of nodes that have none."""

    def __init__(self, gnn):
        super().__init__()
        sizes = {kind: count for kind, count in NODES.items() if kind != "paper"}
        self.of = nn.ModuleDict({kind: nn.Embedding(count, 16) for kind, count in sizes.items()})
        self.gnn = gnn

    def forward(self, batch):
        x_dict = {kind: lin(nodes_of(batch, kind)) for kind, lin in self.of.items()}
        x_dict["paper"] = batch["paper"].x
        return self.gnn(x_dict, batch.edge_index_dict)["paper"]


def nodes_of(batch, kind):
    """Which nodes of the whole graph those of a batch are."""
    return batch[kind].get("n_id", torch.arange(batch[kind].num_nodes))


def of_quant(conv, quant):
    return lambda *args, **kwargs: conv(*args, quant=quant, **kwargs)


def sage(metadata, quant="b158"):
    return to_hetero(BitGraphSAGE((-1, -1), 16, 2, CLASSES, quant=quant, **OPTIONS), metadata)


def own(metadata, quant="b158"):
    return to_hetero(Own(of_quant(BitSAGEConv, quant)), metadata)


def convs(metadata, quant="b158"):
    return OfConvs(metadata, *(of_quant(c, quant) for c in (BitSAGEConv, BitGATConv, BitGCNConv)))


BUILDS = {"sage": sage, "own": own, "convs": convs}
PYG = {
    "sage": lambda metadata: to_hetero(GraphSAGE((-1, -1), 16, 2, CLASSES, **OPTIONS), metadata),
    "own": lambda metadata: to_hetero(Own(SAGEConv), metadata),
    "convs": lambda metadata: OfConvs(metadata, SAGEConv, GATConv, GCNConv),
}
every_model = pytest.mark.parametrize("name", BUILDS)


def embedded(gnn, data):
    """A model whose lazy layers know their sizes."""
    torch.manual_seed(12345)
    model = Embedded(gnn)
    with torch.no_grad():
        model(data)
    return model


def latent(model):
    return {name: m.weight.clone() for name, m in model.named_modules() if type(m) is BitLinear}


@torch.no_grad()
def loss_of(model, data):
    return float(F.cross_entropy(model.eval()(data), data["paper"].y))


def step(model, optimizer, batch, count=None):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(batch)[:count], batch["paper"].y[:count])
    loss.backward()
    optimizer.step()


@every_model
def test_full_precision_equals_pyg(name, mag):
    model = embedded(BUILDS[name](mag.metadata(), quant=None), mag)
    expected = embedded(PYG[name](mag.metadata()), mag)
    expected.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(model.eval()(mag), expected.eval()(mag))


@every_model
def test_training_lowers_the_loss(name, mag):
    model = embedded(BUILDS[name](mag.metadata()), mag)
    weights, before = latent(model), loss_of(model, mag)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    step(model, optimizer, mag)
    # The last layer of types that nobody reads learns nothing, and all else does.
    read = [key for key, parameter in model.named_parameters() if parameter.grad is not None]
    changed = {
        key for key, weight in latent(model).items() if not torch.equal(weight, weights[key])
    }
    assert len(changed) > len(weights) / 2
    assert changed == {key for key in weights if f"{key}.weight" in read}
    for _ in range(20):
        step(model, optimizer, mag)
    assert loss_of(model, mag) < 0.7 * before


@pytest.mark.parametrize("loader", LOADERS)
@every_model
def test_training_in_mini_batches(name, loader, mag):
    model = embedded(BUILDS[name](mag.metadata()), mag)
    before = loss_of(model, mag)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    batches = loader(mag, input_nodes="paper", batch_size=20, shuffle=True)
    for _ in range(8):
        model.train()
        for batch in batches:
            step(model, optimizer, batch, batch["paper"].batch_size)
    assert loss_of(model, mag) < 0.8 * before


def assert_close(found, expected):
    # Sums over edges may be in another order, and a number that lies between two integers be
    # rounded to the other one.
    error = (found - expected).abs() / expected.abs().max()
    assert (error <= 1e-5).float().mean() > 0.9
    assert error.square().mean().sqrt() < 1e-3


@without_sampler
@every_model
def test_outputs_in_a_batch_of_whole_neighborhoods(name, mag):
    # Two layers, and a third step for GCN, whose weights of edges depend on the sources' degrees.
    model = embedded(BUILDS[name](mag.metadata()), mag).eval()
    expected = model(mag)
    for batch in NeighborLoader(mag, [-1] * 3, ("paper", torch.arange(0, 60, 3)), batch_size=7):
        seeds = batch["paper"].batch_size
        assert_close(model(batch)[:seeds], expected[batch["paper"].input_id * 3])


def neighborhoods(data, kind, seeds, hops):
    """The nodes from which some are reached in so many steps, by type."""
    nodes = {each: torch.zeros(count, dtype=torch.bool) for each, count in NODES.items()}
    nodes[kind][seeds] = True
    for _ in range(hops):
        reached = {each: mask.clone() for each, mask in nodes.items()}
        for (source, _, target), (j, i) in data.edge_index_dict.items():
            reached[source][j[nodes[target][i]]] = True
        nodes = reached
    return {each: mask.nonzero().flatten() for each, mask in nodes.items()}


@every_model
def test_outputs_in_a_part_of_the_graph(name, mag):
    # Scales are of rows: what else is in a batch has no part in the output for a node.
    model = embedded(BUILDS[name](mag.metadata()), mag).eval()
    nodes = neighborhoods(mag, "paper", torch.tensor([3, 11]), hops=3)
    assert len(nodes["author"]) < NODES["author"]  # It is a part.
    part = mag.subgraph(nodes)
    for kind, n_id in nodes.items():
        part[kind].n_id = n_id
    seeds = torch.isin(nodes["paper"], torch.tensor([3, 11]))
    assert_close(model(part)[seeds], model(mag)[[3, 11]])


@every_model
def test_state_dict_round_trip(name, mag):
    model = embedded(BUILDS[name](mag.metadata()), mag).eval()
    again = Embedded(BUILDS[name](mag.metadata())).eval()  # Its lazy layers take their sizes.
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again(mag), model(mag))


@every_model
def test_converted(name, mag):
    model = embedded(PYG[name](mag.metadata()), mag)
    ternary = convert(model)
    linears = [
        m for m in ternary.modules() if hasattr(m, "weight") and "Linear" in type(m).__name__
    ]
    assert linears and all(type(m) is BitLinear for m in linears)
    assert len(ternary.converted) == len(linears)
    before = loss_of(ternary, mag)
    optimizer = torch.optim.Adam(ternary.parameters(), lr=0.01)
    for _ in range(20):
        ternary.train()
        step(ternary, optimizer, mag)
    assert loss_of(ternary, mag) < 0.7 * before


class OfTypes(nn.Module):
    r"""Layers that know types of nodes themselves."""

    def __init__(self, metadata):
        super().__init__()
        self.lin = HeteroDictLinear(dict.fromkeys(metadata[0], -1), 16)
        self.conv = HGTConv(16, 16, metadata, heads=2)
        self.out = HeteroLinear(16, CLASSES, num_types=2)

    def forward(self, x_dict, edge_index_dict):
        x = self.conv(self.lin(x_dict), edge_index_dict)["paper"]
        return {"paper": self.out(x, torch.arange(len(x)) % 2)}


@pytest.mark.parametrize("before", [True, False])
def test_layers_that_know_types(before, mag):
    gnn = OfTypes(mag.metadata())
    model = embedded(convert(gnn) if before else gnn, mag)
    model = model if before else convert(model)
    linears = {type(m) for m in model.modules() if "Linear" in type(m).__name__}
    assert {BitLinear, BitHeteroLinear} <= linears
    assert HeteroLinear not in linears and HeteroDictLinear not in linears
    first = loss_of(model, mag)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        model.train()
        step(model, optimizer, mag)
    assert loss_of(model, mag) < 0.7 * first


def test_rgcn_has_no_linear_layer_to_convert():
    with pytest.raises(ValueError, match="No linear layer of 'RGCNConv' matches"):
        convert(RGCNConv(8, 4, num_relations=8))
