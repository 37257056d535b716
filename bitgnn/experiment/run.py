import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from bitgnn.data import Task, task
from bitgnn.experiment.cost import cost
from bitgnn.experiment.passport import passport
from bitgnn.quant import QuantConfig
from bitgnn.training import Recipe, build_model, fit
from bitgnn.training.fit import OnEpoch, model_inputs

# Part of every key. Raise it when a change makes the same configuration give other numbers.
RESULT_VERSION = 1


@dataclass(frozen=True)
class RunSpec:
    r"""All that determines the numbers of one run, as plain values.

    Where a run takes place (device, machine, versions) is not part of it, but stands in the
    passport of its record.

    Args:
        dataset (str): The canonical name of the data set.
        split_kind (str): The kind of split.
        checksum (str): The checksum of the data set.
        model (str): The name of the model.
        precision (str): :obj:`"fp32"`, or the measure of the weight scale.
        quant (dict, optional): The fields of the :class:`~bitgnn.quant.QuantConfig`;
            :obj:`None` in full precision.
        recipe (dict): The fields of the :class:`~bitgnn.training.Recipe`.
        seed (int): The seed of the split, the initial weights and dropout.
    """

    dataset: str
    split_kind: str
    checksum: str
    model: str
    precision: str
    quant: dict[str, Any] | None
    recipe: dict[str, Any]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as plain values, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunSpec":
        """The inverse of :meth:`to_dict`."""
        return cls(**values)

    @property
    def key(self) -> str:
        """The SHA-256 of all fields, which the result store is keyed by."""
        values = {**self.to_dict(), "version": RESULT_VERSION}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.dataset} {self.model} {self.precision} seed {self.seed}"


def execute(
    spec: RunSpec,
    root: str | Path | None = None,
    device: str | torch.device = "cpu",
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    r"""Trains one model and returns the record of the run, fit for JSON.

    The run takes place on one thread and has its own random state, so that it gives the same
    numbers in any process, whatever ran there before.

    Args:
        spec (RunSpec): What to run.
        root (str, optional): A folder to look for data in first. (default: :obj:`None`)
        device (str or torch.device, optional): Where to train. (default: :obj:`"cpu"`)
        on_epoch (Callable, optional): Called after each epoch with its number and validation
            metric. (default: :obj:`None`)

    Raises:
        ValueError: If the data set found is not the one that :obj:`spec` names by its checksum.
    """
    device = check_device(device)
    recipe = Recipe.from_dict(spec.recipe)
    quant = None if spec.quant is None else QuantConfig.from_dict(spec.quant)
    with _isolated(device):
        t = open_task(spec.dataset, root, spec.split_kind)
        if t.checksum != spec.checksum:
            raise ValueError(
                f"'{spec.dataset}' has checksum {t.checksum[:12]}, but the run is for data with "
                f"{spec.checksum[:12]}: choose the root that has the same files"
            )
        torch.manual_seed(spec.seed)
        model = build_model(spec.model, t.num_features, t.num_classes, recipe, quant)
        result = fit(model, t, t.split(spec.seed), recipe, spec.seed, device, on_epoch)
        return {
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
            "cost": cost(model, *model_inputs(model, t, recipe, device)).to_dict(),
            "passport": passport(device),
        }


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
