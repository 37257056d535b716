import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitgnn.data import Task, task
from bitgnn.data.registry import lookup
from bitgnn.experiment.cost import Cost, cost, share_of_zeros, weight_bytes
from bitgnn.experiment.passport import passport
from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.teachers import TeacherRun, load_teacher, save_teacher, share_teacher
from bitgnn.kernels import vouch
from bitgnn.quant import QuantConfig
from bitgnn.training import FitResult, Recipe, Teacher, build_model, fit
from bitgnn.training.batches import build_batches
from bitgnn.training.checkpoint import Checkpoints
from bitgnn.training.distributed import ALONE, Group
from bitgnn.training.fit import OnEpoch
from bitgnn.training.inputs import model_inputs
from bitgnn.training.memory import check_memory, explained


def execute(
    spec: RunSpec,
    root: str | Path | None = None,
    device: str | torch.device = "cpu",
    on_epoch: OnEpoch | None = None,
    keep: bool = False,
) -> dict[str, Any]:
    """Trains one model and returns the record of the run, fit for JSON: the second of what
    :func:`train_run` returns, whose arguments and errors it has."""
    return train_run(spec, root, device, on_epoch, keep)[1]


def train_run(
    spec: RunSpec,
    root: str | Path | None = None,
    device: str | torch.device = "cpu",
    on_epoch: OnEpoch | None = None,
    keep: bool = False,
    checkpoints: Checkpoints | None = None,
    group: Group = ALONE,
    threads: int = 1,
) -> tuple[nn.Module, dict[str, Any]]:
    r"""Trains one model and returns it with the record of the run.

    The run takes place on one thread and has its own random state, so that it gives the same
    numbers in any process, whatever ran there before. If it has a teacher whose run is not at
    hand, that is trained first.

    Args:
        spec (RunSpec): What to run.
        root (str, optional): A folder to look for data in first. (default: :obj:`None`)
        device (str or torch.device, optional): Where to train. (default: :obj:`"cpu"`)
        on_epoch (Callable, optional): Called after each epoch with its number and validation
            metric. (default: :obj:`None`)
        keep (bool, optional): If set to :obj:`True`, the run is kept for others to learn from.
            (default: :obj:`False`)
        checkpoints (Checkpoints, optional): Where the run, and the teacher's, leave what they need
            to go on after they were stopped. (default: :obj:`None`)
        group (Group, optional): The processes that share the run, each of which calls this
            function. (default: this one alone)
        threads (int, optional): The threads of each process. With another number of them, sums
            are rounded otherwise. (default: :obj:`1`)

    Raises:
        ValueError: If the data set found is not the one that :obj:`spec` names by its checksum, a
            checkpoint is not this run's, or the run does not fit into memory.
    """
    device = check_device(device)
    with _isolated(device, threads), explained():
        t = _open(spec, root)
        place = _Place(device, checkpoints, group)
        taught_by = spec.teacher_spec()
        source = None if taught_by is None else _teacher_run(taught_by, t, place)
        teacher = None if source is None else source.teacher
        if source is not None and teacher is None:
            # Who has nobody to learn from is lost with the teacher.
            model, result = _build(spec, t).to(device), FitResult(diverged=True)
        else:
            model, result = _train(spec, t, place, on_epoch, teacher)
        if keep and group.rank == 0:
            save_teacher(spec.key, _as_teacher(spec, t, model, result, device))
        return model, {
            "key": spec.key,
            "spec": spec.to_dict(),
            "metric": t.metric,
            "test": _finite(result.test),
            "val": _finite(result.val),
            "best_epoch": result.best_epoch,
            "epochs": result.epochs_run,
            "curves": result.curves,
            "seconds": round(result.seconds, 3),
            "diverged": result.diverged,
            "teacher_val": None if source is None else source.val,
            "teacher_seconds": None if source is None else source.seconds,
            "cost": _cost(spec, t, model, device).to_dict(),
            "passport": {**passport(device), "processes": group.size},
        }


@dataclass(frozen=True)
class _Place:
    """Where runs take place, and leave their checkpoints."""

    device: torch.device
    checkpoints: Checkpoints | None
    group: Group


