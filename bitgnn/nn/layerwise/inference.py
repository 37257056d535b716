r"""A model over a graph that is too large for one call: layer by layer, range by range of nodes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module
from torch_geometric.nn import MLP, BatchNorm, LayerNorm, MessagePassing
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.typing import Adj

from bitgnn.kernels import Dropout
from bitgnn.nn.altered import alteration, global_hook
from bitgnn.nn.layerwise.edges import EdgesByTarget
from bitgnn.nn.layerwise.layers import SGC, Propagation, layer_of
from bitgnn.nn.layerwise.passes import Passes, Rows, Step, Tell
from bitgnn.nn.layerwise.storage import Storage
from bitgnn.nn.models import BitSGC

DROPOUTS = (nn.Dropout, Dropout, nn.Identity)
BY_ROW = (nn.Identity, nn.LayerNorm)
BY_STATISTICS = (BatchNorm, nn.BatchNorm1d)


@torch.no_grad()
def layerwise_inference(
    model: Module,
    x: Tensor,
    edge_index: Adj | None = None,
    edge_weight: Tensor | None = None,
    *,
    batch_size: int = 16_384,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    r"""Returns what a model returns in evaluation for all nodes of a graph, :obj:`model(x,
    edge_index)`, in bounded memory and without sampling: layer by layer, and each layer for
    :obj:`batch_size` nodes at a time, with all edges that lead to them. It runs models in 32 bits
    and ternary ones, whose rows are quantized one by one, so that ranges change no number (but for
    the order of sums in floating point). Neither a loader nor torch-sparse is needed.

    With :math:`N` nodes, :math:`E` edges, :math:`B` = :obj:`batch_size` and :math:`E_B` edges of
    the range that has most, :math:`H` heads and rows in 32 bits it takes at most

    .. math::
        4 N \max_l (d_l + d_{l+1}) + 16 N + 24 B \max_l (d_l + d_{l+1}) + (64 + 8 H) E_B

    bytes beyond model, features and edges. Here :math:`d_0, d_1, \ldots` are the widths of what is
    kept of all nodes in turn: of each layer first the rows that edges read (GCN: the width of its
    output; SAGE: that of its input, if it is ternary; GAT: :math:`H (C + 2)`), then its output;
    features are the caller's, :math:`d_0 = 0`. Edges whose targets do not ascend are sorted first,
    which takes :math:`8 E` bytes, and :math:`30 E` for a moment. Jumping knowledge keeps the
    outputs of all layers. With :obj:`out`, the first term is in files, and in memory only as long
    as the system has room for them. Convolutions that are run as they are (all but GCN, SAGE, GAT
    and SGC) read up to :math:`E_B` rows at once, and so do devices other than the CPU.

    Args:
        model (torch.nn.Module): A :class:`~torch_geometric.nn.models.BasicGNN`
            (:class:`bitgnn.nn.BitGCN`, :class:`bitgnn.nn.BitGraphSAGE`,
            :class:`bitgnn.nn.BitGAT`, or PyG's own), :class:`bitgnn.nn.BitSGC`, an
            :class:`~torch_geometric.nn.MLP`, or one of their convolutions alone, in evaluation
            mode.
        x (torch.Tensor): The features, dense, in memory or mapped from a file
            (:func:`torch.from_file`).
        edge_index (torch.Tensor, optional): The edges, or the adjacency matrix in CSR form with
            targets as rows, whose values count as weights. (default: :obj:`None`, for an MLP)
        edge_weight (torch.Tensor, optional): The weights of the edges. (default: :obj:`None`)
        batch_size (int, optional): The nodes that are computed at once.
            (default: :obj:`16384`)
        out (str or Path, optional): A file for the output, in NumPy's format, replaced if it is
            there; what is kept between layers is in files beside it meanwhile.
            (default: :obj:`None`, all in memory)
        progress (bool, optional): If set to :obj:`True`, shows a progress bar.
            (default: :obj:`False`)
        device (torch.device or str, optional): Where the model is. Features, edges and outputs
            stay on the CPU. (default: :obj:`"cpu"`)

    Shapes:
        - **x:** :math:`(|\mathcal{V}|, F_{in})`
        - **edge_index:** :math:`(2, |\mathcal{E}|)` or :math:`(|\mathcal{V}|, |\mathcal{V}|)`
        - **edge_weight:** :math:`(|\mathcal{E}|)`
        - **output:** :math:`(|\mathcal{V}|, F_{out})`, on the CPU, with :obj:`out` mapped from the
          file

    Raises:
        TypeError: If features or edges are no such tensors.
        ValueError: If the model is in training mode or has a part that looks at all nodes at once,
            or features, edges and weights do not fit.
    """
    _check(model, x, batch_size)
    with Storage(out) as storage, _bar(progress) as tell:
        run = Passes(storage, x.size(0), batch_size, torch.device(device), tell)
        return storage.keep(_output(model, run, x, edge_index, edge_weight))


def _output(
    model: Module, run: Passes, x: Tensor, edge_index: Adj | None, edge_weight: Tensor | None
) -> Tensor:
    if isinstance(model, MLP):
        _check_forward(model, MLP)
        _check_norms(model)
        return run.by_row(type(model).__name__, model, x)
    if edge_index is None:
        raise ValueError(f"'{type(model).__name__}' reads edges: pass 'edge_index'")
    graph = EdgesByTarget(edge_index, x.size(0), edge_weight)
    if isinstance(model, BasicGNN):
        return _basic_gnn(model, run, graph, x)
    if isinstance(model, BitSGC) or type(model) in SGC:
        if isinstance(model, BitSGC):
            _check_forward(model, BitSGC)
        return _sgc(model.conv if isinstance(model, BitSGC) else model, run, graph, x)
    name = type(model).__name__
    layer = layer_of(model, graph, run.batch_size, name, run.device)
    return run.through(graph, [(name, layer, None)], x)[0]


def _basic_gnn(model: BasicGNN, run: Passes, graph: EdgesByTarget, x: Tensor) -> Tensor:
    _check_forward(model, BasicGNN)
    _check_norms(model)
    steps: list[Step] = []
    for place, (conv, norm) in enumerate(zip(model.convs, model.norms, strict=True)):
        name = f"convs.{place}"
        layer = layer_of(conv, graph, run.batch_size, name, run.device)
        inner = place < model.num_layers - 1 or model.jk_mode is not None
        steps.append((name, layer, _after(model, norm) if inner else None))
    xs = run.through(graph, steps, x, keep=hasattr(model, "jk"))
    if hasattr(model, "jk"):
        return run.by_row("jk", lambda *xs: model.lin(model.jk(list(xs))), *xs)
    return run.by_row("lin", model.lin, *xs) if hasattr(model, "lin") else xs[0]


def _after(model: BasicGNN, norm: Module) -> Rows:
    """What comes behind a convolution; dropout does nothing in evaluation."""

    def then(x: Tensor) -> Tensor:
        if model.act is not None and model.act_first:
            x = model.act(x)
        x = norm(x)
        return x if model.act is None or model.act_first else model.act(x)

    return then


def _sgc(conv: Any, run: Passes, graph: EdgesByTarget, x: Tensor) -> Tensor:
    if conv.flow != "source_to_target":
        raise ValueError(f"SGC sends messages against edges (flow='{conv.flow}'): turn the edges")
    if conv.K == 0:
        return run.by_row("lin", conv.lin, x)
    layer, last = Propagation(conv, graph, run.batch_size), conv.K - 1
    steps: list[Step] = [
        (f"hop {hop + 1}", layer, conv.lin if hop == last else None) for hop in range(conv.K)
    ]
    return run.through(graph, steps, x)[0]


def _check(model: Module, x: Tensor, batch_size: int) -> None:
    if not isinstance(model, Module):
        raise TypeError(f"'model' must be a torch.nn.Module (got {type(model).__name__})")
    if not isinstance(x, Tensor) or x.layout != torch.strided or x.dim() != 2:
        found = f"{x.layout}, {x.dim()} dimensions" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"'x' must be a dense matrix, a row for each node (got {found})")
    if model.training:
        raise ValueError("The model is in training mode: call `model.eval()` first")
    _check_unaltered(model)
    if batch_size < 1:
        raise ValueError(f"'batch_size' must be at least 1 (got {batch_size})")


def _check_forward(model: Module, kind: type[Module]) -> None:
    if type(model).forward is not kind.forward:
        raise ValueError(
            f"'{type(model).__name__}' has a forward of its own: call it on the whole graph"
        )


def _check_unaltered(model: Module) -> None:
    found = global_hook()
    if found is not None:
        raise ValueError(f"{found.capitalize()} would see parts of the graph: remove it first")
    for name, module in model.named_modules():
        who = f"'{name}', a {type(module).__name__}," if name else f"'{type(module).__name__}'"
        if module.training:
            raise ValueError(
                f"{who} is in training mode while the model is in evaluation: call `model.eval()` "
                "first, or call the model on the whole graph"
            )
        # These are not called, or not with all nodes; others are called for each range of rows.
        read = module is model or isinstance(module, (MessagePassing, nn.Dropout))
        found = alteration(module) if read else None
        if found is not None:
            raise ValueError(
                f"{who} has {found}, which would be lost: remove it first, or call the model on "
                "the whole graph"
            )
    dropout = getattr(model, "dropout", None)
    if isinstance(dropout, Module) and type(dropout) not in DROPOUTS:
        raise ValueError(
            f"'dropout' is a {type(dropout).__name__}, which may do more than drop in training: "
            "call the model on the whole graph"
        )


def _check_norms(model: Module) -> None:
    for name, norm in getattr(model, "norms", nn.ModuleList()).named_children():
        found = getattr(norm, "module", norm) if isinstance(norm, BatchNorm) else norm
        by_row = isinstance(norm, LayerNorm) and norm.mode == "node"
        if isinstance(norm, BY_STATISTICS):
            by_row = found.running_mean is not None
        if not by_row and not isinstance(norm, BY_ROW):
            raise ValueError(
                f"'norms.{name}' ({norm}) looks at all nodes at once: use batch normalization or "
                "LayerNorm(mode='node'), or call the model on the whole graph"
            )


@contextmanager
def _bar(progress: bool) -> Iterator[Tell]:
    if not progress:
        yield lambda name, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("")

        def tell(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)

        yield tell
