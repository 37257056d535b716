"""A graph as a CSR matrix: the numbers of PyG's layers on the same graph as edges."""

import pytest
import torch
from torch_geometric.nn import GATConv, GCNConv, SAGEConv, SGConv
from torch_geometric.utils import remove_self_loops, to_torch_csr_tensor

from bitgnn.kernels import vouch
from bitgnn.nn import BitGATConv, BitGCNConv, BitSAGEConv, BitSGConv
from bitgnn.nn.conv import gat

N, F_IN, F_OUT = 20, 8, 6

CASES = {
    "gcn": (GCNConv, BitGCNConv, {}),
    "gcn-cached": (GCNConv, BitGCNConv, {"cached": True}),
    "gcn-raw": (GCNConv, BitGCNConv, {"normalize": False, "bias": False}),
    "sage": (SAGEConv, BitSAGEConv, {}),
    "sage-sum": (SAGEConv, BitSAGEConv, {"aggr": "sum", "normalize": True}),
    "sage-max": (SAGEConv, BitSAGEConv, {"aggr": "max"}),
    "sage-project": (SAGEConv, BitSAGEConv, {"project": True, "root_weight": False}),
    "gat": (GATConv, BitGATConv, {"heads": 2}),
    "gat-mean": (GATConv, BitGATConv, {"heads": 3, "concat": False, "residual": True}),
    "gat-raw": (GATConv, BitGATConv, {"add_self_loops": False, "bias": False}),
    "gat-slope": (GATConv, BitGATConv, {"negative_slope": 0.0}),
    "sg": (SGConv, BitSGConv, {}),
    "sg-hops": (SGConv, BitSGConv, {"K": 3, "bias": False}),
}
every_case = pytest.mark.parametrize("case", CASES)
# `max` takes PyG's way, which knows no sparse features and, of equal ones, finds another largest.
cases_of_sums = pytest.mark.parametrize("case", [c for c in CASES if c != "sage-max"])


@pytest.fixture
def edge_index():
    # Directed, with isolated nodes and without self-loops, which PyG treats differently in its
    # two forms of a graph.
    edges = torch.randint(0, N - 2, (2, 60)).unique(dim=1)
    return remove_self_loops(edges)[0]


@pytest.fixture
def adj_t(edge_index):
    return to_torch_csr_tensor(edge_index.flip(0), size=N)


def build(case, quant=None):
    original, twin, kwargs = CASES[case]
    conv = twin(F_IN, F_OUT, quant=quant, **kwargs)
    other = original(F_IN, F_OUT, **kwargs)
    other.load_state_dict(conv.state_dict())
    return conv, other


