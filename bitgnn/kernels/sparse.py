"""Products of sparse matrices (CSR), forward and backward.

On a CPU, :func:`torch.nn.functional.embedding_bag` is the fastest product of a CSR matrix and a
dense one that torch has: each row of the matrix is a bag, its columns are what is looked up.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from bitgnn.kernels import native
from bitgnn.kernels.memo import Memo
from bitgnn.kernels.plain import check_extent
from bitgnn.quant.straight_through import is_differentiated, is_transformed

LAYOUTS = (
    torch.sparse_csr, torch.sparse_csc, torch.sparse_coo, torch.sparse_bsr, torch.sparse_bsc,
)  # fmt: skip
BLOCK_ROWS = 2**12  # Of 64 channels: 1 MiB, which a core's caches hold.
BLOCK_VALUES = 16  # A block pays if its columns have so many values.
PAYS = 0.4  # The share of entries other than zero below which a CSR matrix is the faster form.


def is_sparse(x: Tensor) -> bool:
    """Whether so few entries of a dense matrix differ from zero that a CSR matrix is the faster
    form.

    Args:
        x (torch.Tensor): The matrix.
    """
    return bool(torch.count_nonzero(x) <= PAYS * x.numel())


def csr_matrix(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    r"""Returns a matrix of its parts, which it shares and which are not checked.

    Args:
        crow (torch.Tensor): Where each row starts among the values, and their number.
        col (torch.Tensor): The column of each value.
        values (torch.Tensor): The values, row by row.
        shape (tuple): The shape of the matrix.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "beta state", once a process.
        return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=False)


