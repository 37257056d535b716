r"""Programs, step by step, in plain torch: the oracle of all other ways to run them."""

from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.kernels import graph_attention, spmm
from bitgnn.packed.activations import ACTIVATIONS
from bitgnn.packed.graph import PreparedGraph, PreparedHeteroGraph
from bitgnn.packed.program import Program, Step
from bitgnn.quant import QuantConfig, quantize_rows


class Rows(NamedTuple):
    """Integer rows and their scales."""

    values: Tensor
    scale: Tensor

    def rescaled(self) -> Tensor:
        """The numbers that they stand for."""
        return self.values * self.scale


@torch.no_grad()
def run(program: Program, x: Any, graph: PreparedGraph | PreparedHeteroGraph | None) -> Any:
    r"""Returns the output of a program.

    Args:
        program (Program): The program.
        x (torch.Tensor or dict): The features of the nodes, or those of each type.
        graph (PreparedGraph or PreparedHeteroGraph, optional): The graph, if the program reads
            edges.
    """
    values: list[Any] = [x]
    for step in program.steps:
        inputs = [values[value] for value in step.inputs]
        values.append(one(step, graph, *inputs))
    return values[-1]


@torch.no_grad()
def one(step: Step, graph: PreparedGraph | PreparedHeteroGraph | None, *inputs: Any) -> Any:
    r"""Returns the value that one step makes.

    Args:
        step (Step): The step.
        graph (PreparedGraph, optional): The graph, if the step reads edges.
        *inputs: The values that it reads.
    """
    return globals()[f"_{step.op}"](step, graph, *inputs)


def _quantize(step: Step, graph: Any, x: Tensor) -> Rows:
    config = QuantConfig(
        activation_bits=step.attrs["bits"], full_range=step.attrs["full_range"],
        eps=step.attrs["eps"],
    )  # fmt: skip
    values, scale = quantize_rows(x, config)
    return Rows(values.to(x.dtype), scale)


def _linear(step: Step, graph: Any, x: Tensor | Rows) -> Tensor:
    weight, bias = step.tensors["weight"], step.tensors.get("bias")
    scale = step.tensors.get("scale")
    if scale is None and isinstance(x, Tensor):
        return F.linear(x, weight, bias)
    operand, row_scale = (x.values, x.scale) if isinstance(x, Rows) else (x, torch.ones(()))
    out = operand @ weight.to(operand.dtype).t()
    scale = torch.ones(()) if scale is None else scale
    if step.attrs["rescale_bias"] and bias is not None:
        return (out + bias) * (row_scale * scale)
    out = out * (row_scale * scale)
    return out if bias is None else out + bias


def _aggregate(step: Step, graph: Any, x: Tensor | Rows) -> Tensor:
    assert step.edges is not None
    x = x.rescaled() if isinstance(x, Rows) else x
    return spmm(graph.matrix(step.edges), x, reduce=step.attrs["reduce"])


def _attend(step: Step, graph: Any, h: Tensor) -> Tensor:
    assert step.edges is not None
    heads = step.attrs["heads"]
    h = h.view(h.size(0), heads, h.size(1) // heads)
    src, dst = (step.tensors[name].view(heads, -1) for name in ("att_src", "att_dst"))
    out = graph_attention(
        graph.matrix(step.edges), h, (h * src).sum(dim=-1), (h * dst).sum(dim=-1),
        step.attrs["slope"], 0.0, False,
    )  # fmt: skip
    return out.flatten(start_dim=1) if step.attrs["concat"] else out.mean(dim=1)


def _affine(step: Step, graph: Any, x: Tensor) -> Tensor:
    factor, bias = step.tensors.get("factor"), step.tensors.get("bias")
    x = x if factor is None else x * factor
    return x if bias is None else x + bias


def _layer_norm(step: Step, graph: Any, x: Tensor) -> Tensor:
    factor, bias = step.tensors.get("factor"), step.tensors.get("bias")
    if step.attrs["over"] == "row":
        return F.layer_norm(x, x.shape[-1:], factor, bias, step.attrs["eps"])
    x = x - x.mean()
    x = x / (x.std(unbiased=False) + step.attrs["eps"])
    x = x if factor is None else x * factor
    return x if bias is None else x + bias


def _unit(step: Step, graph: Any, x: Tensor) -> Tensor:
    return F.normalize(x, p=2.0, dim=-1)


def _act(step: Step, graph: Any, x: Tensor) -> Tensor:
    attrs = dict(step.attrs)
    return ACTIVATIONS[attrs.pop("kind")].function(x, **attrs)


def _add(step: Step, graph: Any, a: Tensor, b: Tensor) -> Tensor:
    return a + b


def _cat(step: Step, graph: Any, *values: Tensor) -> Tensor:
    return torch.cat(values, dim=-1)


def _maximum(step: Step, graph: Any, *values: Tensor) -> Tensor:
    return reduce(torch.maximum, values)


def _pick(step: Step, graph: Any, x: dict[str, Tensor]) -> Tensor:
    return x[step.attrs["nodes"]]


def _collect(step: Step, graph: Any, *values: Tensor) -> dict[str, Tensor]:
    return dict(zip(step.attrs["nodes"], values, strict=True))
