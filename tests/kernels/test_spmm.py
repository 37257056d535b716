import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.utils import spmm as pyg_spmm

from bitgnn.kernels import spmm, vouch
from bitgnn.kernels.sparse import PAYS
from bitgnn.kernels.spmm import mean_matrix

from .conftest import csr


def oracle(adj_t, x, reduce):
    adj_t, x = adj_t.to_dense(), x.to_dense()
    count = (adj_t != 0).sum(dim=1, keepdim=True).clamp(min=1)
    return adj_t @ x / (count if reduce == "mean" else 1)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("reduce", ["sum", "add", "mean"])
@given(csr(dtype=torch.float64), st.integers(0, 4), st.integers(0, 2**32))
def test_spmm_equals_its_formula(reduce, sparse, adj_t, width, seed):
    torch.manual_seed(seed)
    x = torch.randn(adj_t.size(1), width, dtype=torch.float64).relu()
    out = spmm(adj_t, x.to_sparse_csr() if sparse else x, reduce)
    torch.testing.assert_close(out.to_dense(), oracle(adj_t, x, reduce))
    assert sparse or out.layout == torch.strided


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_spmm_equals_pygs(matrix, reduce):
    x = torch.randn(3, 5, requires_grad=True)
    out, expected = spmm(matrix, x, reduce), pyg_spmm(matrix, x, reduce)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    found, expected = (torch.autograd.grad(y, x, grad)[0] for y in (out, expected))
    torch.testing.assert_close(found, expected)


def test_features_stay_sparse_as_long_as_that_pays():
    x = torch.eye(10).to_sparse_csr()
    out = spmm(x, x)
    assert out.layout == torch.sparse_csr and torch.equal(out.to_dense(), torch.eye(10))
    full = torch.ones(10, 10).to_sparse_csr()
    assert PAYS < 1 and spmm(full, x).layout == torch.strided


def test_columns_of_sparse_features_are_sorted():
    adj_t = torch.ones(1, 2).to_sparse_csr()
    x = torch.tensor([[0, 0, 0, 1.0, 0], [1.0, 0, 0, 0, 0]]).to_sparse_csr()
    assert spmm(adj_t, x).col_indices().tolist() == [0, 3]


def test_mean_of_a_changed_matrix(matrix):
    x = torch.ones(3, 1)
    assert spmm(matrix, x, "mean").flatten().tolist() == [1.5, 0.0, -3.0, 5.0]
    vouch(matrix)
    assert mean_matrix(matrix) is mean_matrix(matrix)
    matrix.values().mul_(2)
    assert spmm(matrix, x, "mean").flatten().tolist() == [3.0, 0.0, -6.0, 10.0]


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_nothing_keeps_a_matrix_alive(reduce):
    adj_t = torch.eye(4).to_sparse_csr()
    x = torch.randn(4, 2, requires_grad=True)
    spmm(adj_t, x, reduce).sum().backward()
    memory = weakref.ref(adj_t.values().untyped_storage())
    del adj_t
    gc.collect()
    assert memory() is None
