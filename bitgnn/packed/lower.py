r"""From layers to steps: one rule a kind of layer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from bitgnn.kernels import Dropout
from bitgnn.nn import BitGATConv, BitGCNConv, BitLinear, BitSAGEConv, BitSGConv
from bitgnn.nn.sparse_linear import SparseLinear
from bitgnn.packed.activations import ACTIVATIONS
from bitgnn.packed.program import Edges, Relation, Step
from bitgnn.quant import QuantConfig

LINEARS = (BitLinear, SparseLinear, pyg.Linear, nn.Linear)
REDUCTIONS = {"add": "sum", "sum": "sum", "mean": "mean", "max": "max"}

KINDS: dict[type[nn.Module], str] = {  # of activation functions
    nn.ReLU: "relu",
    nn.ELU: "elu",
    nn.LeakyReLU: "leaky_relu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Softmax: "softmax",
    nn.LogSoftmax: "log_softmax",
}
NOTHING = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    Dropout,
)


class Unsupported(ValueError):
    """A layer that cannot be packed."""


class Builder:
    """Collects the steps of a model."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        # The model's tensors and the program's copies of them: one of each, wherever it is used.
        self._copies: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        self._integers: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        # The type of the edges that layers read, where there are several.
        self.relation: Relation | None = None

    def emit(
        self,
        op: str,
        *inputs: int,
        name: str = "",
        edges: Edges | None = None,
        tensors: dict[str, Tensor | None] | None = None,
        **attrs: Any,
    ) -> int:
        """Adds a step and returns the value that it makes."""
        given = {
            key: self._copy(value, name)
            for key, value in (tensors or {}).items()
            if value is not None
        }
        if edges is not None:
            edges = replace(edges, relation=self.relation)
        self.steps.append(Step(op, inputs, name, attrs, given, edges))
        return len(self.steps)

    def integers(self, layer: Any) -> tuple[Tensor, Tensor]:
        """Returns the integer weight of a layer and its scale, computed once for each layer."""
        if layer not in self._integers:
            weight, scale = layer.ternary()
            self._integers[layer] = weight.to(torch.int8), scale.view(-1)
        return self._integers[layer]

    def _copy(self, value: Tensor, name: str) -> Tensor:
        """Returns a tensor for a program: the model that it comes from may be trained further."""
        key = value.data_ptr(), value.dtype, value.shape, value.stride()
        if key not in self._copies:
            # Kept alive, the address stays its own.
            self._copies[key] = value, _parameter(value, name)
        return self._copies[key][1]

    def is_quantized(self, value: int) -> bool:
        """Whether a value consists of integer rows."""
        return value > 0 and self.steps[value - 1].op == "quantize"


def _parameter(value: Tensor, name: str) -> Tensor:
    """A copy of a parameter, as packed models hold them: integers of 8 bits or numbers of 32."""
    if value.dtype == torch.int8:
        dtype = torch.int8
    elif value.dtype.is_floating_point:
        dtype = torch.float32
    else:
        raise Unsupported(f"'{name}' has parameters of type {value.dtype}, which cannot be packed")
    return value.detach().to("cpu", dtype, copy=True).contiguous()


def lower(
    builder: Builder,
    layer: nn.Module,
    name: str,
    x: Any,
    weighted: bool = False,
) -> int | None:
    r"""Adds the steps of a layer, and returns the value that it makes; :obj:`None` if there is no
    rule for the layer.

    Args:
        builder (Builder): What collects them.
        layer (torch.nn.Module): The layer, in evaluation mode.
        name (str): Its name in the model.
        x (int or tuple): The value that it reads, or those of the sources and of the targets of
            edges, where these are nodes of two types.
        weighted (bool, optional): Whether weights of edges are given to it.
            (default: :obj:`False`)

    Raises:
        Unsupported: If there is a rule, but the layer does something that it does not cover.
    """
    rule = RULES.get(type(layer))
    if isinstance(x, tuple) and rule is not None and rule is not _sage:
        raise Unsupported(
            f"'{name}', a {type(layer).__name__}, sums over edges between two types of nodes: of "
            "layers that do, only SAGEConv and BitSAGEConv can be packed"
        )
    if type(layer) in NOTHING:
        return x
    if type(layer) in KINDS:
        kind = KINDS[type(layer)]
        given = {name: getattr(layer, name) for name in ACTIVATIONS[kind].parameters}
        return builder.emit("act", x, name=name, kind=kind, **given)
    return None if rule is None else rule(builder, layer, name, x, weighted)


