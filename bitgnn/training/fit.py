import math
import time
from collections.abc import Callable

import torch
from torch import nn

from bitgnn.data import Split, Task
from bitgnn.nn import set_strength
from bitgnn.training.batches import Batch, build_batches
from bitgnn.training.checkpoint import Checkpoint
from bitgnn.training.distill import Objective, Teacher, initialize
from bitgnn.training.distributed import ALONE, Group
from bitgnn.training.inputs import drop_features
from bitgnn.training.latent import latent_weights, quantized_layers
from bitgnn.training.optimizer import build_optimizer, build_scheduler
from bitgnn.training.order import FACTOR
from bitgnn.training.power import PowerPropagation
from bitgnn.training.recipe import Recipe
from bitgnn.training.state import FitResult, TrainingState

OnEpoch = Callable[[int, float], None]


def fit(
    model: nn.Module,
    t: Task,
    split: Split,
    recipe: Recipe,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_epoch: OnEpoch | None = None,
    teacher: Teacher | None = None,
    checkpoint: Checkpoint | None = None,
    group: Group = ALONE,
) -> FitResult:
    r"""Trains a model for node classification with cross-entropy and, if the recipe has a teacher,
    by distillation, on the whole graph or in mini-batches (:mod:`bitgnn.training.batches`).

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
        checkpoint (Checkpoint, optional): Where the run leaves what it needs
            to go on after it was stopped. (default: :obj:`None`)
        group (Group, optional): The processes that share the run, each of
            which calls this function; the first one evaluates.
            (default: this one alone)

    Raises:
        ValueError: If there is a teacher and the recipe has none, or the other
            way round; if mini-batches need a package that is not there; or if
            the checkpoint is not this run's.
    """
    started = time.perf_counter()
    # Processes of a group drop other features and sample other neighbors.
    torch.manual_seed(seed + FACTOR * group.rank)
    model.to(device)
    batches = build_batches(model, t, split, recipe, seed, device, group)
    y, train, val = (each.to(device) for each in (t.data.y, split.train, split.val))
    initialize(model, recipe, teacher)
    objective = Objective(recipe, y, train, teacher, group)
    optimizer = build_optimizer(model, recipe)
    scheduler = build_scheduler(optimizer, recipe)
    powers = PowerPropagation(latent_weights(model), recipe.latent_power)
    quantized = bool(quantized_layers(model))
    state = TrainingState(model, optimizer, scheduler, powers, group, torch.device(device))
    if checkpoint is not None:
        checkpoint.begin(state)
    wrapped = group.wrap(model)

    def train_epoch(epoch: int) -> float:
        model.train()
        losses = [step(batch, (epoch - 1) / recipe.epochs) for batch in batches.epoch(epoch)]
        scheduler.step()
        return group.mean(math.fsum(losses) / len(losses))

    def step(batch: Batch, progress: float) -> float:
        optimizer.zero_grad()
        dropped = drop_features(batch.x, recipe.input_dropout)
        out = batch.outputs(wrapped(dropped, *batch.graph))
        loss = objective(out, progress, batch.nodes)
        loss.backward()
        powers.step(optimizer)
        return float(loss.detach())

    @torch.no_grad()
    def evaluate() -> tuple[float, float, float, bool]:
        """Validation loss, both metrics, and whether all is finite: by the first process."""
        found = (math.nan, math.nan, math.nan, False)
        if group.rank == 0:
            out = batches.logits()
            val_loss, out = float(objective.supervised(out, val)), out.cpu()
            if math.isfinite(val_loss) and out.isfinite().all():
                found = val_loss, t.evaluate(out, split.val), t.evaluate(out, split.test), True
        val_loss, score, test, finite = group.told(found)
        return val_loss, score, test, bool(finite)

    while not state.ended:
        epoch = state.result.epochs_run + 1
        previous = recipe.schedule((epoch - 1) / recipe.epochs) if epoch > 1 else 0.0
        strength = recipe.schedule(epoch / recipe.epochs)
        set_strength(model, strength)
        if recipe.reset_optimizer and quantized and previous == 0.0 < strength:
            optimizer.state.clear()
        loss = train_epoch(epoch)
        val_loss, score, test, finite = evaluate()
        counts = strength == 1.0 or not quantized
        if math.isfinite(loss) and finite:
            state.note(loss, score, test)
            if on_epoch is not None:
                on_epoch(epoch, score)
            if counts:
                state.choose(recipe.select, score, val_loss)
            waited = epoch - state.best.epoch
            patient = recipe.patience is None or not counts or waited < recipe.patience
            state.ended = epoch == recipe.epochs or not patient
        else:
            state.result.diverged = state.ended = True
        if checkpoint is not None:
            state.result.seconds += time.perf_counter() - started
            started = time.perf_counter()
            checkpoint.end_of_epoch(state)

    set_strength(model, 1.0)
    state.finish()
    state.result.seconds += time.perf_counter() - started
    return state.result
