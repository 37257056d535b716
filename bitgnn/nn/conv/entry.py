from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from bitgnn.kernels.sparse import check_operand
from bitgnn.quant.straight_through import is_differentiated


class ChecksAdjacency(MessagePassing):
    """A convolution that looks at an adjacency matrix before PyG reads it, such as to add
    self-loops to it."""

    # Not in `forward`: TorchScript compiles none that calls the one of a base class.
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        edge_index = kwargs.get("edge_index", args[1] if len(args) > 1 else None)
        if isinstance(edge_index, Tensor) and edge_index.layout != torch.strided:
            _check(edge_index)
        return super().__call__(*args, **kwargs)


def _check(adj_t: Tensor) -> None:
    # Torch refuses to wrap CSR matrices, and PyG makes such of all others.
    if is_differentiated():
        raise ValueError(
            "torch.func.grad and jvp cannot follow a sparse adjacency matrix: pass 'edge_index' as "
            "edges"
        )
    check_operand(adj_t, "edge_index")
