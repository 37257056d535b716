import gc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.kernels import is_fast, sparse, sparse_product, vouch, with_values
from bitgnn.kernels.sparse import (
    _in_blocks,
    _transposed,
    csr_matrix,
    from_scipy,
    to_scipy,
    transposition,
)

from .conftest import csr


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 0}


@given(csr(), st.booleans(), st.integers(0, 4), st.integers(0, 2**32))
def test_product_and_gradient_equal_those_of_the_dense_matrix(matrix, transpose, width, seed):
    torch.manual_seed(seed)
    expected = matrix.to_dense().t() if transpose else matrix.to_dense()
    dense = torch.randn(expected.size(1), width, dtype=matrix.dtype, requires_grad=True)
    out = sparse_product(matrix, dense, transpose)
    torch.testing.assert_close(out, expected @ dense, **tolerance(matrix.dtype))
    grad = torch.randn_like(out)
    (found,) = torch.autograd.grad(out, dense, grad)
    torch.testing.assert_close(found, expected.t() @ grad, **tolerance(matrix.dtype))


@given(csr(dtype=torch.float64), st.integers(1, 4), st.integers(0, 2**32))
def test_transposed_product_in_blocks(matrix, size, seed):
    torch.manual_seed(seed)
    dense = torch.randn(matrix.size(0), 3, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "BLOCK_ROWS", size)
        patch.setattr(sparse, "BLOCK_VALUES", 0)
        out = sparse_product(matrix, dense, transpose=True)
        assert transposition(matrix, in_blocks=True).blocks == max(-(-matrix.size(0) // size), 1)
    torch.testing.assert_close(out, matrix.to_dense().t() @ dense)


def test_blocks_only_where_there_is_enough_in_them():
    rows = 3 * sparse.BLOCK_ROWS
    full = torch.ones(rows, 2).to_sparse_csr()
    assert transposition(full, in_blocks=True).blocks == 3
    assert transposition(full).blocks == 1
    assert transposition(torch.eye(rows, 2).to_sparse_csr(), in_blocks=True).blocks == 1


def test_product_of_a_transposed_view(matrix):
    weight = torch.randn(5, 3)
    expected = matrix.to_dense() @ weight.t()
    torch.testing.assert_close(sparse_product(matrix, weight.t()), expected)


@pytest.mark.parametrize("transpose", [False, True])
def test_gradients_are_true_gradients(matrix, transpose):
    matrix = matrix.to(torch.float64)
    rows = matrix.size(0 if transpose else 1)
    dense = torch.randn(rows, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sparse_product(matrix, x, transpose), dense)
    assert torch.autograd.gradgradcheck(lambda x: sparse_product(matrix, x, transpose), dense)


@pytest.mark.parametrize("shape", [(4, 2), (3,), (3, 2, 2)])
def test_shapes_that_do_not_fit(matrix, shape):
    match = r"shape \(4, 3\) is multiplied by one with 3 rows \(got shape \(" + str(shape[0])
    with pytest.raises(ValueError, match=match):
        sparse_product(matrix, torch.ones(shape))
    with pytest.raises(ValueError, match=r"transposed matrix .* with 4 rows \(got shape \(3, 2"):
        sparse_product(matrix, torch.ones(3, 2), transpose=True)


def test_a_gradient_of_the_matrix_takes_torchs_way(matrix):
    matrix.requires_grad_()
    dense = torch.randn(3, 2)
    sparse_product(matrix, dense).sum().backward()
    expected = dense.sum(dim=1).expand(4, 3) * (matrix.detach().to_dense() != 0)
    torch.testing.assert_close(matrix.grad.to_dense(), expected)


@pytest.mark.parametrize("transpose", [False, True])
def test_a_coo_matrix_takes_torchs_way(matrix, transpose):
    coo, expected = matrix.to_sparse_coo(), matrix.to_dense()
    expected = expected.t() if transpose else expected
    assert not is_fast(coo)
    dense = torch.randn(expected.size(1), 2)
    torch.testing.assert_close(sparse_product(coo, dense, transpose), expected @ dense)


@pytest.mark.gpu
@pytest.mark.parametrize("transpose", [False, True])
def test_cuda_takes_torchs_way(matrix, transpose):
    expected = matrix.to_dense().t() if transpose else matrix.to_dense()
    dense = torch.randn(expected.size(1), 2)
    out = sparse_product(matrix.cuda(), dense.cuda(), transpose)
    torch.testing.assert_close(out.cpu(), expected @ dense)


def transposed(matrix):
    return sparse_product(matrix, torch.eye(matrix.size(0)), transpose=True)


def test_transposition_is_found_out_once_for_all_values(matrix):
    other = with_values(matrix, matrix.values() * 2)
    vouch(matrix)
    vouch(other)
    for in_blocks in (False, True):
        assert transposition(matrix, in_blocks) is transposition(other, in_blocks)
    assert torch.equal(transposed(matrix), matrix.to_dense().t())
    assert torch.equal(transposed(other), 2 * matrix.to_dense().t())
    assert _transposed(matrix) is _transposed(matrix)


def test_change_of_values_is_seen(matrix):
    transposed(matrix)
    matrix.values().mul_(2)
    assert torch.equal(transposed(matrix), matrix.to_dense().t())


def test_rows_of_equal_columns_are_told_apart(matrix):
    # The same memory of columns, split into rows in another way.
    crow = torch.tensor([0, 1, 3, 4, 6])
    other = csr_matrix(crow, matrix.col_indices(), matrix.values(), (4, 3))
    assert torch.equal(transposed(matrix), matrix.to_dense().t())
    assert torch.equal(transposed(other), other.to_dense().t())


def test_what_is_remembered_goes_with_the_matrix():
    gc.collect()
    before = len(_transposed._kept), len(_in_blocks._kept)
    matrix = torch.eye(3).to_sparse_csr()
    transposed(matrix)
    assert (len(_transposed._kept), len(_in_blocks._kept)) == (before[0] + 1, before[1] + 1)
    del matrix
    gc.collect()
    assert (len(_transposed._kept), len(_in_blocks._kept)) == before


@given(csr())
def test_scipy_and_back(matrix):
    assert (to_scipy(matrix).toarray() == matrix.to_dense().numpy()).all()
    back = from_scipy(to_scipy(matrix))
    assert back.dtype == matrix.dtype
    assert torch.equal(back.to_dense(), matrix.to_dense())
