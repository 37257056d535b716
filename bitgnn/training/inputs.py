r"""What a model is called with, in the form that trains fastest."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MLP, Linear, MessagePassing, SAGEConv
from torch_geometric.transforms import NormalizeFeatures
from torch_geometric.utils import coalesce, remove_self_loops

from bitgnn.data import Task
from bitgnn.kernels import Memo, dropout, with_values
from bitgnn.kernels.sparse import csr_matrix, is_sparse
from bitgnn.nn import BitGATConv, BitGCNConv, BitLinear, BitSGConv
from bitgnn.nn.sparse_linear import SparseLinear
from bitgnn.training.latent import quantized_layers
from bitgnn.training.recipe import FEATURE_NORMS, Recipe

# The layers that a matrix serves better than edges.
CONVS = (BitGATConv, BitGCNConv, BitSGConv, SAGEConv)


def model_inputs(
    model: nn.Module,
    t: Task,
    recipe: Recipe,
    device: str | torch.device = "cpu",
) -> tuple[Tensor, ...]:
    r"""Returns what a model is called with: features and, for a graph network, edges
    in the form that trains fastest.

    On a CPU, the layers of this package get features with many zeros and the
    edges as sparse matrices (CSR), from which they compute the same numbers, up
    to the order of sums.

    Args:
        model (torch.nn.Module): The model.
        t (Task): The data set.
        recipe (Recipe): The hyper-parameters.
        device (str or torch.device, optional): Where the tensors go.
            (default: :obj:`"cpu"`)
    """
    on_cpu = torch.device(device).type == "cpu"
    x = SPARSE[recipe.feature_norm](t.data.x) if on_cpu and takes_sparse(model) else None
    if x is None:
        x = normalize_features(t.data.x, recipe.feature_norm).to(device)
    if isinstance(model, MLP):
        return (x,)
    return x, edges_for(model, t.data.edge_index, t.num_nodes, x.dtype, device)


def edges_for(
    model: nn.Module,
    edge_index: Tensor,
    num_nodes: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Tensor:
    r"""Returns edges in the form in which a model trains fastest: as a sparse matrix (CSR) if all
    its layers are served better by one.

    Args:
        model (torch.nn.Module): The model.
        edge_index (torch.Tensor): The edges.
        num_nodes (int): The number of nodes.
        dtype (torch.dtype, optional): The type of the features.
            (default: :obj:`torch.float32`)
        device (str or torch.device, optional): Where the edges go.
            (default: :obj:`"cpu"`)
    """
    convs, on_cpu = _convs(model), torch.device(device).type == "cpu"
    if convs and all(isinstance(conv, CONVS if on_cpu else SAGEConv) for conv in convs):
        edge_index = adjacency(edge_index, num_nodes, convs, dtype)
    return edge_index.to(device)


def drop_features(x: Tensor, p: float) -> Tensor:
    r"""Dropout of features: in a sparse matrix (CSR) only what is stored can be dropped.

    Args:
        x (torch.Tensor): The features, dense or a CSR matrix.
        p (float): The probability that a feature is dropped.
    """
    if p == 0.0:
        return x
    if x.layout == torch.sparse_csr:
        return with_values(x, dropout(x.values(), p))
    return dropout(x, p)


def adjacency(
    edge_index: Tensor,
    num_nodes: int,
    convs: list[MessagePassing],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Returns edges as a sparse matrix (CSR, with targets as rows) that means the same to the
    layers, or as they are if there is none.

    Args:
        edge_index (torch.Tensor): The edges.
        num_nodes (int): The number of nodes.
        convs (list): The layers that will receive it.
        dtype (torch.dtype, optional): The type of the ones in the matrix.
            (default: :obj:`torch.float32`)
    """
    edges = coalesce(edge_index.flip(0))
    if edges.size(1) < edge_index.size(1):
        return edge_index  # A matrix has no place for an edge that occurs twice.
    if any(getattr(conv, "improved", False) for conv in convs):
        return edge_index  # Without weights, PyG improves matrices only.
    replace = [getattr(conv, "add_self_loops", False) for conv in convs]
    if any(replace) and bool((edges[0] == edges[1]).any()):
        # Layers put a self-loop on each node in place of one that is there. To the diagonal of a
        # matrix, PyG's would add it instead.
        if not all(replace):
            return edge_index
        edges, _ = remove_self_loops(edges)
    crow = F.pad(torch.bincount(edges[0], minlength=num_nodes).cumsum(0), (1, 0))
    ones = torch.ones(edges.size(1), dtype=dtype, device=edges.device)
    return csr_matrix(crow, edges[1], ones, (num_nodes, num_nodes))


def takes_sparse(model: nn.Module) -> bool:
    """Whether a model takes sparse features (CSR): whether its layers are of this package, and
    none of them has to fill the zeros.

    Args:
        model (torch.nn.Module): The model.
    """
    linears = [module for module in model.modules() if isinstance(module, (nn.Linear, Linear))]
    return (
        all(isinstance(each, (BitLinear, SparseLinear)) for each in linears)
        and all(isinstance(conv, CONVS) and type(conv) is not SAGEConv for conv in _convs(model))
        and not any(each.quant.layer_norm for each in quantized_layers(model) if each.quant)
    )


def _convs(model: nn.Module) -> list[MessagePassing]:
    return [module for module in model.modules() if isinstance(module, MessagePassing)]


def normalize_features(x: Tensor, norm: str) -> Tensor:
    """Normalizes features as a recipe says.

    Args:
        x (torch.Tensor): The features.
        norm (str): The recipe's :obj:`feature_norm`.
    """
    if norm == "l2":
        return F.normalize(x, dim=-1)
    return NormalizeFeatures()(Data(x=x)).x if norm == "row" else x


def _sparse_features(norm: str, x: Tensor) -> Tensor | None:
    x = normalize_features(x, norm)
    return x.to_sparse_csr() if is_sparse(x) else None


# A process trains many models on a data set: its features, if they are static, are converted once.
SPARSE = {norm: Memo(partial(_sparse_features, norm), copies=False) for norm in FEATURE_NORMS}