def _teacher_run(spec: RunSpec, t: Task, place: _Place) -> TeacherRun:
    found, group = load_teacher(spec.key), place.group
    (at_hand,) = group.told([found is not None])
    if not at_hand:
        model, result = _train(spec, t, place)
        if group.rank == 0:
            found = _as_teacher(spec, t, model, result, place.device)
            save_teacher(spec.key, found)
    if group.size > 1:
        share_teacher(spec.key, group)
        found = load_teacher(spec.key)
    assert found is not None
    return found


def _train(
    spec: RunSpec,
    t: Task,
    place: _Place,
    on_epoch: OnEpoch | None = None,
    teacher: Teacher | None = None,
) -> tuple[nn.Module, FitResult]:
    recipe = Recipe.from_dict(spec.recipe)
    if place.device.type == "cpu":
        check_memory(spec.model, t, recipe, spec.quant is not None)
    model = _build(spec, t)
    split = t.split(spec.seed)
    checkpoint = None if place.checkpoints is None else place.checkpoints.of(spec.key)
    return model, fit(
        model,
        t,
        split,
        recipe,
        spec.seed,
        place.device,
        on_epoch,
        teacher,
        checkpoint,
        place.group,
    )


def _cost(spec: RunSpec, t: Task, model: nn.Module, device: torch.device) -> Cost:
    recipe = Recipe.from_dict(spec.recipe)
    if recipe.batch is not None:  # The whole graph may be more than a model can be called with.
        return Cost(*weight_bytes(model), share_of_zeros(model), None, None)
    return cost(model, *model_inputs(model, t, recipe, device))


def _build(spec: RunSpec, t: Task) -> nn.Module:
    torch.manual_seed(spec.seed)
    recipe = Recipe.from_dict(spec.recipe)
    quant = None if spec.quant is None else QuantConfig.from_dict(spec.quant)
    return build_model(spec.model, t.num_features, t.num_classes, recipe, quant)


def _as_teacher(
    spec: RunSpec, t: Task, model: nn.Module, result: FitResult, device: torch.device
) -> TeacherRun:
    """What a run leaves to its students: the model of the chosen epoch."""
    seconds = round(result.seconds, 3)
    if result.diverged:
        return TeacherRun(None, _finite(result.val), seconds)
    recipe = Recipe.from_dict(spec.recipe)
    batches = build_batches(model, t, t.split(spec.seed), recipe, device=device)
    return TeacherRun(
        Teacher(batches.logits(), dict(model.state_dict())), _finite(result.val), seconds
    )


def _open(spec: RunSpec, root: str | Path | None) -> Task:
    t = open_task(spec.dataset, root, spec.split_kind)
    if t.checksum != spec.checksum:
        raise ValueError(
            f"'{spec.dataset}' has checksum {t.checksum[:12]}, but the run is for data with "
            f"{spec.checksum[:12]}: choose the root that has the same files"
        )
    return t


def open_task(name: str, root: str | Path | None = None, split: str | None = None) -> Task:
    """Opens a data set; a process opens each only once.

    Args:
        name (str): The name of the data set.
        root (str, optional): A folder to look in first. (default: :obj:`None`)
        split (str, optional): The kind of split. (default: the data set's own)
    """
    entry = lookup(name)
    return _opened(entry.name, root, split or entry.splits[0])


@lru_cache(maxsize=8)
def _opened(name: str, root: str | Path | None, split: str) -> Task:
    t = task(name, root, split)
    vouch(t.data.x)  # A process trains many models on it, and none writes to it.
    return t


def check_device(device: str | torch.device) -> torch.device:
    """Returns a device; raises if it does not exist here."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"No device is called {device!r}; use 'cpu', 'cuda' or 'cuda:0'") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"There is no device '{found}' here (CUDA devices: {torch.cuda.device_count()}); "
            f"use device 'cpu'"
        )
    if found.type in ("cpu", "cuda"):
        return found  # Not tried: it would take a GPU's memory for nothing.
    try:
        torch.zeros(1, device=found).item()
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise ValueError(
            f"Device '{found}' cannot be used here ({str(error).splitlines()[0]}); use device 'cpu'"
        ) from None
    return found


@contextmanager
def _isolated(device: torch.device, threads: int = 1) -> Iterator[None]:
    """A number of threads, deterministic algorithms and a random state that is given back."""
    threads_before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            torch.set_num_threads(threads)
            if device.type == "cuda":
                # On one CPU thread all algorithms are, and the switch would only cost time.
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.set_num_threads(threads_before)
            torch.use_deterministic_algorithms(deterministic)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
