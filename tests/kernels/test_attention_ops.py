import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.library import opcheck

from bitgnn.kernels import attention_ops, graph_attention, native

from .conftest import csr

pytestmark = pytest.mark.usefixtures("form")
SEED = torch.tensor(5)


def operands(adj_t, heads=2, channels=3):
    shapes = [(adj_t.size(1), heads, channels), (adj_t.size(1), heads), (adj_t.size(0), heads)]
    return [torch.randn(s, dtype=adj_t.dtype).requires_grad_() for s in shapes]


def parts(adj_t):
    return adj_t.crow_indices(), adj_t.col_indices()


@pytest.mark.parametrize(("p", "seed"), [(0.0, None), (0.4, SEED)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators_are_sound(matrix, dtype, p, seed):
    inputs = operands(matrix.to(dtype))
    opcheck(torch.ops.bitgnn.attention, (*parts(matrix), *inputs, 0.2, p, seed))
    inputs = [each.detach() for each in inputs]
    out, alpha, weight = attention_ops.attention(*parts(matrix), *inputs, 0.2, p, seed)
    saved = torch.randn_like(out), out, alpha, weight if p > 0 else alpha.clone()
    opcheck(torch.ops.bitgnn.attention_backward, (*parts(matrix), *inputs, 0.2, *saved))


@settings(max_examples=30)
@given(
    csr(dtype=torch.float64),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.2, 1.5]),
    st.integers(0, 2**32),
)
def test_it_is_the_attention_of_layers(adj_t, heads, channels, slope, seed):
    torch.manual_seed(seed)
    inputs = operands(adj_t, heads, channels)
    outs = [
        attention_ops.attention(*parts(adj_t), *inputs, slope, 0.0, None)[0],
        graph_attention(adj_t, *inputs, slope),
    ]
    grad = torch.randn_like(outs[0])
    found = [[out.detach(), *torch.autograd.grad(out, inputs, grad)] for out in outs]
    for mine, expected in zip(*found, strict=True):
        if native.enabled():
            assert torch.equal(mine, expected)
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize(("p", "seed"), [(0.0, None), (0.5, SEED)])
def test_gradients_are_true_gradients(matrix, p, seed):
    inputs = operands(matrix.to(torch.float64))

    def run(*inputs):
        return attention_ops.attention(*parts(matrix), *inputs, 0.2, p, seed)[0]

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("p", [0.25, 0.6])
def test_dropout_of_coefficients(p):
    torch.manual_seed(12345)
    adj_t = torch.ones(1, 20_000).to_sparse_csr()
    inputs = torch.ones(20_000, 1, 1), torch.zeros(20_000, 1), torch.zeros(1, 1)
    out, alpha, weight = attention_ops.attention(*parts(adj_t), *inputs, 0.2, p, SEED)
    assert out.item() == pytest.approx(1.0, abs=0.03)
    kept = weight != 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.02)
    torch.testing.assert_close(weight[kept], alpha[kept] / (1 - p))


def test_it_is_compiled_as_a_whole(matrix):
    inputs, graphs = operands(matrix), []

    def layer(crow, col, x, score_src, score_dst):
        out, *_ = torch.ops.bitgnn.attention(crow, col, x, score_src, score_dst, 0.2, 0.0, None)
        return out.flatten(start_dim=1).relu()

    def backend(graph, _):
        graphs.append(graph.print_readable(print_output=False))
        return graph

    whole = torch.compile(layer, backend=backend, fullgraph=True)
    outs = [run(*parts(matrix), *inputs) for run in (whole, layer)]
    assert torch.equal(*outs) and "bitgnn.attention" in graphs[0]
    grads = [torch.autograd.grad(out.square().sum(), inputs) for out in outs]
    assert all(map(torch.equal, *grads))


@pytest.mark.parametrize("crow", [[0, 2, 2, 3], [0, 2, 2, 3, 5], [1, 2, 2, 3, 6], [0, 3, 2, 3, 6]])
def test_edges_that_are_not_those_of_a_matrix(matrix, crow):
    with pytest.raises(ValueError, match="start at 5 places from 0 to their number, 6, in asc"):
        attention_ops.attention(
            torch.tensor(crow), matrix.col_indices(), *operands(matrix), 0.2, 0.0, None
        )


def test_a_source_that_there_is_not(matrix):
    col = matrix.col_indices() + 1
    with pytest.raises(ValueError, match="columns are from 1 to 3"):
        attention_ops.attention(matrix.crow_indices(), col, *operands(matrix), 0.2, 0.0, None)


def test_dropout_takes_a_seed(matrix):
    with pytest.raises(ValueError, match=r"Dropout of 0.5 takes a seed \(got None\)"):
        attention_ops.attention(*parts(matrix), *operands(matrix), 0.2, 0.5, None)
