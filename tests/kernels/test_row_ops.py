import pytest
import torch
from torch import nn
from torch.library import opcheck

from bitgnn import quant
from bitgnn.kernels import Dropout, dropout, native, quantize_rows, row_ops, rows
from bitgnn.nn import BitLinear
from bitgnn.quant import QuantConfig

pytestmark = pytest.mark.usefixtures("form")
HOW = 8, False, 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 4), (6,), (3, 0), (0, 4)])
def test_operators_are_sound(shape, dtype):
    x = torch.randn(shape, dtype=dtype)
    opcheck(torch.ops.bitgnn.quantize_rows, (x, *HOW))
    opcheck(torch.ops.bitgnn.quantize_rows, (x.t() if x.dim() == 2 else x, 4, True, 1e-5))
    opcheck(torch.ops.bitgnn.dropout, (x.requires_grad_(), 0.3, torch.tensor(7)))


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 3])
def test_rows_equal_the_reference_to_the_last_bit(bits, full_range):
    x = torch.randn(30, 17)
    config = QuantConfig(activation_bits=bits, full_range=full_range)
    found = row_ops.quantize_rows(x, bits, full_range, config.eps)
    assert all(map(torch.equal, found, quant.quantize_rows(x, config)))


def test_the_seed_says_what_is_dropped(form):
    x, seeds = torch.randn(40, 25), (torch.tensor(3), torch.tensor(4))
    first, second = (row_ops.dropout(x, 0.3, seed) for seed in seeds)
    assert torch.equal(row_ops.dropout(x, 0.3, seeds[0]), first)
    assert not torch.equal(first == 0, second == 0)
    kept = first != 0
    torch.testing.assert_close(first[kept], x[kept] / 0.7)
    assert 0.6 < kept.float().mean() < 0.8
    if form == "native":
        assert torch.equal(first, native.dropout(x, 0.3, 3))


def test_dropout_passes_gradcheck():
    x, seed = torch.randn(6, 5, dtype=torch.float64, requires_grad=True), torch.tensor(9)
    assert torch.autograd.gradcheck(lambda x: row_ops.dropout(x, 0.5, seed), x)
    assert torch.autograd.gradgradcheck(lambda x: row_ops.dropout(x, 0.5, seed), x)


def compiled(module):
    """A module compiled as a whole, and the code of its graphs."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph.print_readable(print_output=False))
        return graph

    torch.compiler.reset()
    return torch.compile(module, backend=backend, fullgraph=True), graphs


def test_a_compiled_model_keeps_the_operators(form, monkeypatch):
    monkeypatch.setattr(rows, "PAYS", 0)
    torch.manual_seed(0)
    model = nn.Sequential(BitLinear(20, 7), nn.ReLU(), Dropout(0.5), BitLinear(7, 3))
    leaves = torch.randn(30, 20, requires_grad=True), *model.parameters()
    whole, graphs = compiled(model)
    found = []
    for each in (whole, model):
        torch.manual_seed(5)
        out = each(leaves[0])
        found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for name in ("bitgnn.quantize_rows", "bitgnn.dropout"):
        assert (name in "".join(graphs)) == (form == "native")
    if form == "native":  # Without, other numbers are drawn.
        for mine, expected in zip(*found, strict=True):
            torch.testing.assert_close(mine, expected)


def test_what_is_not_compiled_calls_no_operator(monkeypatch):
    def fail(*args):
        raise AssertionError("It costs more than it computes on small graphs")

    monkeypatch.setattr(row_ops, "quantize_rows", fail)
    monkeypatch.setattr(row_ops, "dropout", fail)
    x = torch.randn(4, 5)
    assert quantize_rows(x, QuantConfig())[0].shape == dropout(x, 0.5).shape == x.shape


def test_few_rows_are_left_to_the_compiler():
    whole, graphs = compiled(BitLinear(20, 7))
    whole(torch.randn(30, 20))
    assert "bitgnn.quantize_rows" not in "".join(graphs)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_other_rows_compile_without_the_operators(backend):
    for dtype in (torch.float64, torch.float16):
        x = torch.randn(4, 5).to(dtype)
        torch.compiler.reset()
        whole = torch.compile(quantize_rows, backend=backend, fullgraph=True)
        for mine, expected in zip(
            whole(x, QuantConfig()), quantize_rows(x, QuantConfig()), strict=True
        ):
            assert torch.equal(mine, expected) and mine.dtype == expected.dtype
