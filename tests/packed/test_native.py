from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.nn import HeteroConv, to_hetero
from torch_geometric.nn.resolver import aggregation_resolver

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
from bitgnn.packed.program import Edges, Program, Step
from bitgnn.quant import dequantize_rows, quantize_rows

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


@settings(max_examples=60, deadline=None)
@given(
    heads=st.sampled_from([1, 2, 3, 4, 5, 8, 16, 20]),
    channels=st.sampled_from([1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 40, 48, 63, 64, 65, 130]),
    concat=st.booleans(),
    exact=st.booleans(),
    self_loops=st.booleans(),
    seed=st.integers(0, 99),
)
def test_attention_of_any_heads_and_channels(heads, channels, concat, exact, self_loops, seed):
    torch.manual_seed(seed)
    model = BitGATConv(12, channels, heads=heads, concat=concat, add_self_loops=self_loops)
    found, expected = both(model, *inputs(40, 12, 200, seed), exact)
    assert found.shape == expected.shape
    assert_close(found, expected, exact)


@pytest.mark.parametrize("heads", [1, 2, 4, 8, 3])
@pytest.mark.parametrize("factor", [1e2, 1e4])
def test_attention_with_scores_whose_powers_are_no_numbers(heads, factor):
    torch.manual_seed(heads)
    model = BitGATConv(12, 16, heads=heads, negative_slope=1.0)
    x, edge_index = inputs(40, 12, 200)
    for sign in (1, -1):  # powers of all edges of a target overflow, or are zero
        with torch.no_grad():
            model.att_dst.copy_(sign * factor * torch.rand_like(model.att_dst))
            model.att_src.copy_(torch.rand_like(model.att_src))
        found, expected = both(model, x, edge_index, True)
        assert found.isfinite().all()
        assert_close(found, expected, True)


def test_attention_to_what_is_no_number():
    x, edge_index = inputs(40, 12, 200)
    x[3] = float("nan")
    found, expected = both(BitGATConv(12, 16, heads=8), x, edge_index, True)
    assert torch.equal(found.isnan(), expected.isnan()) and found.isnan().any()


def test_rows_that_pass_by_the_caches():
    model = pack(BitGATConv(4, 32, heads=8).eval())  # 34 MB of 16-bit rows, 68 MB of output
    x, edge_index = inputs(66_000, 4, 300)
    few = edge_index % 50
    for first in (0, 65_950):
        rows = slice(first, first + 50)
        whole = model(x, prepare(few + first, x.size(0)))
        assert torch.equal(whole[rows], model(x[rows], prepare(few, 50)))


def test_hubs_and_nodes_without_edges():
    x = torch.randn(300, 24)
    hub = torch.stack([torch.arange(300), torch.zeros(300, dtype=torch.long)])
    heads = partial(BitGATConv, heads=8, add_self_loops=False)
    for build in (BitGCNConv, BitSAGEConv, BitGATConv, heads):
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
    positive=st.booleans(),
    exact=st.booleans(),
    seed=st.integers(0, 99),
)
def test_sparse_features_are_dense_ones(layer, rows, columns, width, share, positive, exact, seed):
    torch.manual_seed(seed)
    program = pack(ONE_LAYER[layer](columns, width).eval()).program
    x, (_, edge_index) = bags(rows, columns, share, seed), inputs(rows, 1, 300, seed)
    x = x.abs() if positive else x
    graph = prepare(edge_index, rows) if program.reads_edges else None
    found = NativeProgram(program, columns, exact, sparse=True)(x.to_sparse_csr(), graph)
    expected = NativeProgram(program, columns, exact)(x, graph)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 40), width=st.integers(1, 80), edges=st.integers(0, 300))
def test_exact_sums_of_integers_are_those_of_pyg(reduce, rows, width, edges):
    x, edge_index = inputs(rows, width, edges)
    attrs = {"bits": 8, "full_range": False, "eps": 1e-8}
    steps = (
        Step("quantize", (0,), attrs=attrs),
        Step("aggregate", (1,), attrs={"reduce": reduce}, edges=Edges()),
    )
    x_q = dequantize_rows(*quantize_rows(x, QuantConfig()))
    src, dst = edge_index
    expected = aggregation_resolver(reduce)(x_q[src], dst, dim_size=rows)
    found = NativeProgram(Program(steps), width, exact=True)(x, prepare(edge_index, rows))
    assert torch.equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 25]),
    width=st.integers(1, 200),
    bits=st.integers(2, 8),
    full_range=st.booleans(),
    kind=st.sampled_from(["halves", "positive halves", "any"]),
    sparse=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rows_are_rounded_to_the_last_bit(rows, width, bits, full_range, kind, sparse, seed):
    high = 2 ** (bits - 1) - (0 if full_range else 1)
    attrs = {"bits": bits, "full_range": full_range, "eps": 1e-8}
    eye = torch.eye(width, dtype=torch.int8)
    same = Step(
        "linear",
        (1,),
        attrs={"bits": 1.58, "rescale_bias": False},
        tensors={"weight": eye, "scale": torch.ones(1)},
    )
    program = Program((Step("quantize", (0,), attrs=attrs), same))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator)
    if kind != "any":  # All lie between two integers, with a scale of 1 / 4.
        x = torch.randint(-high, high, x.shape, generator=generator) + 0.5
        x = (x.abs() if kind.startswith("positive") else x) / 4
        x[:, 0] = high / 4 if kind.startswith("positive") else -high / 4
    scale = (x.abs().amax(dim=1, keepdim=True) / high).clamp(min=1e-8)
    expected = (x / scale).round().clamp(-high, 2 ** (bits - 1) - 1)
    features = x.to_sparse_csr() if sparse else x
    found = NativeProgram(program, width, sparse=sparse)(features, None)
    assert torch.equal(found, expected * scale)


