r"""Packed models as files: safetensors, with the program in the metadata.

A file is not trusted: what it says is checked by :mod:`bitgnn.packed.validate` before it is used.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from bitgnn.files import write_whole
from bitgnn.packed.fields import Field, Integer, ListOf, Object, Text, shown
from bitgnn.packed.program import Edges, Program, Step
from bitgnn.packed.trits import from_trits, to_trits
from bitgnn.packed.validate import EDGES, RELATION, as_floats, at_step, check_fields, validate
from bitgnn.packed.validate_ops import MOST_STEPS
from bitgnn.tensor_file import CHECKSUM, from_bytes, to_bytes

FORMAT = "bitgnn-packed"
# Version 2 has tensors that several steps share; files without any are of version 1.
VERSION = 2
MOST_HEADER = 8 * 2**20  # bytes of the description of a model; 2,048 steps take less than one

METADATA = ("format", "version", "about", "program", CHECKSUM)
STEP: dict[str, Field] = {
    "op": Text(),
    "inputs": ListOf(Integer(0, MOST_STEPS)),
    "name": Text(),
    "attrs": Object(),
    "tensors": ListOf(Text(), distinct=True),
    "trits": Object(),
    "edges": Object(or_null=True),
    "shared": Object(),
}
SHAPE = ListOf(Integer(1, 2**40), least=2, most=2)


def write_program(program: Program, path: str | os.PathLike[str], about: Mapping[str, str]) -> None:
    r"""Writes a program to a file, which is there whole or not at all.

    Ternary weights take a fifth of a byte each, other integer weights a byte, and all else 32
    bits. A tensor that several steps share is written once.

    Args:
        program (Program): The program.
        path (str or Path): The file, replaced if it is there.
        about (dict): More to say of the model, for people.

    Raises:
        ValueError: If the program is one that :func:`read_program` refuses.
    """
    validate(program)
    tensors: dict[str, Tensor] = {}
    places: dict[tuple[Any, ...], str] = {}
    steps = []
    for place, step in enumerate(program.steps):
        trits: dict[str, list[int]] = {}
        shared: dict[str, str] = {}
        for name, value in step.tensors.items():
            is_ternary = _is_ternary(step.attrs, name)
            if is_ternary:
                trits[name] = list(value.shape)
            key = value.data_ptr(), value.dtype, value.shape, value.stride(), is_ternary
            first = places.setdefault(key, f"{place}.{name}")
            if first != f"{place}.{name}":
                shared[name] = first
            else:
                tensors[first] = (to_trits(value) if is_ternary else value).contiguous()
        edges = None if step.edges is None else asdict(step.edges)
        if edges is not None and edges["relation"] is None:
            del edges["relation"]  # Versions that know no types of edges read such files.
        written = {
            "op": step.op,
            "inputs": list(step.inputs),
            "name": step.name,
            "attrs": dict(step.attrs),
            "tensors": sorted(step.tensors),
            "trits": trits,
            "edges": edges,
        }
        steps.append(written | ({"shared": shared} if shared else {}))
    metadata = {
        "format": FORMAT,
        "version": str(2 if any("shared" in step for step in steps) else 1),
        "about": json.dumps(dict(about), sort_keys=True),
        "program": json.dumps(steps, sort_keys=True, separators=(",", ":")),
    }
    write_whole(path, to_bytes(tensors, metadata))


def read_program(path: str | os.PathLike[str]) -> tuple[Program, dict[str, str]]:
    r"""The inverse of :func:`write_program`. Nothing in the file is executed.

    Args:
        path (str or Path): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no packed model, is damaged, was written by a newer version, or holds
            a program that is not valid (:func:`bitgnn.packed.validate.validate`).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'")
    try:
        tensors, metadata = from_bytes(path.read_bytes(), MOST_HEADER)
    except ValueError as error:
        raise ValueError(
            f"'{path}' is no packed model, or damaged ({error}): copy it again, or write it again "
            "with `pack`"
        ) from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"'{path}' is a safetensors file, but no packed model of bitgnn")
    try:
        _check_version(metadata)
        about = _loads(metadata["about"], "about")
        if not Object().allows(about) or not all(isinstance(each, str) for each in about.values()):
            raise ValueError("'about' must be an object of strings")
        program = Program(_steps(_loads(metadata["program"], "program"), tensors))
        validate(program)
    except ValueError as error:
        raise ValueError(f"'{path}' cannot be read: {error}") from None
    return as_floats(program), about