def lower_linear(builder: Builder, layer: Any, name: str, x: int, weighted: bool = False) -> int:
    """A linear layer, ternary or not."""
    if type(layer) not in LINEARS:
        known = ", ".join(each.__name__ for each in LINEARS)
        raise Unsupported(
            f"'{name}' is a {type(layer).__name__}, which may do more than a linear map: what can "
            f"be packed there is {known}"
        )
    if isinstance(layer.weight, UninitializedParameter):
        raise Unsupported(f"'{name}' has no sizes yet: call the model once, then pack it")
    quant: QuantConfig | None = getattr(layer, "quant", None)
    if quant is None:
        return builder.emit(
            "linear", x, name=name, tensors={"weight": layer.weight, "bias": layer.bias},
            bits=None, rescale_bias=False,
        )  # fmt: skip
    x = quantize(builder, quant, name, x)
    if quant.weight_bits is None:
        return builder.emit(
            "linear", x, name=name, tensors={"weight": layer.weight, "bias": layer.bias},
            bits=None, rescale_bias=quant.rescale_bias,
        )  # fmt: skip
    weight, scale = builder.integers(layer)
    return builder.emit(
        "linear",
        x,
        name=name,
        tensors={"weight": weight, "scale": scale, "bias": layer.bias},
        bits=quant.weight_bits,
        rescale_bias=quant.rescale_bias,
    )


def quantize(builder: Builder, quant: QuantConfig, name: str, x: int) -> int:
    """The rows of a layer, as its configuration quantizes them."""
    if builder.is_quantized(x):
        return x  # SAGE's root branch reads what its convolution has quantized.
    if quant.layer_norm:
        x = builder.emit("layer_norm", x, name=name, over="row", eps=1e-5)
    if quant.activation_bits is None:
        return x
    attrs: dict[str, Any] = {
        "bits": quant.activation_bits,
        "full_range": quant.full_range,
        "eps": quant.eps,
    }
    if builder.relation is not None:  # Edges of many types read the rows of one type of nodes.
        for place, step in enumerate(builder.steps, start=1):
            if (step.op, step.inputs, step.attrs) == ("quantize", (x,), attrs):
                return place
    return builder.emit("quantize", x, name=name, **attrs)


def _gcn(builder: Builder, conv: Any, name: str, x: int, weighted: bool) -> int:
    _check_conv(conv, name)
    x = lower_linear(builder, conv.lin, f"{name}.lin", x)
    x = builder.emit("aggregate", x, name=name, reduce="sum", edges=_gcn_edges(conv, weighted))
    return _bias(builder, conv.bias, name, x)


def _sg(builder: Builder, conv: Any, name: str, x: int, weighted: bool) -> int:
    _check_conv(conv, name)
    edges = _gcn_edges(conv, weighted)
    for _ in range(conv.K):
        x = builder.emit("aggregate", x, name=name, reduce="sum", edges=edges)
    return lower_linear(builder, conv.lin, f"{name}.lin", x)


def _gcn_edges(conv: Any, weighted: bool) -> Edges:
    normalize = getattr(conv, "normalize", True)
    fill = 2.0 if getattr(conv, "improved", False) else 1.0
    # PyG adds self-loops in the course of normalization, and not without it.
    loops = normalize and conv.add_self_loops
    return Edges("gcn" if normalize else None, loops, fill if loops else 1.0, weighted)


