import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    MLP,
    EdgeConv,
    GATConv,
    GCNConv,
    GraphConv,
    GraphSAGE,
    SAGEConv,
    SGConv,
)
from torch_geometric.utils import to_torch_csr_tensor

from bitgnn import QuantConfig, convert
from bitgnn.nn import (
    BitGAT,
    BitGATConv,
    BitGCN,
    BitGCNConv,
    BitGraphSAGE,
    BitMLP,
    BitSAGEConv,
    BitSGC,
    layerwise_inference,
)

NODES, WIDTH = 50, 8


@pytest.fixture
def graph():
    torch.manual_seed(12)
    edges = torch.randint(NODES - 3, (2, 300))  # The last nodes have no edges.
    edges[:, :20] = edges[0, :20]  # to themselves
    edges = torch.cat([edges, edges[:, 10:40]], dim=1)  # some twice
    return torch.randn(NODES, WIDTH), edges


def settle(model):
    """Statistics and parameters as training would leave them."""
    torch.manual_seed(3)
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                nn.init.normal_(parameter)
    return model.eval()


def assert_same(model, x, *edges, batch_size=7, **how):
    settle(model)
    with torch.no_grad():
        expected = model(x, *edges)
    found = layerwise_inference(model, x, *edges, batch_size=batch_size, **how)
    assert found.shape == expected.shape and not found.requires_grad
    # Where a number lies between two integers, another order of sums may round it to the other.
    error = (found - expected).abs() / expected.abs().max().clamp(min=1e-9)
    assert (error <= 1e-5).float().mean() > 0.8
    assert error.square().mean().sqrt() < 1e-3
    return found, expected


MODELS = {
    "gcn": lambda **how: BitGCN(WIDTH, 16, 3, 5, **how),
    "sage": lambda **how: BitGraphSAGE(WIDTH, 16, 3, 5, **how),
    "gat": lambda **how: BitGAT(WIDTH, 16, 3, 5, heads=4, **how),
    "gatv2": lambda **how: BitGAT(WIDTH, 16, 2, 5, heads=2, v2=True, **how),
    "sgc": lambda **how: BitSGC(WIDTH, 5, **how),
}


@pytest.mark.parametrize(
    "quant", ["b158", None, QuantConfig(granularity="channel", layer_norm=True)]
)
@pytest.mark.parametrize("name", MODELS)
def test_ternary_models(name, quant, graph):
    torch.manual_seed(1)
    found, expected = assert_same(MODELS[name](quant=quant), *graph)
    assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))


@pytest.mark.parametrize("cls", [GCN, GraphSAGE, GAT, GIN])
def test_models_of_pyg(cls, graph):
    torch.manual_seed(1)
    assert_same(cls(WIDTH, 16, 2, 5, norm="batch_norm"), *graph)


def test_converted_models(graph):
    torch.manual_seed(1)
    assert_same(convert(GIN(WIDTH, 16, 2, 5)), *graph)
    assert_same(convert(GAT(WIDTH, 16, 2, 5, heads=2)), *graph)


@pytest.mark.parametrize("jk", ["last", "cat", "max", "lstm"])
@pytest.mark.parametrize("quant", ["b158", None])
def test_jumping_knowledge(jk, quant, graph, tmp_path):
    torch.manual_seed(1)
    model = BitGraphSAGE(WIDTH, 16, 3, 5, jk=jk, norm="batch_norm", quant=quant)
    found, _ = assert_same(model, *graph)
    again = layerwise_inference(model, *graph, batch_size=7, out=tmp_path / "out.npy")
    assert torch.equal(again, found)


@pytest.mark.parametrize(
    "how",
    [
        {"norm": "batch_norm", "act_first": True, "act": "elu"},
        {"norm": "layer_norm", "norm_kwargs": {"mode": "node"}, "act": None},
        {"norm": nn.LayerNorm(16), "dropout": 0.5, "out_channels": None},
    ],
)
def test_what_comes_behind_a_layer(how, graph):
    torch.manual_seed(1)
    assert_same(BitGCN(WIDTH, 16, 3, **how), *graph)