def check_sparse(x: Tensor, name: str) -> None:
    r"""Refuses a sparse matrix (CSR, CSC, BSR, BSC or COO) with indices that are not within its
    shape, or with parts that are not within their memory, which torch does not look for when it
    makes or multiplies one.

    Args:
        x (torch.Tensor): The matrix.
        name (str): The name of the argument, for the error.

    Raises:
        ValueError: If its indices are not within its shape, its parts do not fit each other or
            reach beyond their storages, or it claims to be coalesced and is not.
    """
    values = x._values() if x.layout == torch.sparse_coo else x.values()
    check_extent(values, name)
    if x.layout == torch.sparse_csr:
        check_rows(x.crow_indices(), x.col_indices(), x.shape, values.size(0), name)
    elif x.layout == torch.sparse_csc:
        check_rows(x.ccol_indices(), x.row_indices(), x.shape[::-1], values.size(0), name)
    elif x.layout in (torch.sparse_bsr, torch.sparse_bsc):  # The same of blocks.
        rows, columns = (size // of for size, of in zip(x.shape, values.shape[1:], strict=True))
        if x.layout == torch.sparse_bsr:
            parts, shape = (x.crow_indices(), x.col_indices()), (rows, columns)
        else:
            parts, shape = (x.ccol_indices(), x.row_indices()), (columns, rows)
        check_rows(*parts, shape, values.size(0), name)
    else:
        indices = x._indices()
        size = torch.tensor(x.shape[: x.sparse_dim()], device="cpu").view(-1, 1)
        check_extent(indices, name)
        if bool(((indices < 0) | (indices >= size)).any()):
            least, most = indices.amin(dim=1).tolist(), indices.amax(dim=1).tolist()
            raise ValueError(
                f"'{name}' is a matrix of shape {tuple(x.shape)}, but has indices from {least} to "
                f"{most}"
            )
        if x.is_coalesced() and indices.size(0) == 2 and not _ascend(*indices):
            raise ValueError(
                f"'{name}' claims to be coalesced, but its indices do not ascend: drop "
                "is_coalesced=True, or call coalesce()"
            )


def _ascend(row: Tensor, col: Tensor) -> bool:
    step = row.diff()
    return not bool(((step < 0) | ((step == 0) & (col.diff() <= 0))).any())


def check_rows(crow: Tensor, col: Tensor, shape: tuple[int, ...], count: int, name: str) -> None:
    r"""Refuses what are no parts of a sparse matrix (CSR).

    Args:
        crow (torch.Tensor): Where each row starts among the values, and their number.
        col (torch.Tensor): The column of each value.
        shape (tuple): The shape of the matrix.
        count (int): The number of values.
        name (str): The name of the argument, for the error.

    Raises:
        ValueError: If a column is not within the shape, rows do not start in ascending order,
            there are too few or too many of either, or one reaches beyond its storage.
    """
    check_extent(crow, name)
    check_extent(col, name)
    rows, columns = shape
    fits = crow.shape == (rows + 1,) and col.shape == (count,)
    if fits and _are_rows(crow, col, rows, columns, count):
        return
    what = f"'{name}' is a sparse matrix of shape {tuple(shape)} with {count} values, but "
    if not fits:
        raise ValueError(
            f"{what}its rows start at {crow.numel()} places and it has {col.numel()} columns"
        )
    if [int(crow[0]), int(crow[-1])] != [0, count] or bool((crow.diff() < 0).any()):
        raise ValueError(f"{what}its rows do not start in ascending order from 0 to {count}")
    raise ValueError(f"{what}its columns are from {int(col.min())} to {int(col.max())}")


def _are_rows(crow: Tensor, col: Tensor, rows: int, columns: int, count: int) -> bool:
    if native.enabled() and crow.dtype == col.dtype == torch.int64:
        crow, col = crow.contiguous(), col.contiguous()
        sound: bool = native.library().are_rows(
            native.span(crow), native.span(col), rows, columns, count
        )
        return sound
    ascends = int(crow[0]) == 0 and int(crow[-1]) == count and not bool((crow.diff() < 0).any())
    if not ascends or count == 0:
        return ascends
    least, most = col.aminmax()
    return int(least) >= 0 and int(most) < columns


def check_operand(x: Tensor, name: str) -> None:
    r"""Refuses a sparse matrix with indices that are not within its shape, or with parts that are
    not within their memory, before layers multiply by it (:func:`check_sparse`). It is looked at
    each time, which takes less than to find out whether it is the same: 0.4 ms for 2.3 million
    values.

    Args:
        x (torch.Tensor): The matrix; anything but a sparse matrix on a CPU is passed over.
        name (str): What it is, for the error.

    Raises:
        ValueError: If its indices are not within its shape, its parts reach beyond their storages,
            or a transform of :mod:`torch.func` cannot follow it.
    """
    if x.layout not in LAYOUTS or x.dim() != 2 or not x.is_cpu or type(x) not in native.PLAIN:
        return
    if torch.compiler.is_compiling():
        return
    if x.layout != torch.sparse_coo and is_differentiated():  # Torch refuses to wrap the others.
        raise ValueError(
            f"torch.func.grad and jvp cannot follow a sparse matrix in CSR or CSC form: pass "
            f"'{name}' dense"
        )
    if not torch._C._functorch.is_functorch_wrapped_tensor(x):  # vmap may leave it as it is.
        check_sparse(x, name)


def check_before_backward(out: Tensor, matrix: Tensor, name: str) -> Tensor:
    r"""Has a sparse matrix looked at again (:func:`check_operand`) before torch's own product reads
    it in the backward pass, as it may be rewritten in between, unseen by autograd.

    Args:
        out (torch.Tensor): The product, which is returned.
        matrix (torch.Tensor): The matrix.
        name (str): What it is, for the error.
    """
    if out.grad_fn is not None and not torch.compiler.is_compiling() and not is_transformed():
        out.grad_fn.register_prehook(lambda grads: check_operand(matrix, name))
    return out


def with_values(matrix: Tensor, values: Tensor) -> Tensor:
    r"""Returns a matrix with other values at the same places.

    Args:
        matrix (torch.Tensor): The matrix (CSR).
        values (torch.Tensor): The values.
    """
    return csr_matrix(matrix.crow_indices(), matrix.col_indices(), values, matrix.shape)


def sparse_product(
    matrix: Tensor, dense: Tensor, transpose: bool = False, name: str = "matrix"
) -> Tensor:
    r"""Multiplies a sparse matrix by a dense one, :math:`\mathbf{A} \mathbf{B}` or
    :math:`\mathbf{A}^{\top} \mathbf{B}`, each of which is the other's gradient.

    How to transpose a matrix is found out once for the places of its values. A matrix that is not
    in CSR form on a CPU, or that needs a gradient itself, is multiplied by
    :func:`torch.sparse.mm`.

    Args:
        matrix (torch.Tensor): The sparse matrix :math:`\mathbf{A}`.
        dense (torch.Tensor): The dense matrix :math:`\mathbf{B}`.
        transpose (bool, optional): If set to :obj:`True`, multiplies by
            :math:`\mathbf{A}^{\top}`. (default: :obj:`False`)
        name (str, optional): What the caller calls the sparse matrix, for errors.
            (default: :obj:`"matrix"`)

    Shapes:
        - **matrix:** :math:`(N, M)`
        - **dense:** :math:`(M, F)`, transposed :math:`(N, F)`
        - **output:** :math:`(N, F)`, transposed :math:`(M, F)`

    Raises:
        ValueError: If the shapes do not fit, or indices are not within the shape.
    """
    check_operand(matrix, name)
    if not is_fast(matrix) or dense.dtype != matrix.dtype or matrix.requires_grad:
        out = torch.sparse.mm(matrix.to_sparse_coo().t() if transpose else matrix, dense)
        return check_before_backward(out, matrix, name)
    rows = matrix.size(0 if transpose else 1)
    if dense.dim() != 2 or dense.size(0) != rows:
        raise ValueError(
            f"A {'transposed ' if transpose else ''}matrix of shape {tuple(matrix.shape)} is "
            f"multiplied by one with {rows} rows (got shape {tuple(dense.shape)})"
        )
    return _SparseProduct.apply(matrix, dense, transpose, name)


def is_fast(matrix: Tensor) -> bool:
    """Whether the fast products apply to a tensor: a CSR matrix of 32 or 64 bits on a CPU, on
    which no transformation of torch looks.

    Args:
        matrix (torch.Tensor): The tensor.
    """
    return (
        matrix.layout == torch.sparse_csr
        and matrix.device.type == "cpu"
        and matrix.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and not is_transformed()
    )


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, dense: Tensor, transpose: bool, name: str) -> Tensor:
        ctx.save_for_backward(matrix)
        ctx.transpose, ctx.name = transpose, name
        if not transpose:
            return bag_product(matrix.crow_indices(), matrix.col_indices(), matrix.values(), dense)
        how, values = _transposed(matrix)
        out = bag_product(how.crow, how.col, values, dense)
        if how.blocks == 1:
            return out
        return out.view(how.blocks, matrix.size(1), out.size(1)).sum(dim=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
        # It is checked again: NumPy may have rewritten it, unseen by autograd.
        (matrix,) = ctx.saved_tensors
        return None, sparse_product(matrix, grad, not ctx.transpose, ctx.name), None, None


def bag_product(crow: Tensor, col: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    """The product of a CSR matrix, given by its parts, and a dense one, without a gradient.

    Args:
        crow (torch.Tensor): Where each row starts among the values, and their number.
        col (torch.Tensor): The column of each value.
        values (torch.Tensor): The values, row by row.
        dense (torch.Tensor): The dense matrix.
    """
    # What `embedding_bag` calls behind its checks: a sum, weighted, with the last offset given.
    return torch._embedding_bag_forward_only(
        dense.contiguous(), col, crow, False, 0, False, values, True
    )[0]


class Transposition(NamedTuple):
    """How to transpose all matrices that have their values at the same places.

    Of several blocks of rows, the transposed blocks stand below each other.
    """

    crow: Tensor
    col: Tensor
    order: Tensor
    blocks: int = 1

    def __call__(self, values: Tensor) -> Tensor:
        """Returns the values of the transposed matrix."""
        return values.index_select(0, self.order)


def transposition(matrix: Tensor, in_blocks: bool = False) -> Transposition:
    r"""Returns how to transpose a CSR matrix; found out once for the places of its values,
    whatever they are.

    Args:
        matrix (torch.Tensor): The matrix (CSR).
        in_blocks (bool, optional): Whether to transpose blocks of rows, if there is enough in
            them. Their product then finds in the cache what it multiplies.
            (default: :obj:`False`)
    """
    # The columns alone say nothing of the rows: as the values of a matrix, both count.
    crow, col = matrix.crow_indices(), matrix.col_indices()
    places = csr_matrix(crow, col, col, matrix.shape)
    return _in_blocks(places) if in_blocks else _as_a_whole(places)


@Memo
def _as_a_whole(places: Tensor) -> Transposition:
    return _transpose(places, blocks=1)


@Memo
def _in_blocks(places: Tensor) -> Transposition:
    blocks = -(-places.size(0) // BLOCK_ROWS)
    enough = places.col_indices().numel() >= BLOCK_VALUES * blocks * places.size(1)
    return _transpose(places, max(blocks, 1) if enough else 1)


def _transpose(places: Tensor, blocks: int) -> Transposition:
    (rows, columns), nnz = places.shape, places.col_indices().numel()
    if blocks > 1:  # The columns of each block are others, beside those of the one before.
        block = torch.arange(rows) // BLOCK_ROWS
        block = torch.repeat_interleave(block, places.crow_indices().diff(), output_size=nnz)
        col = places.col_indices() + block * columns
        places = csr_matrix(places.crow_indices(), col, col, (rows, blocks * columns))
    order = np.arange(nnz, dtype=np.int32 if nnz < 2**31 else np.int64)
    csc = to_scipy(places, order).tocsc()  # Counts instead of sorting, and is stable.
    crow, col = (torch.from_numpy(each.astype(np.int64)) for each in (csc.indptr, csc.indices))
    return Transposition(crow, col, torch.from_numpy(csc.data), blocks)


@Memo
def _transposed(matrix: Tensor) -> tuple[Transposition, Tensor]:
    how = transposition(matrix, in_blocks=True)
    return how, how(matrix.values())


def to_scipy(matrix: Tensor, values: np.ndarray | None = None) -> scipy.sparse.csr_matrix:
    r"""Returns a CSR matrix as SciPy has it.

    Args:
        matrix (torch.Tensor): The matrix (CSR).
        values (numpy.ndarray, optional): Other values at the same places.
            (default: :obj:`None`)
    """
    values = matrix.values().numpy() if values is None else values
    parts = values, matrix.col_indices().numpy(), matrix.crow_indices().numpy()
    return scipy.sparse.csr_matrix(parts, shape=tuple(matrix.shape))


def from_scipy(matrix: scipy.sparse.csr_matrix) -> Tensor:
    r"""The inverse of :func:`to_scipy`.

    Args:
        matrix (scipy.sparse.csr_matrix): The matrix.
    """
    crow, col = (torch.from_numpy(p.astype(np.int64)) for p in (matrix.indptr, matrix.indices))
    return csr_matrix(crow, col, torch.from_numpy(matrix.data), matrix.shape)