def _sage(builder: Builder, conv: Any, name: str, x: int | tuple[int, int], weighted: bool) -> int:
    _check_conv(conv, name, tuple(REDUCTIONS))
    if conv.project:
        # Of the target nodes the root branch sees what came in.
        raise Unsupported(f"'{name}' has project=True, which cannot be packed yet")
    quant = getattr(conv, "quant", None)
    both = x if isinstance(x, tuple) else (x,)
    rows = [value if quant is None else quantize(builder, quant, name, value) for value in both]
    out = builder.emit("aggregate", rows[0], name=name, reduce=REDUCTIONS[conv.aggr], edges=Edges())
    out = lower_linear(builder, conv.lin_l, f"{name}.lin_l", out)
    if conv.root_weight:
        root = lower_linear(builder, conv.lin_r, f"{name}.lin_r", rows[-1])
        out = builder.emit("add", out, root, name=name)
    return builder.emit("unit", out, name=name) if conv.normalize else out


def _gat(builder: Builder, conv: Any, name: str, x: int, weighted: bool) -> int:
    _check_conv(conv, name)
    if conv.lin is None or conv.edge_dim is not None:
        what = "two kinds of nodes" if conv.lin is None else "edge features"
        raise Unsupported(f"'{name}' attends over {what}, which cannot be packed yet")
    h = lower_linear(builder, conv.lin, f"{name}.lin", x)
    out = builder.emit(
        "attend",
        h,
        name=name,
        tensors={"att_src": conv.att_src.flatten(), "att_dst": conv.att_dst.flatten()},
        heads=conv.heads,
        concat=conv.concat,
        slope=conv.negative_slope,
        edges=Edges(self_loops=conv.add_self_loops),
    )
    if conv.res is not None:
        out = builder.emit("add", out, lower_linear(builder, conv.res, f"{name}.res", x), name=name)
    return _bias(builder, conv.bias, name, out)


def _bias(builder: Builder, bias: Tensor | None, name: str, x: int) -> int:
    return x if bias is None else builder.emit("affine", x, name=name, tensors={"bias": bias})


def _batch_norm(builder: Builder, norm: Any, name: str, x: int, weighted: bool) -> int:
    norm = getattr(norm, "module", norm)  # PyG's holds torch's.
    kind: Any = type(norm)
    if kind is not nn.BatchNorm1d:
        raise Unsupported(f"'{name}' holds a {kind.__name__}, which cannot be packed")
    if norm.running_mean is None:
        raise Unsupported(
            f"'{name}' normalizes with the statistics of each batch, which cannot be packed: "
            "train with track_running_stats=True"
        )
    factor = (norm.running_var + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight
    bias = -norm.running_mean * factor
    bias = bias if norm.bias is None else bias + norm.bias
    return builder.emit("affine", x, name=name, tensors={"factor": factor, "bias": bias})


def _layer_norm(builder: Builder, norm: Any, name: str, x: int, weighted: bool) -> int:
    over = "graph" if getattr(norm, "mode", "node") == "graph" else "row"
    if len(getattr(norm, "normalized_shape", (1,))) != 1:
        raise Unsupported(
            f"'{name}' normalizes over {len(norm.normalized_shape)} dimensions, which cannot be "
            "packed: only over the features of a row"
        )
    return builder.emit(
        "layer_norm", x, name=name, tensors={"factor": norm.weight, "bias": norm.bias},
        over=over, eps=norm.eps,
    )  # fmt: skip


def _check_conv(conv: Any, name: str, aggregations: tuple[str, ...] = ("add", "sum")) -> None:
    if conv.flow != "source_to_target":
        raise Unsupported(f"'{name}' has flow={conv.flow!r}: only 'source_to_target' can be packed")
    if conv.aggr not in aggregations:
        known = ", ".join(map(repr, aggregations))
        raise Unsupported(f"'{name}' has aggr={conv.aggr!r}: only {known} can be packed")


RULES: dict[type[nn.Module], Callable[[Builder, Any, str, Any, bool], int]] = {
    **dict.fromkeys(LINEARS, lower_linear),
    **dict.fromkeys((pyg.GCNConv, BitGCNConv), _gcn),
    **dict.fromkeys((pyg.SGConv, BitSGConv), _sg),
    **dict.fromkeys((pyg.SAGEConv, BitSAGEConv), _sage),
    **dict.fromkeys((pyg.GATConv, BitGATConv), _gat),
    **dict.fromkeys((pyg.BatchNorm, nn.BatchNorm1d), _batch_norm),
    **dict.fromkeys((pyg.LayerNorm, nn.LayerNorm), _layer_norm),
}
