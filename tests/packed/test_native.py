import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bitgnn import QuantConfig
from bitgnn.kernels import native as kernels
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
from bitgnn.packed import pack, prepare, reference
from bitgnn.packed.native import NativeProgram

pytestmark = pytest.mark.skipif(not kernels.enabled(), reason="There are no native kernels")

ONE_LAYER = {
    "linear": lambda k, n: BitLinear(k, n),
    "plain linear": lambda k, n: nn.Linear(k, n),
    "gcn": lambda k, n: BitGCNConv(k, n),
    "plain gcn": lambda k, n: BitGCNConv(k, n, quant=None),
    "gat": lambda k, n: BitGATConv(k, n),
    "gat of 3 heads": lambda k, n: BitGATConv(k, n, heads=3),
    "gat, mean of heads": lambda k, n: BitGATConv(k, n, heads=2, concat=False),
    "sage": lambda k, n: BitSAGEConv(k, n),
    "sage of sums": lambda k, n: BitSAGEConv(k, n, aggr="sum"),
    "sage of maxima": lambda k, n: BitSAGEConv(k, n, aggr="max"),
    "plain sage": lambda k, n: BitSAGEConv(k, n, quant=None),
    "sgc": lambda k, n: BitSGC(k, n, K=2),
}
DEEP = {
    "mlp": lambda: BitMLP([19, 33, 33, 5], norm="batch_norm"),
    "gcn": lambda: BitGCN(19, 40, 3, 5, norm="batch_norm"),
    "sage": lambda: BitGraphSAGE(19, 33, 3, 5, act="elu"),
    "gat": lambda: BitGAT(19, 48, 3, 5, heads=4, act="elu"),
    "jumps": lambda: BitGCN(19, 24, 3, 5, jk="cat", norm="layer_norm"),
    "channel": lambda: BitGCN(
        19, 24, 2, 5, quant=QuantConfig(granularity="channel", weight_measure="absmedian")
    ),
    "few bits": lambda: BitGraphSAGE(19, 24, 2, 5, quant=QuantConfig(activation_bits=4)),
}


def both(model, x, edge_index, exact):
    """What a model makes natively, and by its reference."""
    program = pack(model.eval()).program
    graph = prepare(edge_index, x.size(0)) if program.reads_edges else None
    run = NativeProgram(program, x.size(1), exact)
    return run(x, graph), reference.run(program, x, graph)


def inputs(rows, columns, edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator)
    shape = (2, edges if rows else 0)
    return x, torch.randint(max(rows, 1), shape, generator=generator)


@pytest.mark.parametrize("layer", ONE_LAYER)
@settings(max_examples=15, deadline=None)
@given(
    rows=st.sampled_from([0, 1, 2, 17, 33, 70]),
    columns=st.integers(1, 80),
    width=st.integers(1, 70),
    edges=st.sampled_from([0, 1, 90, 300]),
    exact=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_layer_is_its_reference(layer, rows, columns, width, edges, exact, seed):
    torch.manual_seed(seed)
    model = ONE_LAYER[layer](columns, width)
    found, expected = both(model, *inputs(rows, columns, edges, seed), exact)
    assert found.shape == expected.shape
    assert_close(found, expected, exact)


def assert_close(found, expected, exact):
    if expected.numel() == 0:
        return
    error = (found - expected).abs() / expected.abs().max().clamp(min=1e-6)
    # Other orders of a sum round a number that lies between two integers to another of the two.
    if exact:
        assert (error <= 1e-5).float().mean() > 0.8
    assert error.square().mean().sqrt() < 2e-3


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", DEEP)
def test_models_of_several_layers(name, exact):
    torch.manual_seed(12)
    assert_close(*both(DEEP[name](), *inputs(200, 19, 900), exact), exact)


def test_hubs_and_nodes_without_edges():
    x = torch.randn(300, 24)
    hub = torch.stack([torch.arange(300), torch.zeros(300, dtype=torch.long)])
    for build in (BitGCNConv, BitSAGEConv, BitGATConv):
        for edges in (hub, hub.flip(0)):
            assert_close(*both(build(24, 16), x, edges, True), True)


def bags(rows, columns, share, seed=0):
    """Rows most of whose numbers are 0; some rows have nothing else."""
    generator = torch.Generator().manual_seed(seed)
    there = torch.rand(rows, columns, generator=generator) < share
    return torch.where(there, torch.randn(rows, columns, generator=generator), 0.0)


@pytest.mark.parametrize("layer", ONE_LAYER)
@settings(max_examples=10, deadline=None)
@given(
    rows=st.sampled_from([0, 1, 33, 70]),
    columns=st.sampled_from([1, 60, 300, 700]),
    width=st.integers(1, 150),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    exact=st.booleans(),
    seed=st.integers(0, 99),
)
def test_sparse_features_are_dense_ones(layer, rows, columns, width, share, exact, seed):
    torch.manual_seed(seed)
    program = pack(ONE_LAYER[layer](columns, width).eval()).program
    x, (_, edge_index) = bags(rows, columns, share, seed), inputs(rows, 1, 300, seed)
    graph = prepare(edge_index, rows) if program.reads_edges else None
    found = NativeProgram(program, columns, exact, sparse=True)(x.to_sparse_csr(), graph)
    expected = NativeProgram(program, columns, exact)(x, graph)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_features_of_any_size(size):
    for name in ("linear", "gcn", "sage"):
        x, edge_index = inputs(50, 24, 200)
        x[3] = 0.0
        found, expected = both(ONE_LAYER[name](24, 16), x * size, edge_index, True)
        assert found.isfinite().all()
        assert_close(found / size, expected / size, True)


def numbers():
    """What models of all kinds make."""
    found = []
    for exact in (False, True):
        for name in DEEP:
            torch.manual_seed(12)
            x, edge_index = inputs(500, 19, 3000)
            packed = pack(DEEP[name]().eval())
            found.append(packed(x, edge_index, exact=exact))
            found.append(packed(x.relu().to_sparse_csr(), edge_index, exact=exact))
    return found


def test_threads_change_no_number(by_threads):
    found = by_threads(numbers)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512", "avx512vnni", "neon"])
def test_other_processors_make_the_same(isa, on_processor):
    there = on_processor(isa, __file__)
    for a, b in zip(there, numbers(), strict=True):
        assert_close(a, b, True)


def test_wrong_width():
    packed = pack(BitGCN(8, 16, 2, 4))
    x, edge_index = inputs(10, 9, 20)
    with pytest.raises(ValueError, match="'x' has 9 columns, of which 'convs.0.lin' gets 9: it"):
        packed(x, edge_index)