CONVS = [
    *((cls, {}) for cls in (GCNConv, BitGCNConv, SAGEConv, BitSAGEConv, GATConv, BitGATConv)),
    *((GCNConv, how) for how in ({"normalize": False}, {"add_self_loops": False}, {"bias": False})),
    (BitGCNConv, {"improved": True, "cached": True}),
    (SAGEConv, {"project": True, "normalize": True}),
    *((BitSAGEConv, {"aggr": aggr}) for aggr in ("max", "sum", "min", ["mean", "max"])),
    (BitSAGEConv, {"project": True, "root_weight": False}),
    (BitSAGEConv, {"project": True}),
    (BitGATConv, {"heads": 3, "concat": False, "residual": True}),
    (GATConv, {"heads": 3, "add_self_loops": False, "bias": False}),
    (GATConv, {"heads": 3, "residual": True, "edge_dim": 2}),
    (BitGATConv, {"heads": 2, "aggr": "mean"}),
    (SGConv, {"K": 3, "add_self_loops": False}),
    (SGConv, {"K": 0}),
]


@pytest.mark.parametrize(("cls", "how"), CONVS)
def test_layers_alone(cls, how, graph):
    cls(WIDTH, 6)  # PyG compiles a class for the first of its layers.
    torch.manual_seed(1)
    assert_same(cls(WIDTH, 6, **how), *graph)


def test_other_layers_alone(graph):
    torch.manual_seed(1)
    assert_same(EdgeConv(nn.Linear(2 * WIDTH, 6)), *graph)


@pytest.mark.parametrize("improved", [False, True])
def test_weights_of_edges(improved, graph):
    torch.manual_seed(1)
    x, edges = graph[0], graph[1].unique(dim=1)
    weight = torch.rand(edges.size(1)) + 0.1
    model = BitGCN(WIDTH, 16, 2, 5, improved=improved)
    assert_same(model, x, edges, weight)
    assert_same(model, x, to_torch_csr_tensor(edges.flip(0), weight, size=NODES))
    assert_same(BitSGC(WIDTH, 5), x, edges, weight)


@pytest.mark.parametrize("cls", [MLP, BitMLP])
def test_without_edges(cls, graph):
    torch.manual_seed(1)
    assert_same(cls([WIDTH, 16, 5]), graph[0])


