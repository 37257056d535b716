import torch
from torch import Tensor
from torch_geometric.typing import SparseTensor

# All rows of a small graph, enough for shares of a large one.
MAX_NUMBERS = 1 << 20
MIN_ROWS = 256


def sample_rows(x: Tensor | SparseTensor) -> Tensor:
    r"""Returns rows of a matrix, dense and in 32 bits: all of them, or rows at equal distances that
    make a million numbers.

    Args:
        x (torch.Tensor): The matrix, dense or sparse (COO or CSR).

    Shapes:
        - **x:** :math:`(N, F)`
        - **output:** :math:`(M, F)`

    Raises:
        ValueError: If a sparse matrix has indices out of bounds.
    """
    num_rows, width = x.size(0), x.size(1)
    count = max(MIN_ROWS, MAX_NUMBERS // max(width, 1))
    if isinstance(x, SparseTensor):
        x = x.to_torch_sparse_csr_tensor()
    x = x.detach() if x.layout == torch.strided else _coo(x.detach())
    if count < num_rows:
        index = torch.arange(count, device=x.device) * num_rows // count
        x = x.index_select(0, index)
    return (x if x.layout == torch.strided else x.to_dense()).float()


def _coo(x: Tensor) -> Tensor:
    try:  # By default nobody checks indices, and out of bounds they would read other memory.
        if x.layout == torch.sparse_csr:
            crow, col = x.crow_indices(), x.col_indices()
            x = torch.sparse_csr_tensor(crow, col, x.values(), x.shape, check_invariants=True)
            return x.to_sparse_coo()
        index, values = x._indices(), x._values()
        return torch.sparse_coo_tensor(index, values, x.shape, check_invariants=True)
    except RuntimeError as error:
        raise ValueError(f"A sparse matrix has indices out of bounds: {error}") from None
