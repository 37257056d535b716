r"""The check of a program before anything else uses it. Files are not trusted: an error names the
step and the field that is not in the table of operators, or does not fit the rest."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from bitgnn.packed.fields import Choice, Field, Flag, Integer, ListOf, Number, Text, shown
from bitgnn.packed.program import Edges, Program, Step, types
from bitgnn.packed.validate_ops import (
    BY_TYPE,
    MOST_COLUMNS,
    MOST_EDGES,
    MOST_INPUTS,
    MOST_STEPS,
    MOST_WIDTH,
    NUMBERS,
    OPS,
    Free,
    Parameter,
    Width,
    WidthError,
    Widths,
    attributes,
)

EDGES: dict[str, Field] = {
    "norm": Choice((None, "gcn")),
    "self_loops": Flag(),
    "fill": Number(-1e30, 1e30),
    "weighted": Flag(),
}
RELATION = ListOf(Text(), least=3, most=3)


def validate(program: Program) -> None:
    r"""Checks a program: operators, attributes, inputs, the shape, type and numbers of every
    parameter, the width of every value as far as the program says it, and the limits of its size.

    Args:
        program (Program): The program.

    Raises:
        ValueError: If something is not allowed; the error names the step and the field.
    """
    steps = program.steps
    if len(steps) > MOST_STEPS:
        raise ValueError(f"A program has at most {MOST_STEPS} steps (got {len(steps)})")
    count = sum(len(step.inputs) for step in steps)
    if count > MOST_INPUTS:
        raise ValueError(f"The steps of a program read at most {MOST_INPUTS} values (got {count})")
    for place, step in enumerate(steps):
        with at_step(place, step.op, step.name):
            _check_step(place, step)
    kinds = [BY_TYPE if program.is_hetero else NUMBERS]
    for place, step in enumerate(steps):
        with at_step(place, step.op, step.name):
            _check_kinds(step, kinds, last=place + 1 == len(steps))
            _check_edges(step, program.is_hetero)
        kinds.append(OPS[step.op].makes)
    _check_forms(steps)
    if kinds[-1] not in (NUMBERS, BY_TYPE):
        raise ValueError(f"The last step makes {kinds[-1]}, which are no output")
    types(steps)
    infer(steps, {})


def as_floats(program: Program) -> Program:
    r"""Returns a valid program with floats wherever numbers are meant. Models have integers there,
    such as the 0 of ``nn.LeakyReLU(0)``, which not all that reads them takes.

    Args:
        program (Program): The program, which :func:`validate` has accepted.
    """
    return Program(tuple(map(_with_floats, program.steps)))


def _with_floats(step: Step) -> Step:
    fields = attributes(step)
    attrs = {name: _as_float(value, fields[name]) for name, value in step.attrs.items()}
    edges = step.edges
    if edges is not None:
        edges = replace(edges, fill=float(edges.fill))
    return step.replace(attrs=attrs, edges=edges)


def _as_float(value: Any, field: Field) -> Any:
    return float(value) if isinstance(field, Number) else value


def widths(program: Program, features: int | Mapping[str, int]) -> list[int]:
    r"""Returns the width of each value, that of the features first; 0 for values of several types.

    Args:
        program (Program): The program.
        features (int or dict): The number of features; of each type of nodes, if there are several.

    Raises:
        ValueError: If the program takes another number of features.
    """
    given = {"": features} if isinstance(features, int) else dict(features)
    found = infer(program.steps, given)
    return [width if isinstance(width, int) else 0 for width in found]


def infer(steps: Sequence[Step], given: Mapping[str, int]) -> list[Width]:
    r"""Infers the width of each value; those of features that are not given, from what reads them.

    Args:
        steps (list): The steps.
        given (dict): The numbers of features by type of nodes; :obj:`""` where there is one type.

    Raises:
        ValueError: If widths do not fit together, or exceed the limits.
    """
    known = dict(given)
    while True:
        widths = Widths()
        found = _infer(steps, known, widths, bool(given))
        new = {nodes: width for nodes, width in widths.pinned.items() if nodes not in known}
        if not new:
            break
        known |= new  # What depends on these widths is known now as well.
    made = sum(width for width in found[1:] if isinstance(width, int))
    if made > MOST_COLUMNS:
        raise ValueError(
            f"The steps make rows of at most {MOST_COLUMNS} columns, all together (got {made})"
        )
    return found


def _infer(
    steps: Sequence[Step], known: Mapping[str, int], widths: Widths, of_caller: bool
) -> list[Width]:
    found: list[Width] = [known.get("", Free(""))]
    for place, step in enumerate(steps):
        if step.op == "pick":
            found.append(known.get(step.attrs["nodes"], Free(step.attrs["nodes"])))
            continue
        read = [found[value] for value in step.inputs]
        with at_step(place, step.op, step.name):
            try:
                width = OPS[step.op].width(step, read, widths)
            except WidthError as error:
                if not of_caller:
                    raise
                raise ValueError(
                    f"'x' has {known.get('', dict(known))} columns, of which "
                    f"'{step.name or step.op}' gets {error.got}: it takes {error.takes}"
                ) from None
            features = (
                isinstance(read[0], int) and width == read[0]
            )  # May be as wide as a caller's.
            if isinstance(width, int) and not (1 <= width <= MOST_WIDTH or features):
                raise ValueError(f"it makes rows of 1 to {MOST_WIDTH} columns (got {width})")
        found.append(width)
    return found


@contextmanager
def at_step(place: int, op: Any, name: Any) -> Iterator[None]:
    r"""Names the step in errors.

    Args:
        place (int): Its place.
        op (str): Its operator.
        name (str): The layer that it comes from.
    """
    try:
        yield
    except ValueError as error:
        if str(error).startswith(("Step ", "'x' has ")):
            raise
        of = f" of {shown(name)}" if name else ""
        raise ValueError(f"Step {place} ({shown(op)}{of}): {error}") from None


def check_fields(found: Mapping[str, Any], allowed: Mapping[str, Field], what: str = "") -> None:
    r"""Checks that fields are those that there should be, with values that they may have.

    Args:
        found (dict): The fields.
        allowed (dict): The values that each may have.
        what (str, optional): What has the fields, for errors. (default: :obj:`""`)

    Raises:
        ValueError: If one is missing, unknown, or has another value.
    """
    prefix = f"{what}." if what else ""
    for name, field in allowed.items():
        if name not in found:
            raise ValueError(f"'{prefix}{name}' is missing")
        if not field.allows(found[name]):
            raise ValueError(f"'{prefix}{name}' must be {field} (got {shown(found[name])})")
    for name in found.keys() - allowed.keys():
        raise ValueError(f"'{prefix}{shown(name)[1:-1]}' is no field of it")


def _check_step(place: int, step: Step) -> None:
    if not isinstance(step.op, str) or step.op not in OPS:
        raise ValueError(f"{shown(step.op)} is an operator which this version does not know")
    op = OPS[step.op]
    check_fields(step.attrs, attributes(step))
    check_fields(
        {"name": step.name, "inputs": step.inputs},
        {
            "name": Text(),
            "inputs": ListOf(Integer(0, place), least=op.inputs or 1, most=op.inputs),
        },
    )
    unknown = sorted(step.tensors.keys() - op.tensors.keys())
    if unknown:
        raise ValueError(f"it has no tensor {shown(unknown[0])}")
    for name, parameter in op.tensors.items():
        if name in step.tensors:
            _check_tensor(name, step.tensors[name], parameter)
        elif not parameter.optional:
            raise ValueError(f"'{name}' is missing")


def _check_tensor(name: str, tensor: torch.Tensor, parameter: Parameter) -> None:
    if tensor.dtype not in parameter.dtypes or tensor.dim() != parameter.dims or not tensor.numel():
        dtypes = " or ".join(map(str, parameter.dtypes))
        raise ValueError(
            f"'{name}' must be of type {dtypes} and of {parameter.dims} dimension(s), not empty "
            f"(got {tensor.dtype} of shape {tuple(tensor.shape)})"
        )
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise ValueError(
            f"'{name}' has numbers that are not finite (got {tensor[~tensor.isfinite()][0]}): "
            "training has diverged, or another program has written them"
        )


def _check_kinds(step: Step, kinds: Sequence[str], last: bool) -> None:
    for value in step.inputs:
        if step.op == "pick" and value != 0:
            raise ValueError(f"it takes features, value 0 (got value {value})")
        if kinds[value] not in OPS[step.op].reads:
            raise ValueError(f"'inputs' has value {value}, {kinds[value]}, which it does not read")
    if step.op == "collect":
        if kinds[0] != BY_TYPE or not last:
            raise ValueError("it makes the output of a model of several types of nodes")
        if len(step.attrs["nodes"]) != len(step.inputs):
            raise ValueError("'nodes' has a name for each input")


def _check_edges(step: Step, is_hetero: bool) -> None:
    edges = step.edges
    if (edges is not None) != OPS[step.op].edges:
        raise ValueError("'edges' is missing" if edges is None else "it reads no 'edges'")
    if edges is None:
        return
    check_fields({name: getattr(edges, name) for name in EDGES}, EDGES, "edges")
    _check_relation(step.op, edges, is_hetero)


def _check_forms(steps: Sequence[Step]) -> None:
    """Limits what a call keeps of a graph beyond its edges, whatever the size of the file."""
    forms: dict[Any, set[Edges]] = {}
    for place, step in enumerate(steps):
        if step.edges is None:
            continue
        found = forms.setdefault(step.edges.relation, set())
        found.add(step.edges)
        if len(found) > MOST_EDGES:
            of = "" if step.edges.relation is None else f" of type {step.edges.relation}"
            with at_step(place, step.op, step.name):
                raise ValueError(
                    f"'edges' must be one of at most {MOST_EDGES} descriptions of the edges{of} "
                    f"(got {shown(step.edges)}): a graph is copied for each"
                )


def _check_relation(op: str, edges: Edges, is_hetero: bool) -> None:
    if (edges.relation is not None) != is_hetero:
        raise ValueError("'edges.relation' is a type of edges where there are several, else null")
    if edges.relation is None:
        return
    if not RELATION.allows(edges.relation):
        raise ValueError(f"'edges.relation' must be {RELATION} (got {shown(edges.relation)})")
    source, _, target = edges.relation
    square = op == "attend" or edges.norm is not None or edges.self_loops
    if square and source != target:
        raise ValueError(
            f"'edges.relation' joins nodes of two types, {source!r} and {target!r}: attention, "
            "normalization and self-loops are of one"
        )
