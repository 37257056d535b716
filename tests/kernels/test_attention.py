import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.kernels import attention_torch, graph_attention, vouch, with_self_loops, with_values

from .conftest import csr

pytestmark = pytest.mark.usefixtures("form")


def oracle(adj_t, x, score_src, score_dst, negative_slope=0.2, keep=1.0):
    """The formula on dense matrices, head by head."""
    outs = []
    for k in range(x.size(1)):
        score = F.leaky_relu(score_dst[:, k].view(-1, 1) + score_src[:, k], negative_slope)
        score = score.masked_fill(adj_t.to_dense() == 0, float("-inf"))
        alpha = torch.softmax(score, dim=1).nan_to_num(0.0) * keep  # Rows without a neighbor.
        outs.append(alpha @ x[:, k])
    return torch.stack(outs, dim=1) if outs else x.new_empty(adj_t.size(0), 0, x.size(2))


def operands(adj_t, heads, channels, scale=1.0):
    shapes = [(adj_t.size(1), heads, channels), (adj_t.size(1), heads), (adj_t.size(0), heads)]
    return [(scale * torch.randn(s, dtype=adj_t.dtype)).requires_grad_() for s in shapes]


@given(
    csr(dtype=torch.float64),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.2, 1.5]),
    st.integers(0, 2**32),
)
def test_attention_and_gradients_equal_the_formula(adj_t, heads, channels, slope, seed):
    torch.manual_seed(seed)
    inputs = operands(adj_t, heads, channels)
    out, expected = graph_attention(adj_t, *inputs, slope), oracle(adj_t, *inputs, slope)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, inputs, grad)
    if adj_t.numel():  # Softmax of nothing has no gradient in the oracle.
        rows = (adj_t.to_dense() != 0).any(dim=1)
        grad = grad * rows.view(-1, 1, 1)
        masked = [each.detach().clone().requires_grad_() for each in inputs]
        wanted = torch.autograd.grad(
            oracle(adj_t, masked[0], masked[1], masked[2], slope)[rows], masked, grad[rows]
        )
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b.nan_to_num(0.0))
    else:
        assert all(torch.equal(each, torch.zeros_like(each)) for each in found)


def test_attention_in_32_bits():
    torch.manual_seed(12345)
    adj_t = (torch.rand(20, 30) < 0.3).float().to_sparse_csr()
    inputs = operands(adj_t, 4, 5)
    torch.testing.assert_close(graph_attention(adj_t, *inputs), oracle(adj_t, *inputs))


def test_gradients_are_true_gradients(matrix):
    adj_t = matrix.to(torch.float64)
    inputs = operands(adj_t, 2, 3)
    assert torch.autograd.gradcheck(lambda *args: graph_attention(adj_t, *args), inputs)


def test_large_scores_do_not_overflow(matrix):
    inputs = operands(matrix, 2, 3, scale=1e3)
    out = graph_attention(matrix, *inputs)
    torch.testing.assert_close(out, oracle(matrix, *inputs))
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), inputs))


def test_values_of_the_matrix_do_not_count(matrix):
    inputs = operands(matrix, 2, 3)
    other = with_values(matrix, torch.full((6,), float("nan")))
    out, other = graph_attention(matrix, *inputs), graph_attention(other, *inputs)
    assert torch.equal(out, other)
    grads = (torch.autograd.grad(each.sum(), inputs) for each in (out, other))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("p", [0.25, 0.6])
def test_dropout_of_coefficients(p):
    # All edges of one target, with equal scores: each coefficient is 1 / E or nothing.
    torch.manual_seed(12345)
    edges = 20_000
    adj_t = torch.ones(1, edges).to_sparse_csr()
    x, src, dst = torch.ones(edges, 1, 1), torch.zeros(edges, 1), torch.zeros(1, 1)
    out = graph_attention(adj_t, x, src, dst, p=p, training=True)
    assert out.item() == pytest.approx(1.0, abs=0.03) and out.item() != 1.0
    assert graph_attention(adj_t, x, src, dst, p=p).item() == pytest.approx(1.0, abs=1e-3)


