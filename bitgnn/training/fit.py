import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitgnn.data import Split, Task
from bitgnn.nn import set_strength
from bitgnn.training.distill import Objective, Teacher, initialize
from bitgnn.training.inputs import drop_features, model_inputs
from bitgnn.training.latent import latent_weights, quantized_layers
from bitgnn.training.optimizer import build_optimizer, build_scheduler
from bitgnn.training.power import PowerPropagation
from bitgnn.training.recipe import Recipe

OnEpoch = Callable[[int, float], None]


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


def fit(
    model: nn.Module,
    t: Task,
    split: Split,
    recipe: Recipe,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_epoch: OnEpoch | None = None,
    teacher: Teacher | None = None,
) -> FitResult:
    r"""Trains a model for full-batch node classification with cross-entropy and, if the recipe
    has a teacher, by distillation.

    With :obj:`select="best_val"` the epoch with the best validation metric is
    reported (of equal ones the one with the lowest validation loss, of equal
    ones again the first) and the model is left with its weights. Test nodes
    have no part in it. While a schedule holds the strength below 1 the model
    is not yet the one that is asked for: such epochs are never chosen, and
    patience does not count them. A full-precision model has no strength; all
    its epochs count.

    Args:
        model (torch.nn.Module): The model, taken to :obj:`device`.
        t (Task): The data set.
        split (Split): The nodes that train, validate and test.
        recipe (Recipe): The hyper-parameters.
        seed (int, optional): Seeds dropout and stochastic rounding.
            (default: :obj:`0`)
        device (str or torch.device, optional): Where to train.
            (default: :obj:`"cpu"`)
        on_epoch (Callable, optional): Called after each epoch with its number
            and validation metric. (default: :obj:`None`)
        teacher (Teacher, optional): The finished run to learn from, just where
            the recipe has a :obj:`teacher`. (default: :obj:`None`)

    Raises:
        ValueError: If there is a teacher and the recipe has none, or the other
            way round.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    model.to(device)
    x, *graph = model_inputs(model, t, recipe, device)
    y, train, val = (each.to(device) for each in (t.data.y, split.train, split.val))
    initialize(model, recipe, teacher)
    objective = Objective(recipe, y, train, teacher)
    optimizer = build_optimizer(model, recipe)
    scheduler = build_scheduler(optimizer, recipe)
    powers = PowerPropagation(latent_weights(model), recipe.latent_power)
    quantized = bool(quantized_layers(model))
    result, best = FitResult(), _Best()

    def step(progress: float) -> float:
        model.train()
        optimizer.zero_grad()
        dropped = drop_features(x, recipe.input_dropout)
        loss = objective(model(dropped, *graph), progress)
        loss.backward()
        powers.step(optimizer)
        scheduler.step()
        return float(loss.detach())

    @torch.no_grad()
    def evaluate() -> tuple[float, Tensor]:
        model.eval()
        out = model(x, *graph)
        return float(F.cross_entropy(out[val], y[val])), out.cpu()

    strength = 0.0
    for epoch in range(1, recipe.epochs + 1):
        previous, strength = strength, recipe.schedule(epoch / recipe.epochs)
        set_strength(model, strength)
        if recipe.reset_optimizer and quantized and previous == 0.0 < strength:
            optimizer.state.clear()
        loss = step((epoch - 1) / recipe.epochs)
        val_loss, out = evaluate()
        if not (math.isfinite(loss) and math.isfinite(val_loss) and out.isfinite().all()):
            result.diverged = True
            break
        score, test = t.evaluate(out, split.val), t.evaluate(out, split.test)
        result.epochs_run = epoch
        for name, value in (("loss", loss), ("val", score), ("test", test)):
            result.curves[name].append(value)
        if on_epoch is not None:
            on_epoch(epoch, score)
        if strength == 1.0 or not quantized:
            if recipe.select == "last":
                best = _Best(epoch)
            elif best.epoch == 0 or (score, -val_loss) > (best.val, -best.val_loss):
                best = _Best(epoch, score, val_loss, _copy_state(model))
            elif recipe.patience is not None and epoch - best.epoch >= recipe.patience:
                break

    set_strength(model, 1.0)
    if best.state is not None:
        model.load_state_dict(best.state)
    if best.epoch > 0:
        result.best_epoch = best.epoch
        result.val = result.curves["val"][best.epoch - 1]
        result.test = result.curves["test"][best.epoch - 1]
    result.seconds = time.perf_counter() - started
    return result


@dataclass
class _Best:
    epoch: int = 0
    val: float = 0.0
    val_loss: float = 0.0
    state: dict[str, Tensor] | None = None


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