def _check_version(metadata: Mapping[str, str]) -> None:
    for name in METADATA:
        if name not in metadata:
            raise ValueError(f"'{name}' is missing in its metadata")
    version = metadata["version"]
    if not version.isdecimal() or len(version) > 9 or int(version) == 0:
        raise ValueError(f"'version' must be a number (got {shown(version)})")
    if int(version) > VERSION:
        raise ValueError(
            f"it has version {int(version)}, and this bitgnn knows versions up to {VERSION}: "
            "upgrade bitgnn"
        )
    unknown = sorted(metadata.keys() - set(METADATA))
    if unknown:
        raise ValueError(f"{shown(unknown[0])} is no part of its metadata")


def _loads(text: str, name: str) -> Any:
    """The value of a JSON text, in which NaN and infinities are no numbers."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError(f"'{name}' is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"'{name}' is no valid JSON ({error})") from None


def _steps(found: Any, tensors: Mapping[str, Tensor]) -> tuple[Step, ...]:
    if not isinstance(found, list) or len(found) > MOST_STEPS:
        raise ValueError(f"'program' must be a list of at most {MOST_STEPS} steps")
    reader = _Reader(tensors)
    steps = []
    for place, step in enumerate(found):
        if not isinstance(step, dict):
            raise ValueError(f"Step {place} must be an object (got {shown(step)})")
        with at_step(place, step.get("op"), step.get("name")):
            steps.append(reader.step(place, step))
    unused = sorted(tensors.keys() - reader.used)
    if unused:
        raise ValueError(f"No step has the tensor {shown(unused[0])}")
    return tuple(steps)


class _Reader:
    """Reads steps from JSON; what they share, they share in memory as well."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.flat: dict[tuple[str, int], Tensor] = {}  # whatever the shapes that it is given
        self.ternary: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self.used: set[str] = set()

    def step(self, place: int, step: dict[str, Any]) -> Step:
        """The step, of which nothing but the types in JSON is checked."""
        step = {"shared": {}} | step
        check_fields(step, STEP)
        found = {}
        for name in step["tensors"]:
            key = step["shared"].get(name, f"{place}.{name}")
            if not isinstance(key, str) or key not in self.tensors:
                raise ValueError(f"the tensor {shown(key)} is missing")
            self.used.add(key)
            if _is_ternary(step["attrs"], name):
                found[name] = self._from_trits(name, key, step["trits"].get(name))
            else:
                found[name] = self.tensors[key]
        for field in ("trits", "shared"):
            for name in step[field]:
                if name not in found or (field == "trits" and not _is_ternary(step["attrs"], name)):
                    raise ValueError(f"'{field}' has {shown(name)}, which does not belong there")
        inputs, edges = tuple(step["inputs"]), self._edges(step["edges"])
        return Step(step["op"], inputs, step["name"], step["attrs"], found, edges)

    def _from_trits(self, name: str, key: str, shape: Any) -> Tensor:
        if not SHAPE.allows(shape):
            raise ValueError(f"'trits.{name}' must be two sizes (got {shown(shape)})")
        at = key, tuple(shape)
        if at not in self.ternary:
            try:
                count = shape[0] * shape[1]
                if (key, count) not in self.flat:
                    self.flat[key, count] = from_trits(self.tensors[key], (count,))
                self.ternary[at] = self.flat[key, count].view(at[1])
            except ValueError as error:
                raise ValueError(f"'{name}': {error}") from None
        return self.ternary[at]

    def _edges(self, edges: dict[str, Any] | None) -> Edges | None:
        if edges is None:
            return None
        relation = edges.get("relation")
        rest = {name: value for name, value in edges.items() if name != "relation"}
        check_fields(rest, EDGES, "edges")
        if relation is None:
            return Edges(**rest)
        if not RELATION.allows(relation):
            raise ValueError(f"'edges.relation' must be {RELATION} (got {shown(relation)})")
        source, name, target = relation
        return Edges(**rest, relation=(source, name, target))  # JSON knows no tuples.


def _is_ternary(attrs: Mapping[str, Any], name: str) -> bool:
    return name == "weight" and attrs.get("bits") == 1.58