def test_gradients_under_dropout_are_those_of_the_same_mask():
    torch.manual_seed(12345)
    adj_t = (torch.rand(6, 6) < 0.7).double().to_sparse_csr()
    inputs = operands(adj_t, 2, 3)

    def dropped(*args):
        torch.manual_seed(7)
        return graph_attention(adj_t, *args, p=0.5, training=True)

    assert not torch.allclose(dropped(*inputs), graph_attention(adj_t, *inputs))
    assert torch.autograd.gradcheck(dropped, inputs)


def test_nan_stays_in_its_neighborhood(matrix):
    x, src, dst = operands(matrix, 2, 3)
    with torch.no_grad():
        src[1] = float("nan")  # A neighbor of targets 2 and 3.
    out = graph_attention(matrix, x, src, dst)
    assert out[:2].isfinite().all() and out[2:].isnan().all()


@given(csr(square=True))
def test_with_self_loops(adj_t):
    dense = adj_t.to_dense()
    vouch(adj_t)
    out = with_self_loops(adj_t)
    dense.fill_diagonal_(1.0)
    assert torch.equal(out.to_dense(), dense)
    assert out.values().numel() == int((dense != 0).sum())
    assert with_self_loops(adj_t) is out or adj_t.values().numel() == 0


@pytest.mark.parametrize("edges", [1, 4, 10**6])
def test_heads_in_groups_of_any_size(edges, monkeypatch):
    monkeypatch.setattr(attention_torch, "BLOCK", edges)
    torch.manual_seed(12345)
    adj_t = (torch.rand(5, 4) < 0.4).double().to_sparse_csr()
    inputs = operands(adj_t, 5, 3)
    torch.testing.assert_close(graph_attention(adj_t, *inputs), oracle(adj_t, *inputs))
    assert torch.autograd.gradcheck(lambda *args: graph_attention(adj_t, *args), inputs)


def test_nothing_keeps_a_matrix_alive():
    adj_t = torch.eye(4).to_sparse_csr()
    graph_attention(with_self_loops(adj_t), *operands(adj_t, 3, 2)).sum().backward()
    graph_attention(adj_t, *operands(adj_t, 3, 2)).sum().backward()
    memory = weakref.ref(adj_t.values().untyped_storage())
    del adj_t
    gc.collect()
    assert memory() is None


def test_matrix_of_32_bit_indices(matrix):
    inputs = operands(matrix, 2, 3)
    parts = matrix.crow_indices().int(), matrix.col_indices().int(), matrix.values()
    other = torch.sparse_csr_tensor(*parts, matrix.shape)
    torch.testing.assert_close(graph_attention(other, *inputs), graph_attention(matrix, *inputs))


@pytest.mark.parametrize(
    "shapes",
    [
        [(4, 2, 3), (3, 2), (4, 2)],
        [(3, 2), (3, 2), (4, 2)],
        [(3, 2, 3), (2, 3), (4, 2)],
        [(3, 2, 3), (3, 2), (3, 2)],
        [(3, 2, 3), (3, 2), (4, 1)],
    ],
)
def test_shapes_that_do_not_fit(matrix, shapes):
    match = r"shape \(4, 3\) takes features of shape \(3, heads, channels\).*\(got \(" + str(
        shapes[0][0]
    )
    with pytest.raises(ValueError, match=match):
        graph_attention(matrix, *map(torch.randn, shapes))


def test_column_beyond_the_shape(form):
    parts = torch.tensor([0, 1, 2]), torch.tensor([0, 7]), torch.ones(2)
    adj_t = torch.sparse_csr_tensor(*parts, (2, 2), check_invariants=False)
    with pytest.raises(ValueError, match="columns are from 0 to 7"):
        graph_attention(adj_t, torch.ones(2, 1, 1), torch.ones(2, 1), torch.ones(2, 1))