def test_what_an_earlier_run_has_left_counts_for_nothing():
    # The values of 17 columns lie half a row apart in the two runs.
    generator = torch.Generator().manual_seed(12)
    first, second = (torch.randn(n, k, generator=generator) for n, k in ((7, 17), (17, 7)))
    ternary = torch.randint(-1, 2, (9, 17), generator=generator, dtype=torch.int8)

    def linear(read, weight, bits=None, **scale):
        attrs = {"bits": bits, "rescale_bias": False}
        return Step("linear", (read,), attrs=attrs, tensors={"weight": weight, **scale})

    def gathered(read):
        yield Step("act", (read,), attrs={"kind": "relu"})
        yield Step("aggregate", (read + 1,), attrs={"reduce": "sum"}, edges=Edges())

    quantize = Step("quantize", (6,), attrs={"bits": 8, "full_range": False, "eps": 1e-8})
    steps = [linear(0, first), *gathered(1), linear(3, second), *gathered(4), quantize]
    program = Program((*steps, linear(7, ternary, 1.58, scale=torch.ones(1))))
    run = NativeProgram(program, 17)
    for rows, size in ((90, 1e6), (40, 1.0)):
        x, edge_index = inputs(rows, 17, 4 * rows)
        graph = prepare(edge_index, rows)
        assert_close(run(size * x, graph), reference.run(program, size * x, graph), True)


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
            edges = edge_index if packed.program.reads_edges else None
            found.append(packed(x, edges, exact=exact))
            found.append(packed(x.relu().to_sparse_csr(), edges, exact=exact))
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


WRITES, CITES, BY = ("author", "writes", "paper"), ("paper", "cites", "paper"), (
    "paper", "rev_writes", "author",
)  # fmt: skip
METADATA = (["paper", "author"], [WRITES, CITES, BY])
SEVERAL_TYPES = {
    "sage": lambda: to_hetero(BitGraphSAGE((-1, -1), 33, 3, 5, act="elu"), METADATA),
    "norm": lambda: to_hetero(
        BitGraphSAGE((-1, -1), 24, 2, 5, norm="batch_norm", jk="cat"), METADATA, aggr="mean"
    ),
    "maxima": lambda: to_hetero(BitGraphSAGE((-1, -1), 24, 2, 5), METADATA, aggr="max"),
    "32-bit": lambda: to_hetero(BitGraphSAGE((-1, -1), 24, 2, 5, quant=None), METADATA),
    "gat, gcn": lambda: HeteroConv(
        {
            WRITES: BitSAGEConv((-1, -1), 24, aggr="max", normalize=True),
            CITES: BitGATConv(-1, 12, heads=2, add_self_loops=False),
            BY: BitSAGEConv((-1, -1), 24, root_weight=False),
            ("author", "knows", "author"): BitGCNConv(-1, 24),
        }
    ),
}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("sizes", [(90, 40), (7, 200), (1, 1), (30, 0)], ids=str)
@pytest.mark.parametrize("name", SEVERAL_TYPES)
def test_several_types_of_nodes(name, sizes, exact):
    torch.manual_seed(12)
    papers, authors = sizes
    x = {"paper": torch.randn(papers, 19), "author": torch.randn(authors, 13)}
    ends = {"paper": papers, "author": authors}
    edges = {}
    for relation in (*METADATA[1], ("author", "knows", "author")):
        of = [ends[relation[0]], ends[relation[2]]]
        edges[relation] = torch.stack([torch.randint(max(n, 1), (300 * all(of),)) for n in of])
    model = SEVERAL_TYPES[name]()
    model({"paper": torch.randn(4, 19), "author": torch.randn(4, 13)}, {
        relation: torch.tensor([[0, 1], [2, 3]]) for relation in edges
    })  # fmt: skip
    program = pack(model.eval()).program
    graph = prepare(edges, ends)
    run = NativeProgram(program, {kind: each.size(1) for kind, each in x.items()}, exact)
    found, expected = run(x, graph), reference.run(program, x, graph)
    for kind, out in expected.items():
        assert found[kind].shape == out.shape
        assert_close(found[kind], out, exact)
    again = run(x, graph)
    assert all(torch.equal(again[kind], out) for kind, out in found.items())


def test_types_of_another_width():
    model = to_hetero(BitGraphSAGE((8, 8), 16, 1, 5), METADATA).eval()
    message = "{'paper': 8, 'author': 9} columns, of which 'convs.0.author__writes__paper.lin_l' ge"
    with pytest.raises(ValueError, match=message):
        NativeProgram(pack(model).program, {"paper": 8, "author": 9})
