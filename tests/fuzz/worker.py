"""Reads and calls mutated files, one after the other, and writes what came of each: a line with its
number as it begins, and one with the outcome.

    python -m tests.fuzz.worker FIRST LAST STEP
"""

import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import torch

import tests.library  # noqa: F401 (before the package)
from bitgnn.packed import load, prepare
from bitgnn.packed.program import Program
from tests.fuzz.models import SIZES, inputs
from tests.fuzz.mutations import mutated


def own_tensors(program):
    """The program with each tensor in memory of its own, so that a sanitizer sees where it ends."""
    steps = [
        step.replace(tensors={name: value.clone() for name, value in step.tensors.items()})
        for step in program.steps
    ]
    return Program(tuple(steps))


def call(packed, seed):
    """Calls a model in one of the ways in which models are called."""
    x, edges = inputs()
    exact, sparse = bool(seed & 32), bool(seed & 64)
    if packed.program.is_hetero:
        return packed(x, edges, exact=exact)
    homogeneous = x["a"].to_sparse_csr() if sparse else x["a"]
    graph = prepare(edges["a", "own", "a"], SIZES["a"])
    return packed(homogeneous, graph if packed.program.reads_edges else None, exact=exact)


def outcome(seed, path):
    """What came of a file: refused when it was read or called, or an output."""
    path.write_bytes(mutated(seed))
    try:
        packed = load(path)
    except ValueError:
        return "refused when read"
    packed.program = own_tensors(packed.program)
    # Torch and Python take other types of numbers than the native library does.
    os.environ["BITGNN_NATIVE"] = "0" if seed & 128 else "1"
    try:
        call(packed, seed)
    except ValueError:
        return "refused when called"
    return "ran"


def main(first, last, step):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        for seed in range(first, last, step):
            print(seed, flush=True)
            try:
                came = outcome(seed, path)
            except Exception as error:
                traceback.print_exc()
                came = f"{type(error).__name__}"
            print(seed, came, flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
