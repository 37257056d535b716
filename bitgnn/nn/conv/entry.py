from typing import Any

from torch import Tensor
from torch_geometric.nn import MessagePassing

from bitgnn.kernels.sparse import check_operand


class ChecksAdjacency(MessagePassing):
    """A convolution that looks at an adjacency matrix before PyG reads it, such as to add
    self-loops to it."""

    # Not in `forward`: TorchScript compiles none that calls the one of a base class.
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        edge_index = kwargs.get("edge_index", args[1] if len(args) > 1 else None)
        if isinstance(edge_index, Tensor):
            check_operand(edge_index, "edge_index")
        return super().__call__(*args, **kwargs)
