import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitgnn.data import Task, task
from bitgnn.experiment.cost import cost
from bitgnn.experiment.passport import passport
from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.teachers import TeacherRun, load_teacher, save_teacher
from bitgnn.quant import QuantConfig
from bitgnn.training import FitResult, Recipe, Teacher, build_model, fit
from bitgnn.training.fit import OnEpoch
from bitgnn.training.inputs import model_inputs


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

    Raises:
        ValueError: If the data set found is not the one that :obj:`spec` names by its checksum.
    """
    device = check_device(device)
    with _isolated(device):
        t = _open(spec, root)
        taught_by = spec.teacher_spec()
        source = None if taught_by is None else _teacher_run(taught_by, t, device)
        teacher = None if source is None else source.teacher
        if source is not None and teacher is None:
            # Who has nobody to learn from is lost with the teacher.
            model, result = _build(spec, t), FitResult(diverged=True)
        else:
            model, result = _train(spec, t, device, on_epoch, teacher)
        recipe = Recipe.from_dict(spec.recipe)
        inputs = model_inputs(model.to(device), t, recipe, device)
        if keep:
            save_teacher(spec.key, _as_teacher(model, result, inputs))
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
            "cost": cost(model, *inputs).to_dict(),
            "passport": passport(device),
        }


def _teacher_run(spec: RunSpec, t: Task, device: torch.device) -> TeacherRun:
    found = load_teacher(spec.key)
    if found is None:
        model, result = _train(spec, t, device)
        recipe = Recipe.from_dict(spec.recipe)
        found = _as_teacher(model, result, model_inputs(model, t, recipe, device))
        save_teacher(spec.key, found)
    return found


def _train(
    spec: RunSpec,
    t: Task,
    device: torch.device,
    on_epoch: OnEpoch | None = None,
    teacher: Teacher | None = None,
) -> tuple[nn.Module, FitResult]:
    model, recipe = _build(spec, t), Recipe.from_dict(spec.recipe)
    split = t.split(spec.seed)
    return model, fit(model, t, split, recipe, spec.seed, device, on_epoch, teacher)


def _build(spec: RunSpec, t: Task) -> nn.Module:
    torch.manual_seed(spec.seed)
    recipe = Recipe.from_dict(spec.recipe)
    quant = None if spec.quant is None else QuantConfig.from_dict(spec.quant)
    return build_model(spec.model, t.num_features, t.num_classes, recipe, quant)


@torch.no_grad()
def _as_teacher(
    model: nn.Module, result: FitResult, inputs: tuple[torch.Tensor, ...]
) -> TeacherRun:
    """What a run leaves to its students: the model of the chosen epoch."""
    seconds = round(result.seconds, 3)
    if result.diverged:
        return TeacherRun(None, _finite(result.val), seconds)
    teacher = Teacher(model.eval()(*inputs), dict(model.state_dict()))
    return TeacherRun(teacher, _finite(result.val), seconds)


def _open(spec: RunSpec, root: str | Path | None) -> Task:
    t = open_task(spec.dataset, root, spec.split_kind)
    if t.checksum != spec.checksum:
        raise ValueError(
            f"'{spec.dataset}' has checksum {t.checksum[:12]}, but the run is for data with "
            f"{spec.checksum[:12]}: choose the root that has the same files"
        )
    return t


@lru_cache(maxsize=8)
def open_task(name: str, root: str | Path | None = None, split: str | None = None) -> Task:
    """Opens a data set; a process opens each only once.

    Args:
        name (str): The name of the data set.
        root (str, optional): A folder to look in first. (default: :obj:`None`)
        split (str, optional): The kind of split. (default: :obj:`None`)
    """
    return task(name, root, split)


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
    return found


@contextmanager
def _isolated(device: torch.device) -> Iterator[None]:
    """One thread, deterministic algorithms and a random state that is given back."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            torch.set_num_threads(1)
            if device.type == "cuda":
                # On one CPU thread all algorithms are, and the switch would only cost time.
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
