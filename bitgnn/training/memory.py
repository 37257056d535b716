r"""Refuses a run that cannot fit into memory before it takes all of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from bitgnn.data import Task
from bitgnn.kernels import native
from bitgnn.kernels.native_products import MANY
from bitgnn.training.recipe import Recipe

WAY_OUT = (
    "lower hidden_channels, num_layers, heads or width, or train in mini-batches (batch=random)"
)

# What autograd keeps of each hidden layer, in matrices of the size of its output. GCN and MLP: the
# result of the activation function, and that of dropout or, in ternary, the integers of the next
# quantizer. SAGE: also what the next layer aggregates. GAT: also what attention reads and returns.
KEPT = {"gcn": 2, "mlp": 2, "sage": 3, "gat": 4}
KEPT_WITHOUT_KERNELS = {"gcn": 1, "mlp": 1, "sage": 1, "gat": 2}  # more: masks of dropout
KEPT_OF_NORM = {None: 0, "batch_norm": 1, "layer_norm": 2}
MATRICES = {"sage": 2}  # of a layer, if it has more than one
# Of these, autograd keeps the result. Without dropout, the next layer keeps the same tensor.
READ_BY_RESULT = ("relu", "tanh")

CGROUPS = Path("/sys/fs/cgroup")
MEMINFO, OWN_CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup")


def check_memory(name: str, t: Task, recipe: Recipe, ternary: bool) -> None:
    r"""Compares what training on the CPU needs (:func:`needed_memory`) with the memory that is
    available.

    Args:
        name (str): The name of the model.
        t (Task): The data set.
        recipe (Recipe): The hyper-parameters.
        ternary (bool): Whether the model is ternary, and so takes the :obj:`width` of the recipe.

    Raises:
        ValueError: If that is more.
    """
    there, needed = available_memory(), needed_memory(name, t, recipe, ternary)
    if there is not None and needed > there:
        raise ValueError(
            f"Training {name!r} with hidden_channels={recipe.hidden_channels} and "
            f"num_layers={recipe.num_layers} on '{t.name}' needs about {_gib(needed)} GiB of "
            f"memory, and {_gib(there)} GiB are available: {WAY_OUT}"
        )


def needed_memory(name: str, t: Task, recipe: Recipe, ternary: bool) -> int:
    r"""Estimates the most bytes that training holds at one time beyond the data: in the backward
    pass what autograd has kept, or in the step of the optimizer the weights and their moments. Of
    mini-batches, whose size is not known, it counts the weights alone.

    Args:
        name (str): The name of the model.
        t (Task): The data set.
        recipe (Recipe): The hyper-parameters.
        ternary (bool): Whether the model is ternary.
    """
    if name == "sgc":  # It has one layer, of the size of the data.
        return 0
    shapes = _shapes(name, t, recipe, ternary)
    matrices = MATRICES.get(name, 1)
    weights = matrices * sum(n * k for n, k in shapes)
    rows = t.num_nodes if recipe.batch is None else 0
    shares = not ternary and recipe.dropout == 0.0 and recipe.act in READ_BY_RESULT
    kept = KEPT[name] + KEPT_OF_NORM[recipe.norm] - shares
    if recipe.dropout > 0.0 and not native.enabled():
        kept += KEPT_WITHOUT_KERNELS[name]
    hidden = [n for n, _ in shapes[:-1]]
    # And of one layer its gradient, or what the activation function reads.
    outputs = rows * (kept * sum(hidden) + (1 + shares) * max(hidden, default=0))
    # Weights, two moments of Adam and the best epoch's weights; in ternary their integers.
    backward = (5 if ternary else 4) * weights + outputs
    backward += max((_gradient_room(rows, n, k) for n, k in shapes), default=0) if ternary else 0
    # The same with gradients, and what Adam computes: the root of a moment, gradients with decay.
    step = 13 * weights // 2
    return 4 * max(backward, step)


def _shapes(name: str, t: Task, recipe: Recipe, ternary: bool) -> list[tuple[int, int]]:
    """The numbers of outputs and inputs of each layer."""
    width = recipe.hidden_channels * (recipe.width if ternary else 1)  # all heads together
    heads = recipe.heads if name == "gat" else 1  # The last layer averages them.
    sizes = [t.num_features, *[width] * (recipe.num_layers - 1), t.num_classes * heads]
    return list(zip(sizes[1:], sizes, strict=False))


def _gradient_room(rows: int, n: int, k: int) -> int:
    """The numbers in which the native library adds up the gradient of a ternary weight."""
    used = native.enabled() and rows * k > MANY
    return int(native.library().gradient_room(n, k)) if used else 0


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f}"


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


def available_memory() -> int | None:
    r"""Returns the bytes of memory that this process may still take: what the machine has left, or
    its control groups if that is less; :obj:`None` where that is not known."""
    found = [_of_machine(), *_of_cgroups()]
    return min((size for size in found if size is not None), default=None)


def _of_machine() -> int | None:
    with suppress(OSError, ValueError):
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        if "MemAvailable" in fields:
            return 1024 * int(fields["MemAvailable"].split()[0])
    try:  # Other systems than Linux say what there is, not what is left.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _of_cgroups() -> Iterator[int]:
    """What each control group of this process, of version 1 or 2, leaves."""
    lines: list[str] = []
    with suppress(OSError):
        lines = OWN_CGROUPS.read_text().splitlines()
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, names = CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = CGROUPS / "memory"
        else:
            continue
        place = root / path.strip("/")
        # Within a container the path may be the host's, of which only the end or nothing is there.
        for folder in (place, *place.parents):
            with suppress(OSError, ValueError):  # No such group, or no limit ("max").
                yield _left(folder, *names)
            if folder == root:
                break


def _left(folder: Path, limit: str, usage: str, cache: str) -> int:
    """What a control group leaves, to which belongs what it has cached of files."""
    most, used = (int((folder / name).read_text()) for name in (limit, usage))
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return max(most - used + int(stat.get(cache, 0)), 0)
