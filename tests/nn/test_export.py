"""Compiled and exported layers take any number of nodes and edges."""

import pytest
import torch
from torch.export import Dim, export
from torch.testing import assert_close

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
    BitSGConv,
    BitWideMLP,
)

WIDTH = 96
LAYERS = {
    "linear": lambda: BitLinear(WIDTH, 4),
    "gcn conv": lambda: BitGCNConv(WIDTH, 4),
    "sage conv": lambda: BitSAGEConv(WIDTH, 4),
    "gat conv": lambda: BitGATConv(WIDTH, 4, heads=2),
    "sg conv": lambda: BitSGConv(WIDTH, 4),
    "mlp": lambda: BitMLP([WIDTH, 80, 4]),
    "wide mlp": lambda: BitWideMLP(WIDTH, 80, 4),
    "gcn": lambda: BitGCN(WIDTH, 80, 2, 4),
    "sage": lambda: BitGraphSAGE(WIDTH, 80, 2, 4),
    "gat": lambda: BitGAT(WIDTH, 80, 2, 4, heads=2),
    "sgc": lambda: BitSGC(WIDTH, 4),
}
DENSE = ("linear", "mlp", "wide mlp")
# Below and above each number of values at which another form is the faster one: 2^17 and 2^20.
SIZES = (40, 2_000, 14_000)
EXAMPLES = (40, 14_000)
layers = pytest.mark.parametrize("name", LAYERS)


def inputs(name, num_nodes):
    x = torch.randn(num_nodes, WIDTH)
    return (x,) if name in DENSE else (x, torch.randint(num_nodes, (2, 3 * num_nodes)))


@pytest.mark.parametrize(
    ("name", "example"),
    [*((name, 40) for name in LAYERS), ("linear", 14_000), ("wide mlp", 14_000), ("gat", 14_000)],
)
def test_export_with_a_named_dimension(name, example):
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    nodes, edges = Dim("nodes"), Dim("edges")
    shapes = ({0: nodes},) if name in DENSE else ({0: nodes}, {1: edges})
    exported = export(layer, inputs(name, example), dynamic_shapes=shapes).module()
    for size in SIZES:
        given = inputs(name, size)
        out, expected = exported(*given), layer(*given)
        # Where a number lies between two integers, another order of sums rounds it otherwise.
        close = torch.isclose(out, expected, rtol=1e-4, atol=1e-5)
        assert out.shape == expected.shape and close.float().mean() > 0.98


def test_an_exported_program_needs_no_operators_of_this_package():
    exported = export(BitLinear(WIDTH, 4), (torch.randn(14_000, WIDTH),), strict=True)
    called = {str(node.target) for node in exported.graph.nodes}
    assert not any("bitgnn" in name for name in called)


@pytest.mark.parametrize("name", ["mlp", "gcn", "gat"])
def test_strict_export_of_layers_that_need_gradients(name):
    given = inputs(name, 40)
    layer = LAYERS[name]().eval()
    assert_close(export(layer, given, strict=True).module()(*given), layer(*given))


@layers
def test_compile_with_dynamic_shapes_compiles_once(name):
    torch.compiler.reset()
    torch.manual_seed(0)
    layer, graphs = LAYERS[name]().eval(), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(layer, backend=backend, dynamic=True, fullgraph=True)
    for size in reversed(SIZES):
        given = inputs(name, size)
        close = torch.isclose(compiled(*given), layer(*given), rtol=1e-4, atol=1e-5)
        assert close.float().mean() > 0.98
    assert len(graphs) == 1


@pytest.mark.parametrize("size", EXAMPLES)
def test_gradients_of_a_layer_that_is_compiled_with_dynamic_shapes(size):
    torch.compiler.reset()
    layer = BitMLP([WIDTH, 80, 4])
    compiled = torch.compile(layer, backend="aot_eager", dynamic=True)
    for rows in (size, size + 1):
        x = torch.randn(rows, WIDTH)
        leaves = list(layer.parameters())
        torch.manual_seed(1)
        found = torch.autograd.grad(compiled(x).square().mean(), leaves)
        expected = torch.autograd.grad(layer(x).square().mean(), leaves)
        assert_close(found, expected, rtol=1e-3, atol=1e-5)