@st.composite
def graphs(draw):
    nodes = draw(st.integers(1, 12))
    node = st.integers(0, nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=40))
    x = torch.randn(nodes, 4, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return x, torch.tensor(edges, dtype=torch.long).view(-1, 2).t()


@settings(max_examples=25)
@given(
    graphs(),
    st.sampled_from([BitGCN, BitGraphSAGE, BitGAT]),
    st.sampled_from(["b158", None]),
    st.integers(1, 13),
)
def test_any_graph(drawn, cls, quant, batch_size):
    torch.manual_seed(1)
    how = {"heads": 2} if cls is BitGAT else {}
    assert_same(cls(4, 6, 2, 3, quant=quant, **how), *drawn, batch_size=batch_size)


@pytest.mark.parametrize("name", MODELS)
def test_ranges_change_nothing_but_roundings(name, graph):
    torch.manual_seed(1)
    model = settle(MODELS[name]())
    sizes = [layerwise_inference(model, *graph, batch_size=size) for size in (1, 16, NODES, 1000)]
    for other in sizes[1:]:
        torch.testing.assert_close(other, sizes[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", [GraphSAGE, BitGCN])
def test_features_in_another_order(cls, graph):
    torch.manual_seed(1)
    x, edges = graph
    assert_same(cls(WIDTH, 16, 2, 5), x.t().contiguous().t(), edges)


def test_double(graph):
    torch.manual_seed(1)
    model = settle(BitGCN(WIDTH, 16, 3, 5)).double()
    found, expected = assert_same(model, graph[0].double(), graph[1])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_files(name, graph, tmp_path):
    torch.manual_seed(1)
    x, edges = graph
    x.numpy().tofile(tmp_path / "x")
    mapped = torch.from_file(str(tmp_path / "x"), size=x.numel()).view(x.shape)
    model, out = settle(MODELS[name]()), tmp_path / "out.npy"
    expected = layerwise_inference(model, x, edges, batch_size=7)
    found = layerwise_inference(model, mapped, edges, batch_size=7, out=out)
    assert torch.equal(found, expected)
    assert np.array_equal(np.load(out), expected.numpy())
    assert {path.name for path in tmp_path.iterdir()} == {"x", "out.npy"}
    assert torch.equal(mapped, x)  # Features are read only.


def test_no_nodes():
    x, edges = torch.empty(0, WIDTH), torch.empty(2, 0, dtype=torch.long)
    for make in MODELS.values():
        assert layerwise_inference(make().eval(), x, edges).shape == (0, 5)


def test_progress(graph, capsys):
    layerwise_inference(BitGCN(WIDTH, 16, 2, 5).eval(), *graph, batch_size=20, progress=True)
    captured = capsys.readouterr()
    assert "convs.1, edges" in captured.err and f"{NODES}/{NODES}" in captured.err
    assert captured.out == ""
    layerwise_inference(BitGCN(WIDTH, 16, 2, 5).eval(), *graph)
    assert capsys.readouterr().err == ""


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_on_a_gpu(name, graph):
    torch.manual_seed(1)
    model = settle(MODELS[name]())
    expected = layerwise_inference(model, *graph)
    found = layerwise_inference(model.cuda(), *graph, batch_size=7, device="cuda")
    assert found.device.type == "cpu"
    assert (found - expected).square().mean().sqrt() < 1e-3 * expected.abs().max()


class Other(BitGCN):
    def forward(self, x, edge_index):
        return super().forward(x, edge_index) + 1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (GCN(WIDTH, 16, 2).train(), r"in training mode: call `model.eval\(\)`"),
        (GCN(WIDTH, 16, 2, norm="graph_norm").eval(), r"'norms.0' \(GraphNorm.* all nodes at once"),
        (GCN(WIDTH, 16, 2, norm="layer_norm").eval(), r"LayerNorm\(mode='node'\)"),
        (
            GCN(WIDTH, 16, 2, norm=nn.BatchNorm1d(16, track_running_stats=False)).eval(),
            "all nodes at once",
        ),
        (BitMLP([WIDTH, 16, 5], norm="instance_norm").eval(), "all nodes at once"),
        (GCN(WIDTH, 16, 2, aggr="max").eval(), r"'convs.0' \(GCNConv, aggr='max'\) cannot be run"),
        (
            GraphConv(WIDTH, 16).eval(),
            r"'GraphConv' .* cannot be run .* GCNConv, SAGEConv, GATConv",
        ),
        (nn.Linear(WIDTH, 16).eval(), "'Linear' .* Call the model on the whole graph"),
        (Other(WIDTH, 16, 2).eval(), "'Other' has a forward of its own"),
        (SAGEConv(WIDTH, 16, flow="target_to_source").eval(), "against edges .*: turn the edges"),
        (SGConv(WIDTH, 16, flow="target_to_source").eval(), "against edges"),
    ],
)
def test_models_that_cannot(model, message, graph):
    with pytest.raises(ValueError, match=message):
        layerwise_inference(model, *graph)


def test_an_lstm_needs_edges_in_each_range(graph):
    SAGEConv(WIDTH, 16)  # PyG compiles the class for the first of its layers.
    with pytest.raises(ValueError, match=r"'SAGEConv' \(SAGEConv, aggr='lstm'\) cannot be run"):
        layerwise_inference(SAGEConv(WIDTH, 16, aggr="lstm").eval(), *graph)


def test_inputs_that_do_not_fit(graph):
    (x, edges), model = graph, BitGCN(WIDTH, 16, 2).eval()
    with pytest.raises(TypeError, match=r"dense matrix.*\(got torch.sparse_csr, 2 dimensions\)"):
        layerwise_inference(model, x.to_sparse_csr(), edges)
    with pytest.raises(TypeError, match="got ndarray"):
        layerwise_inference(model, x.numpy(), edges)
    with pytest.raises(TypeError, match="'model' must be a torch.nn.Module"):
        layerwise_inference(lambda x: x, x, edges)
    with pytest.raises(ValueError, match="'batch_size' must be at least 1"):
        layerwise_inference(model, x, edges, batch_size=0)
    with pytest.raises(ValueError, match="'BitGCN' reads edges: pass 'edge_index'"):
        layerwise_inference(model, x)
    with pytest.raises(ValueError, match="takes no weights of edges"):
        layerwise_inference(BitGraphSAGE(WIDTH, 16, 2).eval(), x, edges, torch.ones(edges.size(1)))


MEMORY = """
import json, sys, threading, time, torch
from pathlib import Path
from bitgnn.nn import BitGCN, layerwise_inference

torch.set_num_threads(1)
nodes, degree, width, batch = 120_000, 8, 64, 4_096
target = torch.arange(nodes).repeat_interleave(degree)
edges = torch.stack([torch.randint(nodes, target.shape), target])
x = torch.randn(nodes, width)
model = BitGCN(width, width, 3, 8).eval()
layerwise_inference(model, x[:10], edges[:, :0], batch_size=batch)

def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

def peak(out):
    # Of private memory, above what was there before.
    found, done, before = 0, threading.Event(), private()

    def watch():
        nonlocal found
        while not done.is_set():
            found = max(found, private())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    layerwise_inference(model, x, edges, batch_size=batch, out=out)
    done.set()
    watcher.join()
    return found - before

kept = 4 * nodes * 2 * width
rest = 16 * nodes + 24 * batch * 2 * width + 72 * batch * degree
print(json.dumps({"files": peak(sys.argv[1]), "memory": peak(None), "kept": kept, "rest": rest}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells private memory")
def test_memory_is_what_the_formula_says(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", MEMORY, str(tmp_path / "out.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    spare = 8 << 20  # of the allocator and the interpreter
    assert found["files"] <= found["rest"] + spare
    assert found["memory"] <= found["kept"] + found["rest"] + spare
    assert found["memory"] > found["kept"] / 2  # else it measures something else


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("improved", [True, False])
@pytest.mark.parametrize("build", [BitGCN, GCN])
def test_self_loops_of_a_matrix(build, improved, weighted):
    torch.manual_seed(12)
    matrix = torch.rand(9, 9).mul_(torch.rand(9, 9) < 0.4)
    matrix.fill_diagonal_(0.5)[3, 3] = 0.0
    matrix = matrix if weighted else (matrix > 0).float()
    x, model = torch.randn(9, 4), build(4, 8, 2, 3, improved=improved).eval()
    adj_t = matrix.to_sparse_csr()
    with torch.no_grad():
        expected = model(x, adj_t)
    found = layerwise_inference(model, x, adj_t, batch_size=4)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_edges_of_other_kinds():
    torch.manual_seed(12)
    x, edges, model = torch.randn(9, 4), torch.randint(9, (2, 30)), BitGCN(4, 8, 2, 3).eval()
    expected = layerwise_inference(model, x, edges)
    assert torch.equal(layerwise_inference(model, x, EdgeIndex(edges)), expected)
    crow, col = torch.tensor([0, 30, 0, 0, 0, 0, 0, 0, 0, 30]), edges[0]
    damaged = torch.sparse_csr_tensor(crow, col, torch.ones(30), (9, 9), check_invariants=False)
    with pytest.raises(ValueError, match="rows do not start in ascending order from 0 to 30"):
        layerwise_inference(model, x, damaged)
