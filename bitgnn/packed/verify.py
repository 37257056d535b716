r"""A program is compared with the model that it was read off, on small random graphs: what Python
does in a forward without a tensor's knowledge (a test of its type, a state that it keeps, a
`__call__` of its own), :mod:`torch.fx` does not see."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bitgnn.packed import reference
from bitgnn.packed.graph import PreparedGraph
from bitgnn.packed.program import Program
from bitgnn.packed.trace import GRAPHS, Unsupported, in_evaluation
from bitgnn.packed.validate import infer

NODES, LINKS = 12, 40
CALLS = 3  # One after the other: the second meets the state that the first has left.
# Of the largest output. Where a number lies between two integers, one of them may be rounded
# otherwise; a layer or function that is missing changes more.
BOUND, BOUND_OF_16_BITS = 0.05, 0.3
CACHES = ("_cached_edge_index", "_cached_adj_t", "_cached_x")  # of PyG's layers


@contextmanager
def left_as_it_is(model: nn.Module) -> Iterator[None]:
    r"""Gives each module of a model back the attributes that it had, which a forward may set.

    Args:
        model (torch.nn.Module): The model.
    """
    attributes = {module: dict(vars(module)) for module in model.modules()}
    contents = [
        (value, value.copy())
        for found in attributes.values()
        for value in found.values()
        if isinstance(value, (list, dict, set))
    ]
    try:
        yield
    finally:
        for module, found in attributes.items():
            vars(module).clear()
            vars(module).update(found)
        for value, before in contents:
            if _identities(value) != _identities(before):
                value.clear()
                value.extend(before) if isinstance(value, list) else value.update(before)


def _identities(container: Any) -> list[Any]:
    # Tensors in it do not compare to a truth value.
    if isinstance(container, dict):
        return [(key, id(value)) for key, value in container.items()]
    return [id(value) for value in container]


def verify(model: nn.Module, program: Program) -> None:
    r"""Refuses a program that makes other numbers than its model in evaluation, with the bounds
    above. A model that cannot be called with a small graph is not compared.

    Args:
        model (torch.nn.Module): The model, of one type of nodes.
        program (Program): The program.

    Raises:
        ValueError: If it does.
    """
    first = next((each for each in model.parameters() if each.is_floating_point()), None)
    dtype = torch.float32 if first is None else first.dtype
    device = torch.device("cpu") if first is None else first.device
    width = infer(program.steps, {})[0]
    with left_as_it_is(model), in_evaluation(model), torch.random.fork_rng(devices=[]):
        generator = torch.Generator("cpu").manual_seed(0)
        for _ in range(CALLS):
            for module in model.modules():
                vars(module).update({name: None for name in CACHES if name in vars(module)})
            size = (NODES, width if isinstance(width, int) else 4)
            x = torch.randn(size, generator=generator, device="cpu", dtype=torch.float32)
            edges = torch.randint(NODES, (2, LINKS), generator=generator, device="cpu")
            x = x.to(dtype)  # What 16 bits hold of it, both read.
            try:
                expected = model(x.to(device), **_others(model, edges.to(device)))
            except Exception:
                return
            graph = PreparedGraph(edges, NODES) if program.reads_edges else None
            found = reference.run(program, x.float(), graph)
            _compare(type(model).__name__, found, expected.detach().cpu().float(), dtype)


def _others(model: nn.Module, edges: Tensor) -> dict[str, Any]:
    """What a forward is called with besides features."""
    _, *rest = inspect.signature(model.forward).parameters.values()
    graph = next((each.name for each in rest if each.name in GRAPHS), None)
    given: dict[str, Any] = {} if graph is None else {graph: edges}
    for each in rest:
        named = each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        if named and each.default is each.empty and each.name != graph:
            given[each.name] = None  # The program does not read it.
    return given


def _compare(name: str, found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    if not bool(expected.isfinite().all()):
        return
    bound = BOUND if dtype.itemsize > 2 else BOUND_OF_16_BITS
    most = float(expected.abs().max()) if expected.numel() else 0.0
    same = found.shape == expected.shape
    error = float((found - expected).abs().max()) if same and expected.numel() else 0.0
    if not same or error > bound * most:
        raise Unsupported(
            f"'{name}' cannot be packed: on a random graph it makes other numbers than what "
            f"torch.fx has seen of it (apart by {error:.3g}, where the largest is {most:.3g}). Its "
            "forward does something that depends on the types of its arguments, on a state that "
            "it keeps, or that happens outside of layers and functions"
        )
