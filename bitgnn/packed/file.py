r"""Packed models as files: safetensors, with the program in the metadata."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bitgnn.files import write_whole
from bitgnn.packed.program import OPS, Edges, Program, Step
from bitgnn.packed.trits import from_trits, to_trits

FORMAT = "bitgnn-packed"
VERSION = 1


def write_program(program: Program, path: str | os.PathLike[str], about: Mapping[str, str]) -> None:
    r"""Writes a program to a file, which is there whole or not at all.

    Ternary weights take a fifth of a byte each, other integer weights a byte, and all else 32
    bits.

    Args:
        program (Program): The program.
        path (str or Path): The file, replaced if it is there.
        about (dict): More to say of the model, for people.
    """
    tensors: dict[str, Tensor] = {}
    steps = []
    for place, step in enumerate(program.steps):
        trits = {}
        for name, value in step.tensors.items():
            if _is_ternary(step, name):
                trits[name] = list(value.shape)
                value = to_trits(value)
            tensors[f"{place}.{name}"] = value.contiguous()
        edges = None if step.edges is None else asdict(step.edges)
        if edges is not None and edges["relation"] is None:
            del edges["relation"]  # Versions that know no types of edges read such files.
        steps.append(
            {
                "op": step.op,
                "inputs": list(step.inputs),
                "name": step.name,
                "attrs": dict(step.attrs),
                "tensors": sorted(step.tensors),
                "trits": trits,
                "edges": edges,
            }
        )
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "about": json.dumps(dict(about), sort_keys=True),
        "program": json.dumps(steps, sort_keys=True, separators=(",", ":")),
    }
    metadata["sha256"] = _checksum(tensors, metadata)
    write_whole(Path(path), save(tensors, metadata))


def read_program(path: str | os.PathLike[str]) -> tuple[Program, dict[str, str]]:
    r"""The inverse of :func:`write_program`. Nothing in the file is executed.

    Args:
        path (str or Path): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no packed model, is damaged, or was written by a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"'{path}' is no packed model, or damaged ({error}): write it again with `pack`"
        ) from None
    if metadata.get("sha256") != _checksum(tensors, metadata):
        raise ValueError(f"'{path}' is damaged: its checksum differs. Copy it again")
    steps = [
        _step(place, step, tensors) for place, step in enumerate(json.loads(metadata["program"]))
    ]
    return Program(tuple(steps)), json.loads(metadata["about"])


def _step(place: int, step: dict[str, Any], tensors: Mapping[str, Tensor]) -> Step:
    if step["op"] not in OPS:
        raise ValueError(f"Step {place} is {step['op']!r}, which this version does not know")
    found = {name: tensors[f"{place}.{name}"] for name in step["tensors"]}
    for name, shape in step["trits"].items():
        found[name] = from_trits(found[name], tuple(shape))
    edges = None if step["edges"] is None else Edges(**step["edges"])
    if edges is not None and edges.relation is not None:
        source, name, target = edges.relation
        edges = replace(edges, relation=(source, name, target))  # JSON knows no tuples.
    return Step(step["op"], tuple(step["inputs"]), step["name"], step["attrs"], found, edges)


def _is_ternary(step: Step, name: str) -> bool:
    return name == "weight" and step.attrs.get("bits") == 1.58


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise ValueError(f"'{path}' is a safetensors file, but no packed model of bitgnn")
    version = int(metadata["version"])
    if version > VERSION:
        raise ValueError(
            f"'{path}' has version {version}, and this bitgnn knows versions up to {VERSION}: "
            "upgrade bitgnn"
        )


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(set(metadata) - {"sha256"}):
        digest.update(f"{name}={metadata[name]}\n".encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
