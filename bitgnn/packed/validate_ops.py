r"""The operators of packed models in one table: attributes, inputs, parameters, and the width of
the rows that each makes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from bitgnn.packed.activations import ACTIVATIONS
from bitgnn.packed.fields import Choice, Field, Flag, Integer, ListOf, Number, Text
from bitgnn.packed.program import Step
from bitgnn.quant import QuantConfig
from bitgnn.quant.config import ACTIVATION_BITS, WEIGHT_BITS

# Limits of a program, generous for models that somebody trains.
MOST_STEPS = 2048
MOST_INPUTS = 16384  # of all steps together
MOST_WIDTH = 2**18  # columns of a value that a step makes
MOST_COLUMNS = 2**22  # of all such values
MOST_HEADS = 2**12
MOST_EDGES = 16  # forms of the edges of a type, of each of which a prepared graph keeps a copy

NUMBERS, ROWS, BY_TYPE = "numbers", "integer rows", "values by type"  # what a value may be


class Free(NamedTuple):
    """The width of the features of a type of nodes, which a program does not always say."""

    nodes: str


Width = int | Free | None  # None: it depends on such a width


class WidthError(ValueError):
    r"""A row of another width than a step takes.

    Args:
        got (int): The width.
        takes (int): The width that the step takes.
        name (str): What of the step takes it.
    """

    def __init__(self, got: int, takes: int, name: str) -> None:
        self.got, self.takes = got, takes
        super().__init__(f"'{name}' takes {takes} columns (got {got})")


class Widths:
    """Collects what a program says of the widths of features."""

    def __init__(self) -> None:
        self.pinned: dict[str, int] = {}

    def take(self, width: Width, takes: int, name: str) -> int:
        r"""Returns the width that a step takes.

        Args:
            width (int, Free or None): The width of what it reads.
            takes (int): The width that it takes.
            name (str): What of the step takes it, for errors.

        Raises:
            WidthError: If it is another.
        """
        if isinstance(width, Free):
            width = self.pinned.setdefault(width.nodes, takes)
        if width is not None and width != takes:
            raise WidthError(width, takes, name)
        return takes

    def same(self, widths: Sequence[Width]) -> Width:
        """Returns the width that several values have in common."""
        known = [width for width in widths if isinstance(width, int)]
        if not known:
            return next((width for width in widths if width is not None), None)
        for width in widths:
            self.take(width, known[0], "inputs")
        return known[0]


@dataclass(frozen=True)
class Parameter:
    """A tensor of 32-bit numbers, or of integers, with as many dimensions as it has."""

    dims: int = 1
    optional: bool = False
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)


def _keeps(step: Step, read: Sequence[Width], widths: Widths) -> Width:
    return widths.same(read)


@dataclass(frozen=True)
class Op:
    r"""An operator.

    Args:
        attrs (dict, optional): The values that each attribute may have. (default: none)
        inputs (int, optional): The number of values that it reads. (default: :obj:`1`;
            :obj:`None`, any number above 0)
        reads (tuple, optional): What these may be. (default: numbers)
        makes (str, optional): What it makes. (default: numbers)
        tensors (dict, optional): Its parameters. (default: none)
        edges (bool, optional): Whether it reads edges. (default: :obj:`False`)
        width (Callable, optional): Returns the width of what it makes, and checks its parameters.
            (default: that of what it reads)
    """

    attrs: Mapping[str, Field] = field(default_factory=dict)
    inputs: int | None = 1
    reads: tuple[str, ...] = (NUMBERS,)
    makes: str = NUMBERS
    tensors: Mapping[str, Parameter] = field(default_factory=dict)
    edges: bool = False
    width: Callable[[Step, Sequence[Width], Widths], Width] = _keeps


def _linear(step: Step, read: Sequence[Width], widths: Widths) -> Width:
    weight, bits = step.tensors["weight"], step.attrs["bits"]
    n, k = weight.shape
    if (weight.dtype == torch.int8) != (bits is not None):
        raise ValueError(f"'weight' is {weight.dtype}, which 'bits' {bits!r} does not allow")
    if ("scale" in step.tensors) != (bits is not None):
        raise ValueError("'scale' belongs to integer weights, and to no others")
    if bits is not None and weight.numel():
        least, most = map(int, weight.aminmax())
        low, high = QuantConfig(weight_bits=bits).weight_range
        if least < low or most > high:
            raise ValueError(f"'weight' has integers from {low} to {high} (got {least} to {most})")
    for name in ("scale", "bias"):
        _fits(step, name, n, alone=name == "scale")
    widths.take(read[0], k, "weight")
    return n


def _attend(step: Step, read: Sequence[Width], widths: Widths) -> Width:
    heads, width = step.attrs["heads"], step.tensors["att_src"].numel()
    _fits(step, "att_dst", width)
    if width % heads:
        raise ValueError(f"'heads' must divide the {width} columns (got {heads})")
    assert step.edges is not None
    if step.edges.norm is not None or step.edges.weighted:
        raise ValueError("'edges' of an attention have neither a norm nor weights")
    widths.take(read[0], width, "att_src")
    return width if step.attrs["concat"] else width // heads


def _affine(step: Step, read: Sequence[Width], widths: Widths) -> Width:
    """What has a factor and a bias for each column."""
    width = read[0]
    for name, alone in (("bias", False), ("factor", step.op == "affine")):
        if name in step.tensors and not (alone and step.tensors[name].numel() == 1):
            width = widths.take(width, step.tensors[name].numel(), name)
    if step.op == "affine" and not step.tensors:
        raise ValueError("it needs 'factor' or 'bias'")
    return width


def _fits(step: Step, name: str, width: int, alone: bool = False) -> None:
    """Refuses a parameter that has not one number a column; with `alone`, one for all may do."""
    count = step.tensors[name].numel() if name in step.tensors else width
    if count != width and not (alone and count == 1):
        raise ValueError(f"'{name}' has {count} numbers, but needs {width}")


def _cat(step: Step, read: Sequence[Width], widths: Widths) -> Width:
    known = [width for width in read if isinstance(width, int)]
    return sum(known) if len(known) == len(read) else None


def _by_type(step: Step, read: Sequence[Width], widths: Widths) -> Width:
    return None


_OPTIONAL = {"factor": Parameter(optional=True), "bias": Parameter(optional=True)}

OPS: dict[str, Op] = {
    "quantize": Op(
        # As in QuantConfig.
        {
            "bits": Choice(ACTIVATION_BITS),
            "full_range": Flag(),
            "eps": Number(1e-30, 1.0, below=True),
        },
        makes=ROWS,
    ),
    "linear": Op(
        {"bits": Choice((None, *WEIGHT_BITS)), "rescale_bias": Flag()},
        reads=(NUMBERS, ROWS),
        tensors={
            "weight": Parameter(2, dtypes=(torch.float32, torch.int8)),
            "scale": Parameter(optional=True),
            "bias": Parameter(optional=True),
        },
        width=_linear,
    ),
    "aggregate": Op({"reduce": Choice(("sum", "mean", "max"))}, reads=(NUMBERS, ROWS), edges=True),
    "attend": Op(
        {"heads": Integer(1, MOST_HEADS), "concat": Flag(), "slope": Number(-1e30, 1e30)},
        tensors={"att_src": Parameter(), "att_dst": Parameter()},
        edges=True,
        width=_attend,
    ),
    "affine": Op(tensors=_OPTIONAL, width=_affine),
    "layer_norm": Op(
        {"over": Choice(("row", "graph")), "eps": Number(0.0, 1e30)},
        tensors=_OPTIONAL,
        width=_affine,
    ),
    "unit": Op(),
    "act": Op({"kind": Choice(tuple(ACTIVATIONS))}),
    "add": Op(inputs=2),
    "cat": Op(inputs=None, width=_cat),
    "maximum": Op(inputs=None),
    "pick": Op({"nodes": Text()}, reads=(BY_TYPE,), width=_by_type),
    "collect": Op(
        {"nodes": ListOf(Text(), least=1, distinct=True)},
        inputs=None,
        makes=BY_TYPE,
        width=_by_type,
    ),
}


def attributes(step: Step) -> Mapping[str, Field]:
    r"""Returns the values that each attribute of a step may have.

    Args:
        step (Step): The step, of an operator that there is.
    """
    kind = step.attrs.get("kind") if step.op == "act" else None
    if isinstance(kind, str) and kind in ACTIVATIONS:
        return {**OPS[step.op].attrs, **ACTIVATIONS[kind].parameters}
    return OPS[step.op].attrs
