r"""Refuses a run that cannot fit into memory before it takes all of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from bitgnn.data import Task
from bitgnn.training.recipe import Recipe

WAY_OUT = (
    "lower hidden_channels, num_layers, heads or width, or train in mini-batches (batch=random)"
)


def check_memory(name: str, t: Task, recipe: Recipe, ternary: bool) -> None:
    r"""Compares what training on the CPU needs at the least (weights, gradients and two moments of
    Adam, and the output of each hidden layer) with the memory of the machine.

    Args:
        name (str): The name of the model.
        t (Task): The data set.
        recipe (Recipe): The hyper-parameters.
        ternary (bool): Whether the model is ternary, and so takes the :obj:`width` of the recipe.

    Raises:
        ValueError: If that is more.
    """
    there = physical_memory()
    if there is None or name == "sgc":  # It has one layer, of the size of the data.
        return
    width = recipe.hidden_channels * (recipe.width if ternary else 1)
    width *= recipe.heads if name == "gat" else 1
    hidden = recipe.num_layers - 1
    weights = hidden and t.num_features * width + (hidden - 1) * width**2
    rows = t.num_nodes if recipe.batch is None else 0
    needed = 4 * (4 * weights + rows * width * hidden)
    if needed > there:
        least = f"{needed / 2**30:,.0f} GiB"
        raise ValueError(
            f"Training {name!r} with hidden_channels={recipe.hidden_channels} and "
            f"num_layers={recipe.num_layers} on '{t.name}' needs at least {least} of "
            f"memory, and this machine has {there / 2**30:.0f}: {WAY_OUT}"
        )


@contextmanager
def explained() -> Iterator[None]:
    r"""Makes one line of what PyTorch says when memory is exhausted.

    Raises:
        ValueError: If it is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        exhausted = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not exhausted and "allocate memory" not in text and "enough memory" not in text:
            raise
        # Behind the place in PyTorch's code.
        problem = text.partition("err == 0. ")[2] or text or "no memory"
        raise ValueError(f"Memory is exhausted ({problem.splitlines()[0]}): {WAY_OUT}") from error


def physical_memory() -> int | None:
    r"""Returns the bytes of memory that the machine, or its container, has; :obj:`None` where that
    is not known."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    with suppress(OSError, ValueError):  # No container, or "max".
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found
