r"""What a model costs: bytes to keep it, operations of one inference over the whole graph.

The counts are of the *packed* form: one multiplication and one addition are two operations, and

* a linear layer on :math:`N` rows makes :math:`2 N F_{in} F_{out}` of them, on integers where
  activations and weights are quantized and on floats elsewhere;
* quantizing a row costs three float operations an element (the maximum, the product with
  :math:`1 / s_x`, rounding), rescaling one an output, a bias one an output;
* a message costs one float operation an edge and channel to weight it, unless all weights are
  equal, and one to aggregate it; a mean one more a node and channel;
* attention costs :math:`2 C` float operations a node, head and side to score it, and seven an
  edge and head (the sum of both sides, LeakyReLU, and the softmax: maximum, difference,
  exponential, sum, quotient).

What is computed once for all inferences (the normalized adjacency matrix) and what both sides
share element by element (activation functions, normalization) is left out.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, Linear, MessagePassing, SAGEConv, SGConv
from torch_geometric.utils import contains_self_loops

from bitgnn.nn import BitSAGEConv
from bitgnn.quant import QuantConfig
from bitgnn.training.latent import quantized_layers

QUANTIZE = 3
RESCALE = 1
SOFTMAX = 5
TRITS_PER_BYTE = 5


@dataclass(frozen=True)
class Cost:
    r"""What a model costs.

    Args:
        weight_bytes (int): Bytes of the packed model: ternary weights at five
            a byte, :math:`k`-bit weights at :math:`k` bits, their scales and
            everything else in 32 bits.
        weight_bytes_fp32 (int): Bytes of the same model in 32 bits.
        zeros (float, optional): The share of zeros among ternary weights.
        int_ops (int, optional): Integer operations of one inference, :obj:`None` if they were not
            counted.
        float_ops (int, optional): Float operations of one inference, likewise.
    """

    weight_bytes: int
    weight_bytes_fp32: int
    zeros: float | None
    int_ops: int | None
    float_ops: int | None

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as plain values, fit for JSON."""
        return asdict(self)


def cost(model: nn.Module, *inputs: Tensor) -> Cost:
    r"""Counts what a model costs on given inputs.

    Args:
        model (torch.nn.Module): The model.
        *inputs (torch.Tensor): What it is called with.

    Raises:
        TypeError: If the operations of one of its layers are not known.
    """
    int_ops, float_ops = count_operations(model, *inputs)
    packed, full = weight_bytes(model)
    return Cost(packed, full, share_of_zeros(model), int_ops, float_ops)


def weight_bytes(model: nn.Module) -> tuple[int, int]:
    """Returns the bytes of a model packed and in 32 bits.

    Args:
        model (torch.nn.Module): The model.
    """
    full = 4 * sum(value.numel() for value in model.state_dict().values())
    packed = full
    for layer in quantized_layers(model):
        if layer.quant is not None and layer.quant.weight_bits is not None:
            _, scale = layer.ternary()
            packed -= 4 * layer.weight.numel()
            packed += _integer_bytes(layer.weight.numel(), layer.quant) + 4 * scale.numel()
    return packed, full


def share_of_zeros(model: nn.Module) -> float | None:
    """Returns the share of zeros among all ternary weights, :obj:`None` without any.

    Args:
        model (torch.nn.Module): The model.
    """
    weights = [
        layer.ternary()[0]
        for layer in quantized_layers(model)
        if layer.quant is not None and layer.quant.ternary
    ]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else None


@torch.no_grad()
def count_operations(model: nn.Module, *inputs: Tensor) -> tuple[int, int]:
    """Returns the integer and the float operations of one inference.

    Args:
        model (torch.nn.Module): The model.
        *inputs (torch.Tensor): What it is called with.
    """
    counter = _Counter(model)
    handles = []
    for module in model.modules():
        if isinstance(module, (nn.Linear, Linear)):
            handles.append(module.register_forward_hook(counter.linear))
        elif isinstance(module, MessagePassing):
            handles.append(module.register_forward_hook(counter.convolution))
    training = model.training
    try:
        model.eval()(*inputs)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return counter.int_ops, counter.float_ops


class _Counter:
    """Forward hooks that add up operations."""

    def __init__(self, model: nn.Module) -> None:
        self.int_ops = self.float_ops = 0
        # SAGE quantizes its input rows itself: what reaches its root branch are integers already.
        self.fed_integers = {
            conv.lin_r
            for conv in model.modules()
            if isinstance(conv, BitSAGEConv) and conv.root_weight and _quantizes_rows(conv)
        }

    def linear(self, layer: Any, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        x = inputs[0]
        quant = getattr(layer, "quant", None)
        integer_rows = _quantizes_rows(layer) or layer in self.fed_integers
        products = 2 * x.numel() * out.size(-1)
        if _quantizes_rows(layer):
            self.float_ops += QUANTIZE * x.numel()
        if integer_rows and quant is not None and quant.weight_bits is not None:
            self.int_ops += products
            self.float_ops += RESCALE * out.numel()
        else:
            self.float_ops += products
        if layer.bias is not None:
            self.float_ops += out.numel()

    def convolution(self, conv: Any, inputs: tuple[Any, ...], out: Tensor) -> None:
        x, edge_index = inputs[0], _edge_index(inputs[1])
        num_nodes, channels = x.size(0), out.size(-1)
        edges = edge_index.size(1)
        if isinstance(conv, (GCNConv, SGConv, GATConv)) and conv.add_self_loops:
            edges = _with_self_loops(edge_index, num_nodes)
        if isinstance(conv, GCNConv):
            self.float_ops += 2 * edges * channels
        elif isinstance(conv, SGConv):
            self.float_ops += 2 * edges * x.size(-1) * conv.K
        elif isinstance(conv, SAGEConv):
            self.float_ops += (edges + num_nodes) * x.size(-1)
            if _quantizes_rows(conv):
                # Every gathered row has a scale of its own, to be applied before rows are added.
                self.float_ops += QUANTIZE * x.numel() + edges * x.size(-1)
        elif isinstance(conv, GATConv):
            width = conv.heads * conv.out_channels
            self.float_ops += 2 * num_nodes * 2 * width
            self.float_ops += edges * (2 * width + (2 + SOFTMAX) * conv.heads)
            if not conv.concat:
                self.float_ops += num_nodes * width
        else:
            raise TypeError(
                f"The operations of '{conv.__class__.__name__}' are not known: count a model of "
                f"GCN, GraphSAGE, GAT or SGC layers"
            )
        if getattr(conv, "bias", None) is not None:
            self.float_ops += out.numel()


def _quantizes_rows(module: Any) -> bool:
    quant: QuantConfig | None = getattr(module, "quant", None)
    return quant is not None and quant.activation_bits is not None


def _edge_index(edges: Tensor) -> Tensor:
    return edges if edges.layout == torch.strided else edges.to_sparse_coo().indices().flip(0)


def _with_self_loops(edge_index: Tensor, num_nodes: int) -> int:
    if contains_self_loops(edge_index):
        edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    return edge_index.size(1) + num_nodes


def _integer_bytes(numel: int, quant: QuantConfig) -> int:
    if quant.ternary:
        return -(-numel // TRITS_PER_BYTE)
    return -(-numel * int(quant.weight_bits or 32) // 8)
