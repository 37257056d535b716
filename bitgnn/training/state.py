r"""All that a training run is at the end of an epoch, as tensors and plain values."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bitgnn.training.distributed import Group
from bitgnn.training.power import PowerPropagation


@dataclass
class FitResult:
    r"""What a training run came to; metrics are percent.

    Args:
        test (float): The test metric at :obj:`best_epoch`.
        val (float): The validation metric at :obj:`best_epoch`.
        best_epoch (int): The epoch that was chosen, from 1; 0 (and no metrics)
            if the run diverged before there was one to choose.
        epochs_run (int): How many epochs were completed.
        curves (dict): Training :obj:`"loss"`, :obj:`"val"` and :obj:`"test"`
            metric, one number a completed epoch.
        seconds (float): How long the run took.
        diverged (bool): Whether the loss or an output stopped being finite,
            which ends a run.
    """

    test: float = math.nan
    val: float = math.nan
    best_epoch: int = 0
    epochs_run: int = 0
    curves: dict[str, list[float]] = field(
        default_factory=lambda: {"loss": [], "val": [], "test": []}
    )
    seconds: float = 0.0
    diverged: bool = False


@dataclass
class Best:
    """The epoch that would be chosen if training ended now."""

    epoch: int = 0
    val: float = 0.0
    val_loss: float = 0.0
    state: dict[str, Tensor] | None = None


@dataclass
class TrainingState:
    r"""A training run at the end of an epoch.

    Args:
        model (torch.nn.Module): The model.
        optimizer (torch.optim.Optimizer): The optimizer.
        scheduler (LRScheduler): What changes its learning rates.
        powers (PowerPropagation): What latent weights are powers of.
        group (Group): The processes that share the run.
        device (torch.device): Where it takes place.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    powers: PowerPropagation
    group: Group
    device: torch.device
    result: FitResult = field(default_factory=FitResult)
    best: Best = field(default_factory=Best)
    ended: bool = False

    def note(self, loss: float, val: float, test: float) -> None:
        """Notes what a further epoch came to."""
        self.result.epochs_run += 1
        for name, value in (("loss", loss), ("val", val), ("test", test)):
            self.result.curves[name].append(value)

    def choose(self, select: str, val: float, val_loss: float) -> None:
        """Takes the last epoch for the best one if it is."""
        epoch = self.result.epochs_run
        if select == "last":
            self.best = Best(epoch)
        elif self.best.epoch == 0 or (val, -val_loss) > (self.best.val, -self.best.val_loss):
            copy = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            self.best = Best(epoch, val, val_loss, copy)

    def finish(self) -> None:
        """Leaves the model with the weights of the best epoch, and notes its metrics."""
        if self.best.state is not None:
            self.model.load_state_dict(self.best.state)
        if self.best.epoch > 0:
            self.result.best_epoch = self.best.epoch
            self.result.val = self.result.curves["val"][self.best.epoch - 1]
            self.result.test = self.result.curves["test"][self.best.epoch - 1]

    def tensors(self) -> dict[str, Tensor]:
        """Returns its tensors by name; all processes of the group take part."""
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, value in (self.best.state or {}).items():
            found[f"best.{name}"] = value
        for number, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        found |= {f"power.{name}": value for name, value in self.powers.state().items()}
        for source, number in self._random().items():
            for rank, value in enumerate(self.group.gather(number)):
                found[f"random.{source}.{rank}"] = value
        return found

    def values(self) -> dict[str, Any]:
        """Returns the rest of it, fit for JSON."""
        best = {name: value for name, value in vars(self.best).items() if name != "state"}
        result = asdict(self.result)
        return {
            "epoch": self.result.epochs_run,
            "ended": self.ended,
            "best": best,
            "curves": result["curves"],
            "seconds": result["seconds"],
            "diverged": result["diverged"],
            "lrs": [group["lr"] for group in self.optimizer.param_groups],
            "processes": self.group.size,
        }

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Takes what :meth:`tensors` and :meth:`values` gave.

        Raises:
            ValueError: If these are not the values of a training run. What is missing or does not
                fit may also raise :class:`LookupError`, :class:`TypeError` or
                :class:`RuntimeError`.
        """
        _check_values(values)
        self.model.load_state_dict(dict(_below("model.", tensors)))
        kept = {name: value.clone() for name, value in _below("best.", tensors)}
        self.best = Best(**values["best"], state=kept or None)
        self._restore_optimizer(tensors, values)
        self.powers.restore(dict(_below("power.", tensors)))
        self.result = FitResult(
            epochs_run=values["epoch"],
            curves={name: list(curve) for name, curve in values["curves"].items()},
            seconds=values["seconds"],
            diverged=values["diverged"],
        )
        self.ended = values["ended"]
        torch.set_rng_state(tensors[f"random.cpu.{self.group.rank}"])
        on_gpu = tensors.get(f"random.cuda.{self.group.rank}")
        if on_gpu is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(on_gpu, self.device)

    def _restore_optimizer(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer.", tensors):
            number, _, field_name = name.partition(".")
            state.setdefault(int(number), {})[field_name] = value.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        for index, parameter in enumerate(parameters):
            # A parameter may have none yet; PyTorch checks neither names nor shapes.
            _check_moments(state.get(index, {}), parameter)
        for group, lr in zip(groups, values["lrs"], strict=True):
            group["lr"] = lr
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.scheduler.last_epoch = values["epoch"]

    def _random(self) -> dict[str, Tensor]:
        found = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            found["cuda"] = torch.cuda.get_rng_state(self.device)
        return found


def _check_values(values: Mapping[str, Any]) -> None:
    """Checks what would not be noticed before the end of training."""
    epoch, best, curves = values["epoch"], values["best"]["epoch"], values["curves"]
    if type(epoch) is not int or type(best) is not int or not 0 <= best <= epoch:
        raise ValueError(f"epoch {epoch!r} with best epoch {best!r}")
    for name in FitResult().curves:
        curve = curves[name]
        if len(curve) != epoch or not all(isinstance(value, float) for value in curve):
            raise ValueError(f"curve '{name}' is not one number for each of {epoch} epochs")
    for name in ("ended", "diverged"):
        if not isinstance(values[name], bool):
            raise ValueError(f"'{name}' is {values[name]!r}")
    if not isinstance(values["seconds"], float):
        raise ValueError(f"'seconds' is {values['seconds']!r}")


def _check_moments(state: Mapping[str, Tensor], parameter: Tensor) -> None:
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    moment = tuple(parameter.shape)
    expected = {"step": (), "exp_avg": moment, "exp_avg_sq": moment}
    if shapes and shapes != expected:
        raise ValueError(f"the optimizer needs {expected} and not {shapes}")


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), value