def assert_equal_steps(conv, inputs, other, other_inputs, atol=1e-5):
    outs = conv(*inputs), other(*other_inputs)
    torch.testing.assert_close(*outs, atol=atol, rtol=1e-4)
    grad = torch.randn_like(outs[0])
    results = []
    for out, layer, (x, *_) in zip(outs, (conv, other), (inputs, other_inputs), strict=True):
        leaves = [*layer.parameters(), *([x] if x.requires_grad else [])]
        results.append(torch.autograd.grad(out, leaves, grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=10 * atol, rtol=1e-4)


@every_case
def test_off_equals_pyg_on_edges(case, edge_index, adj_t):
    conv, original = build(case)
    x = torch.randn(N, F_IN, requires_grad=True)
    for _ in range(2):
        assert_equal_steps(conv, (x, adj_t), original, (x, edge_index))


@cases_of_sums
@pytest.mark.parametrize("quant", ["b158", "reloaded"])
def test_quantized_equals_itself_on_edges(case, quant, edge_index, adj_t):
    # In 64 bits: where rounding errors decide, an aggregate is not quantized in two ways.
    conv, _ = build(case, quant)
    conv = conv.double()
    other, _ = build(case, quant)
    other = other.double()
    other.load_state_dict(conv.state_dict())
    x = torch.randn(N, F_IN, dtype=torch.float64, requires_grad=True)
    assert_equal_steps(conv, (x, adj_t.double()), other, (x, edge_index), atol=1e-10)


@cases_of_sums
@pytest.mark.parametrize("quant", [None, "b158", "reloaded"])
def test_sparse_features_equal_dense_features(case, quant, adj_t):
    # In 64 bits, for the same reason.
    adj_t = adj_t.double()
    conv, _ = build(case, quant)
    other, _ = build(case, quant)
    conv, other = conv.double(), other.double()
    other.load_state_dict(conv.state_dict())
    x = torch.randn(N, F_IN, dtype=torch.float64).relu()
    sparse = x.to_sparse_csr()
    for _ in range(6):  # Static features are quantized and aggregated once.
        assert_equal_steps(conv, (sparse, adj_t), other, (x, adj_t), atol=1e-10)
    conv.eval(), other.eval()
    torch.testing.assert_close(conv(sparse, adj_t), other(x, adj_t))


def test_aggregates_of_static_features_are_kept_until_something_changes(adj_t):
    conv, _ = build("sage")
    x = torch.randn(N, F_IN)
    vouch(x)
    vouch(adj_t)
    for _ in range(3):
        conv(x, adj_t)
    kept = conv._aggregates._kept
    conv(x, adj_t)
    assert kept is not None and conv._aggregates._kept is kept
    for change in (lambda: x.add_(1), lambda: adj_t.values().mul_(3)):
        change()
        fresh, _ = build("sage")
        fresh.load_state_dict(conv.state_dict())
        torch.testing.assert_close(conv(x, adj_t), fresh(x, adj_t))


def test_cached_features_of_sgc_stay_sparse():
    adj_t = torch.diag(torch.ones(N - 1), 1).to_sparse_csr()
    conv = BitSGConv(N, F_OUT, K=2, cached=True)
    x = torch.eye(N).to_sparse_csr()
    out = conv(x, adj_t)
    assert conv._cached_x.layout == torch.sparse_csr
    for _ in range(4):
        torch.testing.assert_close(conv(x, adj_t), out)
    assert conv.lin._rows._integers._kept is not None


@pytest.fixture
def attended(monkeypatch):
    calls = []
    attend = gat.graph_attention
    monkeypatch.setattr(gat, "graph_attention", lambda *args: calls.append(1) or attend(*args))
    return calls


def test_gat_attends_over_the_matrix_where_it_can(attended, edge_index, adj_t):
    x, conv = torch.randn(N, F_IN), BitGATConv(F_IN, F_OUT)
    conv(x, adj_t)
    assert len(attended) == 1
    conv(x, edge_index)
    conv(x, adj_t, size=(N, N))
    conv(x, adj_t, return_attention_weights=True)
    conv((x, x), adj_t)
    assert len(attended) == 1
    conv.explain = True  # Explanations mask messages, of which a product has none.
    assert not conv._attends(x, adj_t)


def test_gat_of_what_only_pyg_computes(attended, adj_t):
    x = torch.randn(N, F_IN)
    out = BitGATConv((F_IN, F_IN), F_OUT, add_self_loops=False)((x, x), adj_t)
    assert out.size() == (N, F_OUT)
    with_edges = BitGATConv(F_IN, F_OUT, edge_dim=1, add_self_loops=False)
    assert with_edges(x, adj_t).size() == (N, F_OUT)
    assert attended == []
    with pytest.raises(ValueError, match="Flow direction .* is invalid"):
        BitGATConv(F_IN, F_OUT, flow="target_to_source")(x, adj_t)


def test_gat_replaces_self_loops_as_on_edges(edge_index):
    edges = torch.cat([edge_index, torch.tensor([[1, 4], [1, 4]])], dim=1)
    adj_t = to_torch_csr_tensor(edges.flip(0), size=N)
    conv, original = build("gat")
    x = torch.randn(N, F_IN, requires_grad=True)
    assert_equal_steps(conv, (x, adj_t), original, (x, edges))


def test_gat_dropout_of_attention(adj_t):
    x = torch.randn(N, F_IN)
    conv = BitGATConv(F_IN, F_OUT, dropout=0.5)
    assert not torch.allclose(conv(x, adj_t), conv(x, adj_t))
    conv.eval()
    assert torch.equal(conv(x, adj_t), conv(x, adj_t))


@pytest.mark.parametrize("case", ["gcn", "sage", "gat", "sg"])
@pytest.mark.parametrize("quant", [None, "b158"])
def test_matrix_without_edges(case, quant):
    adj_t = torch.zeros(N, N).to_sparse_csr()
    conv, _ = build(case, quant)
    edges = torch.empty(2, 0, dtype=torch.long)
    x = torch.randn(N, F_IN, requires_grad=True)
    assert_equal_steps(conv, (x, adj_t), conv, (x, edges))


@pytest.mark.parametrize("case", ["gcn", "sage", "sg"])
def test_off_still_scripts(case, edge_index):
    conv, _ = build(case)
    x = torch.randn(N, F_IN)
    torch.testing.assert_close(torch.jit.script(conv)(x, edge_index), conv(x, edge_index))


@pytest.mark.parametrize("case", [case for case in CASES if "gat" not in case])
def test_gradients_of_learned_weights_of_edges(case, adj_t):
    original, twin, kwargs = CASES[case]
    torch.manual_seed(1)
    pygs, off, ternary = (
        make(F_IN, F_OUT, **kwargs, **quant)
        for make, quant in ((original, {}), (twin, {"quant": None}), (twin, {}))
    )
    off.load_state_dict(pygs.state_dict())
    weight = torch.rand(adj_t.values().numel(), requires_grad=True)
    x, found = torch.randn(N, F_IN), []
    for conv in (pygs, off, ternary):
        parts = adj_t.crow_indices(), adj_t.col_indices(), weight
        out = conv(x, torch.sparse_csr_tensor(*parts, adj_t.shape))
        found.append(torch.autograd.grad(out.square().sum(), weight)[0])
    torch.testing.assert_close(found[1], found[0])
    assert bool(found[2].isfinite().all()) and bool(found[2].any())
