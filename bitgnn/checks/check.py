from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from torch import Tensor
from torch.nn import Module, Sequential
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCNConv, SGConv
from torch_geometric.typing import SparseTensor

from bitgnn.checks.features import check_features
from bitgnn.checks.finding import Finding
from bitgnn.checks.sample import sample_rows
from bitgnn.checks.weights import check_weights
from bitgnn.nn import BitSGC
from bitgnn.nn.twin import find_linears, is_ternary
from bitgnn.quant import QuantConfig

Normalize: TypeAlias = Callable[[Tensor], Tensor]
EDGES = ("edge_weight", "edge_attr")


def check(
    model: Module,
    data: Data | HeteroData,
    normalize: Normalize | None = None,
) -> list[Finding]:
    r"""Finds what costs a ternary model accuracy, before it is trained.

    A ternary layer rounds each row of its input to 8 bits with one scale,
    :math:`s_x = \max |\mathbf{x}| / 127`, and each weight to
    :math:`\{-1, 0, 1\}` times one scale. Found is

    * :obj:`"nonfinite"`: NaN or infinite features, edge weights or parameters, and negative edge
      weights where degrees are divided by;
    * :obj:`"scale"`: columns that take up the scale of rows, such as a year next to shares, where
      a tenth or more of the columns lose a tenth or more of their variance by rounding;
    * :obj:`"small"`: rows so small that :obj:`eps`, the smallest scale, takes bits from them;
    * :obj:`"constant"`: columns with one value, other than 0, in all rows;
    * :obj:`"weights"`: ternary weights of which 95 % are 0, or all of a tenth of the outputs;
    * :obj:`"32-bit"`: a tenth of the parameters or more that are not quantized, and where they are.

    The features are those that the first linear layer of their width receives; if that layer does
    not quantize, only NaN and infinity are looked for. Of large matrices, a sample of rows at equal
    distances is looked at, of a million numbers.

    >>> from torch_geometric.nn import GCN
    >>> model = convert(GCN(17, 64, num_layers=2, out_channels=3))  # doctest: +SKIP
    >>> for finding in check(model, data):  # doctest: +SKIP
    ...     print(finding)

    Args:
        model (torch.nn.Module): The model.
        data (torch_geometric.data.Data or torch_geometric.data.HeteroData): The graph that it will
            be called with: its :obj:`x`, and :obj:`edge_weight` and :obj:`edge_attr` if it has
            them.
        normalize (Callable, optional): What is done to features, row by row, before the model is
            called, such as :obj:`torch.nn.functional.normalize`. (default: :obj:`None`)

    Returns:
        What was found; nothing if the list is empty.

    Raises:
        TypeError: If :obj:`model` or :obj:`data` has another type.
        ValueError: If there are no features, or they are no matrix, have no rows, or have another
            width than the model says to take.
    """
    if not isinstance(model, Module):
        raise TypeError(f"'model' must be a torch.nn.Module (got {type(model).__name__})")
    if not isinstance(data, (Data, HeteroData)):
        raise TypeError(
            "'data' must be a torch_geometric.data.Data or HeteroData with features 'x' (got "
            f"{type(data).__name__}); of a bitgnn task it is 'task.data'"
        )
    if not any(store.get("x") is not None for store in data.stores):
        raise ValueError(
            "'data' has no features 'x': set 'data.x', a matrix with a row of features per node "
            f"(got {data.keys()})"
        )
    return [
        *(finding for store in data.stores for finding in _check_store(model, store, normalize)),
        *check_weights(model),
    ]


def _check_store(model: Module, store: Any, normalize: Normalize | None) -> Iterator[Finding]:
    """Checks what is stored for the nodes or edges of a type, or, of a homogeneous graph, both."""
    key = store._key
    prefix = "" if key is None else f"{key if isinstance(key, str) else '__'.join(key)}."
    if store.get("x") is not None:
        yield from _check_nodes(model, store["x"], f"{prefix}x", normalize)
    for name in EDGES:
        values = store.get(name)
        if isinstance(values, Tensor) and values.is_floating_point():
            yield from _check_edges(model, values, f"{prefix}{name}")


def _check_nodes(
    model: Module, x: Any, where: str, normalize: Normalize | None
) -> Iterator[Finding]:
    if not isinstance(x, (Tensor, SparseTensor)) or x.dim() != 2:
        shape = tuple(x.size()) if isinstance(x, (Tensor, SparseTensor)) else type(x).__name__
        raise ValueError(
            f"'{where}' must be a matrix with a row of features per node (got {shape})"
        )
    if x.size(0) == 0:
        raise ValueError(
            f"'{where}' has no rows: pass the graph that the model will be called with (got "
            f"{tuple(x.size())})"
        )
    rows = sample_rows(x)
    sampled = f" (of a sample of {rows.size(0):,})" if rows.size(0) < x.size(0) else ""
    rows = rows if normalize is None else normalize(rows)
    takes = _takes(model) if where == "x" else None  # Types of nodes may have layers of their own.
    if takes is not None and takes != rows.size(1):
        raise ValueError(
            f"'{where}' has {rows.size(1)} columns, but the model takes {takes}: pass the features "
            "that it will be called with, or build it for as many as these"
        )
    yield from check_features(rows, _receives(model, x.size(1)), where, sampled)


def _check_edges(model: Module, values: Tensor, where: str) -> Iterator[Finding]:
    values = sample_rows(values.flatten(start_dim=1) if values.dim() > 1 else values.view(-1, 1))
    if not values.isfinite().all():
        yield Finding("nonfinite", where, "NaN or infinite values: so is what they are added to")
    elif (
        where.endswith("edge_weight")
        and (values < 0).any()
        and any(isinstance(module, (GCNConv, SGConv)) for module in model.modules())
    ):
        yield Finding(
            "nonfinite",
            where,
            "Negative weights: the GCN normalization takes roots of their sums, which may be NaN",
        )


def _takes(model: Module) -> int | None:
    """The width of features that a model says to take; a class of its own may not say it."""
    for name in ("in_channels", "in_features"):
        width = getattr(model, name, None)
        width = width[0] if isinstance(width, tuple) else width
        if isinstance(width, int):
            return width if width > 0 else None  # It is lazy.
    if isinstance(model, BitSGC):
        return _takes(model.conv)
    if isinstance(model, Sequential):
        with_parameters = (each for each in model if next(each.parameters(), None) is not None)
        first = next(with_parameters, None)
        return None if first is None else _takes(first)
    return None


def _receives(model: Module, width: int) -> QuantConfig | None:
    """How the first linear layer that takes rows of a width quantizes."""
    for linear in find_linears(model):
        taken = getattr(linear, "in_channels", getattr(linear, "in_features", None))
        if taken in (width, -1):
            return linear.quant if is_ternary(linear) else None
    return None
