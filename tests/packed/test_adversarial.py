"""Packed models on graphs and features that nobody would choose, against their reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitgnn import QuantConfig, pack, prepare
from bitgnn.kernels import native
from bitgnn.nn import (
    BitGATConv,
    BitGCNConv,
    BitLinear,
    BitSAGEConv,
    BitSGConv,
)
from bitgnn.packed import reference
from bitgnn.packed.native import NativeProgram

pytestmark = pytest.mark.skipif(not native.enabled(), reason="There are no native kernels")

LAYERS = {
    "linear": lambda k, n: BitLinear(k, n),
    "4 bits": lambda k, n: BitLinear(k, n, quant=QuantConfig(activation_bits=4, full_range=True)),
    "gcn": lambda k, n: BitGCNConv(k, n),
    "gcn in 32 bits": lambda k, n: BitGCNConv(k, n, quant=None),
    "sage": lambda k, n: BitSAGEConv(k, n),
    "sage of maxima": lambda k, n: BitSAGEConv(k, n, aggr="max"),
    "gat": lambda k, n: BitGATConv(k, n),
    "gat of 4 heads": lambda k, n: BitGATConv(k, n, heads=4),
    "gat of 300 heads": lambda k, n: BitGATConv(k, 1, heads=300),
    "mean of heads": lambda k, n: BitGATConv(k, n, heads=3, concat=False),
    "sgc": lambda k, n: BitSGConv(k, n, K=2),
}
# Around vectors, cache lines and blocks of rows.
ROWS = [1, 2, 3, 23, 24, 25, 47, 48, 49, 63, 64, 65, 129]
WIDTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 130]


def graph_of(kind, rows, generator):
    """Edges of a graph: none, all to one node, from one node, the same one many times, few."""
    count = {"none": 0, "few": rows}.get(kind, 3 * rows + 70)
    edges = torch.randint(rows, (2, count), generator=generator)
    if kind == "hub":
        edges[1] = rows - 1
    if kind == "star":
        edges[0] = 0
    if kind == "twice":
        edges[:] = rows // 2
    return edges


def features(kind, rows, columns, generator):
    x = torch.randn(rows, columns, generator=generator)
    if kind == "saturated":
        return x.sign() * 1e20  # Of every row all integers are the largest, and sums are finite.
    if kind == "denormal":
        return x * 1e-40
    if kind == "zero":
        return torch.zeros_like(x)
    if kind == "ties":  # Numbers in the middle of two integers.
        x = (x * 4).round() + 0.5
        x[:, 0] = 127.0
    if kind in ("nan", "inf"):
        x[rows // 2, columns // 2] = float(kind)
    return x


@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=25)
@given(
    rows=st.sampled_from(ROWS),
    columns=st.sampled_from(WIDTHS),
    width=st.sampled_from(WIDTHS),
    graph=st.sampled_from(["any", "none", "few", "hub", "star", "twice"]),
    kind=st.sampled_from(["usual", "saturated", "denormal", "zero", "ties", "nan", "inf"]),
    exact=st.booleans(),
    sparse=st.booleans(),
    seed=st.integers(0, 99),
)
def test_layers(layer, rows, columns, width, graph, kind, exact, sparse, seed):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    program = pack(LAYERS[layer](columns, width).eval()).program
    x = features(kind, rows, columns, generator)
    prepared = prepare(graph_of(graph, rows, generator), rows) if program.reads_edges else None
    run = NativeProgram(program, columns, exact, sparse)
    found = run(x.to_sparse_csr() if sparse else x, prepared)
    expected = reference.run(program, x, prepared)
    assert found.shape == expected.shape
    finite = expected.isfinite().all(dim=1)
    if kind in ("nan", "inf"):
        # What such a row does not reach is what it is without it.
        assert finite.sum() == 0 or found[finite].isfinite().all()
        if "maxima" not in layer:  # torch's largest of NaN and a number is NaN, the engine's not.
            assert not found[~finite].isfinite().all(dim=1).any()
    if not finite.any():
        return
    error = (found[finite].double() - expected[finite].double()).square().mean().sqrt()
    most = expected[finite].double().abs().max().clamp(min=1e-30)
    # A number in the middle of two integers may become the other one of them.
    assert error <= (0.02 if kind == "ties" else 5e-3) * most


@pytest.mark.parametrize("heads", [255, 256, 257, 300])
@pytest.mark.parametrize("concat", [True, False])
def test_many_heads(heads, concat):
    torch.manual_seed(2)
    model = BitGATConv(10, 2, heads=heads, concat=concat).eval()
    x, edges = torch.randn(12, 10), torch.randint(12, (2, 60))
    with torch.no_grad():
        expected = model(x, edges)
    torch.testing.assert_close(pack(model)(x, edges, exact=True), expected, rtol=1e-3, atol=1e-3)
