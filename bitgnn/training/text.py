r"""Mini-batch training of text classifiers."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from bitgnn.data import Split
from bitgnn.data.text import TextTask
from bitgnn.kernels.sparse import from_scipy, to_scipy
from bitgnn.nn import BitWideMLP
from bitgnn.quant import Quant
from bitgnn.training.distill import Teacher, take_parameters
from bitgnn.training.latent import split_parameters
from bitgnn.training.recipe import MAX_COUNTS, MAX_NUMBER

OnStep = Callable[[int, float], None]
STARTS = ("scratch", "teacher")
MAX_TEXT_COUNTS = {
    "hidden_channels": MAX_COUNTS["hidden_channels"],
    "batch_size": MAX_COUNTS["batch_size"],
    "steps": 100_000_000,
}
EVAL_ROWS = 4096  # Documents that are classified at a time.


@dataclass(frozen=True)
class TextRecipe:
    r"""Every hyper-parameter of a text classifier's training run, the same for both sides of a
    comparison, but for what only latent weights and taught models have.

    AdamW with a learning rate that falls linearly to 0, and the weights of the last step: nothing
    is selected on the way.

    Args:
        hidden_channels (int, optional): Size of an embedding. (default: :obj:`1024`)
        embedding_dropout (float, optional): Dropout of the summed embeddings.
            (default: :obj:`0.5`)
        dropout (float, optional): Dropout behind the activation function. (default: :obj:`0.5`)
        lr (float, optional): The learning rate of the first step. (default: :obj:`0.01`)
        weight_decay (float, optional): The weight decay. (default: :obj:`0.01`)
        latent_lr (float, optional): The same of latent weights; :obj:`None` is :obj:`lr`.
            (default: :obj:`None`)
        latent_weight_decay (float, optional): The weight decay of latent weights.
            (default: :obj:`0.0`)
        batch_size (int, optional): Documents a step. (default: :obj:`128`)
        steps (int, optional): The number of steps. (default: :obj:`300`)
        teacher_weight (float, optional): The weight of the teacher's part in the loss,
            :math:`T^2 \, \mathrm{KL}(\sigma(\mathbf{z}_t / T) \,\|\, \sigma(\mathbf{z} / T))`,
            as in `"Distilling the Knowledge in a Neural Network"
            <https://arxiv.org/abs/1503.02531>`_; 0 needs no teacher. (default: :obj:`0.0`)
        temperature (float, optional): The :math:`T` of it. (default: :obj:`1.0`)
        start (str, optional): The initial parameters: :obj:`"scratch"` draws them,
            :obj:`"teacher"` takes the teacher's. (default: :obj:`"scratch"`)

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a field has a value that is not allowed.
    """

    hidden_channels: int = 1024
    embedding_dropout: float = 0.5
    dropout: float = 0.5
    lr: float = 0.01
    weight_decay: float = 0.01
    latent_lr: float | None = None
    latent_weight_decay: float = 0.0
    batch_size: int = 128
    steps: int = 300
    teacher_weight: float = 0.0
    temperature: float = 1.0
    start: Literal["scratch", "teacher"] = "scratch"

    def __post_init__(self) -> None:
        for name, most in MAX_TEXT_COUNTS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"'{name}' must be an integer (got {value!r})")
            if value < 1:
                raise ValueError(f"'{name}' must be at least 1 (got {value})")
            if value > most:
                raise ValueError(f"'{name}' must be at most {most:,} (got {value})")
        self._check("embedding_dropout", "in [0, 1)", lambda value: 0 <= value < 1)
        self._check("dropout", "in [0, 1)", lambda value: 0 <= value < 1)
        self._check("lr", "above 0", lambda value: value > 0)
        if self.latent_lr is not None:
            self._check("latent_lr", "above 0", lambda value: value > 0)
        self._check("temperature", "above 0", lambda value: value > 0)
        for name in ("weight_decay", "latent_weight_decay", "teacher_weight"):
            self._check(name, "at least 0", lambda value: value >= 0)
        if self.start not in STARTS:
            choices = " or ".join(repr(choice) for choice in STARTS)
            raise ValueError(f"'start' must be {choices} (got {self.start!r})")

    def _check(self, name: str, allowed: str, test: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"'{name}' must be a number (got {value!r})")
        if not math.isfinite(value) or not test(value):
            raise ValueError(f"'{name}' must be {allowed} (got {value})")
        if value > MAX_NUMBER:
            raise ValueError(f"'{name}' must be at most {MAX_NUMBER:g} (got {value:g})")
        # 1 and 1.0 are one recipe and must have one key in the result store.
        object.__setattr__(self, name, float(value))

    @property
    def taught(self) -> bool:
        """Whether a run needs a teacher."""
        return self.teacher_weight > 0 or self.start == "teacher"

    def replace(self, **changes: Any) -> "TextRecipe":
        """Returns a copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as plain values, fit for JSON."""
        return asdict(self)


@dataclass
class TextResult:
    r"""What a training run came to; metrics are percent.

    Args:
        test (float): The test accuracy after the last step.
        val (float): The validation accuracy after the last step; NaN without validation
            documents.
        losses (list[float]): The training loss of each step.
        logits (torch.Tensor): The logits of all documents after the last step.
        seconds (float): How long the run took.
        diverged (bool): Whether the loss or an output stopped being finite, which ends a run.
    """

    test: float
    val: float
    losses: list[float]
    logits: Tensor
    seconds: float
    diverged: bool


def build_text_model(
    in_channels: int,
    out_channels: int,
    recipe: TextRecipe,
    quant: Quant = None,
    ternary: Literal["all", "output"] = "all",
) -> BitWideMLP:
    r"""Builds a text classifier as a recipe describes it.

    Args:
        in_channels (int): Size of the vocabulary.
        out_channels (int): Number of classes.
        recipe (TextRecipe): The hyper-parameters.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is full precision.
            (default: :obj:`None`)
        ternary (str, optional): The layers that quantize, :obj:`"all"` or the :obj:`"output"`
            layer alone. (default: :obj:`"all"`)
    """
    return BitWideMLP(
        in_channels,
        recipe.hidden_channels,
        out_channels,
        embedding_dropout=recipe.embedding_dropout,
        dropout=recipe.dropout,
        quant=quant,
        ternary=ternary,
    )


def fit_text(
    model: nn.Module,
    t: TextTask,
    split: Split,
    x: Tensor,
    recipe: TextRecipe,
    seed: int = 0,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> TextResult:
    r"""Trains a text classifier on mini-batches of documents, on the CPU.

    Documents come in a new random order in every pass over them.

    Args:
        model (torch.nn.Module): The model.
        t (TextTask): The documents and their classes.
        split (Split): The documents that train, validate and test.
        x (torch.Tensor): The bags of words of all documents, a sparse matrix (CSR).
        recipe (TextRecipe): The hyper-parameters.
        seed (int, optional): Seeds the order of documents and dropout. (default: :obj:`0`)
        teacher (Teacher, optional): The finished run to learn from, just where the recipe needs
            one. (default: :obj:`None`)
        on_step (Callable, optional): Called after each step with its number and loss.
            (default: :obj:`None`)

    Raises:
        ValueError: If the recipe needs a teacher and none is given, one is given and not needed,
            or the teacher's parameters do not fit.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    _initialize(model, recipe, teacher)
    taught_by = teacher.logits if teacher is not None and recipe.teacher_weight > 0 else None
    optimizer = _build_optimizer(model, recipe)
    scheduler = optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / recipe.steps)
    rows, losses = to_scipy(x), []

    model.train()
    for step, batch in enumerate(_batches(split.train, recipe), start=1):
        out = model(from_scipy(rows[batch.numpy()]))
        loss = F.cross_entropy(out, t.y[batch])
        if taught_by is not None:
            target = taught_by[batch]
            loss = loss + recipe.teacher_weight * _divergence(out, target, recipe.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(float(loss.detach()))
        if on_step is not None:
            on_step(step, losses[-1])
        if not math.isfinite(losses[-1]):
            break

    logits = classify(model, x)
    return TextResult(
        test=t.evaluate(logits, split.test),
        val=t.evaluate(logits, split.val),
        losses=losses,
        logits=logits,
        seconds=time.perf_counter() - started,
        diverged=not (math.isfinite(losses[-1]) and bool(logits.isfinite().all())),
    )


@torch.no_grad()
def classify(model: nn.Module, x: Tensor) -> Tensor:
    r"""Returns the logits of all documents, in evaluation.

    Args:
        model (torch.nn.Module): The model.
        x (torch.Tensor): The bags of words, a sparse matrix (CSR).

    Shapes:
        - **x:** :math:`(N, F)`
        - **output:** :math:`(N, C)`
    """
    rows, training = to_scipy(x), model.training
    model.eval()
    starts = range(0, x.size(0), EVAL_ROWS)
    out = [model(from_scipy(rows[start : start + EVAL_ROWS])) for start in starts]
    model.train(training)
    return torch.cat(out)


def _batches(train: Tensor, recipe: TextRecipe) -> Iterator[Tensor]:
    documents = train.nonzero().view(-1)
    passes = (documents[torch.randperm(len(documents))] for _ in count())
    batches = (batch for order in passes for batch in order.split(recipe.batch_size))
    return islice(batches, recipe.steps)


def _initialize(model: nn.Module, recipe: TextRecipe, teacher: Teacher | None) -> None:
    if recipe.taught != (teacher is not None):
        given = "none was given" if teacher is None else "one was given"
        raise ValueError(
            f"The recipe has teacher_weight={recipe.teacher_weight} and start={recipe.start!r}, "
            f"but {given}: pass `teacher=` to `fit_text` just where the recipe needs a teacher"
        )
    if recipe.start == "teacher" and teacher is not None:
        take_parameters(model, teacher)


def _build_optimizer(model: nn.Module, recipe: TextRecipe) -> optim.Optimizer:
    latent, others = split_parameters(model)
    latent_lr = recipe.lr if recipe.latent_lr is None else recipe.latent_lr
    groups: list[dict[str, Any]] = [
        {"params": others, "lr": recipe.lr, "weight_decay": recipe.weight_decay},
        {"params": latent, "lr": latent_lr, "weight_decay": recipe.latent_weight_decay},
    ]
    # Fused: nearly all the time of a step goes into moving the embedding through memory.
    return optim.AdamW([group for group in groups if group["params"]], fused=True)


def _divergence(out: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    found = torch.log_softmax(out / temperature, dim=-1)
    target = torch.log_softmax(teacher / temperature, dim=-1)
    divergence = F.kl_div(found, target, reduction="batchmean", log_target=True)
    return temperature**2 * divergence
