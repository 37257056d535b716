"""Files of version 1 of the format keep opening, to the same numbers. They were written by commit
0bd0cb3; outputs.safetensors holds features, edges and the outputs of `reference.run`."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bitgnn.packed import load, prepare, reference

FOLDER = Path(__file__).parents[1] / "data" / "packed-v1"
FILES = sorted(path.stem for path in FOLDER.glob("*.safetensors") if path.stem != "outputs")


@pytest.fixture(scope="module")
def stored():
    return load_file(FOLDER / "outputs.safetensors")


def inputs(stored):
    """Features and edges by type."""
    x = {name[2:]: value for name, value in stored.items() if name.startswith("x:")}
    edges = {
        tuple(name[len("edges:") :].split()): value
        for name, value in stored.items()
        if name.startswith("edges:")
    }
    return x, edges


@pytest.mark.parametrize("name", FILES)
def test_files_of_version_1(name, stored):
    packed = load(FOLDER / f"{name}.safetensors")
    if packed.program.is_hetero:
        x, edges = inputs(stored)
        graph = prepare(edges, {kind: each.size(0) for kind, each in x.items()})
    else:
        x = stored["x"]
        graph = prepare(stored["edge_index"], x.size(0)) if packed.program.reads_edges else None
    found, called = reference.run(packed.program, x, graph), packed(x, graph, exact=True)
    if not packed.program.is_hetero:
        found, called = {"": found}, {"": called}
    for kind, value in found.items():
        expected = stored[f"out:{name}" + (f":{kind}" if kind else "")]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
        # Another order of sums rounds some number to another integer.
        error = (called[kind] - expected).square().mean().sqrt()
        assert error < 0.02 * expected.abs().max()


def test_there_are_files_of_every_operator():
    found = {
        step.op for name in FILES for step in load(FOLDER / f"{name}.safetensors").program.steps
    }
    from bitgnn.packed.validate_ops import OPS

    assert found == set(OPS)
