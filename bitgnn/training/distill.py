from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitgnn.training.decay import decayed
from bitgnn.training.latent import latent_weights
from bitgnn.training.recipe import Recipe

EPS = 1e-6  # The smallest deviation of a teacher's logits: equal ones stay equal.


@dataclass(frozen=True)
class Teacher:
    r"""What a finished run leaves to those that learn from it.

    Args:
        logits (torch.Tensor): The logits of all nodes, in evaluation.
        state (dict): The parameters and buffers of the model.

    Shapes:
        - **logits:** :math:`(|\mathcal{V}|, C)`
    """

    logits: Tensor
    state: Mapping[str, Tensor]


class Objective:
    r"""The training loss of a recipe, a function of the logits of all nodes: cross-entropy of the
    training nodes and, with a teacher, its part in the loss (see :class:`Recipe`).

    Args:
        recipe (Recipe): The hyper-parameters.
        y (torch.Tensor): The class of each node.
        train (torch.Tensor): The mask of the nodes that train.
        teacher (Teacher, optional): The teacher. (default: :obj:`None`)

    Shapes:
        - **y:** :math:`(|\mathcal{V}|)`
        - **train:** :math:`(|\mathcal{V}|)`
    """

    def __init__(
        self, recipe: Recipe, y: Tensor, train: Tensor, teacher: Teacher | None = None
    ) -> None:
        self.y, self.train = y, train
        self.weight = 0.0 if teacher is None else recipe.teacher_weight
        self.decay = recipe.teacher_decay
        self.temperature = recipe.temperature
        self.standardize = recipe.standardize
        if teacher is not None:
            self.target = self._soften(teacher.logits.to(y.device), least=EPS)

    def __call__(self, out: Tensor, progress: float = 0.0) -> Tensor:
        """Returns the loss of logits when a share of the epochs is done."""
        loss = F.cross_entropy(out[self.train], self.y[self.train])
        if self.weight == 0.0:
            return loss
        # Were small logits of a student blown up, their gradients were too, and Adam, which
        # remembers how large gradients have been, would hardly move any more.
        found = self._soften(out, least=1.0)
        divergence = F.kl_div(found, self.target, reduction="batchmean", log_target=True)
        weight = self.weight * decayed(self.decay, progress)
        return loss + weight * self.temperature**2 * divergence

    def _soften(self, logits: Tensor, least: float) -> Tensor:
        if self.standardize is not None:
            logits = _standardized(logits, self.standardize == "node", least)
        return torch.log_softmax(logits / self.temperature, dim=-1)


def _standardized(logits: Tensor, each_node: bool, least: float) -> Tensor:
    centered = logits - logits.mean(dim=-1, keepdim=True)
    square = centered.square()
    var = square.mean(dim=-1, keepdim=True) if each_node else square.mean()
    return centered / var.clamp(min=least**2).sqrt()


@torch.no_grad()
def initialize(model: nn.Module, recipe: Recipe, teacher: Teacher | None = None) -> None:
    r"""Gives a model the initial parameters that a recipe asks for, beyond drawing them.

    Args:
        model (torch.nn.Module): The model, with its parameters drawn.
        recipe (Recipe): The hyper-parameters.
        teacher (Teacher, optional): The teacher. (default: :obj:`None`)

    Raises:
        ValueError: If the recipe has a teacher and none is given, one is given and it has none,
            or the teacher's parameters do not fit.
    """
    if (recipe.teacher is None) != (teacher is None):
        given = "none was given" if teacher is None else "one was given"
        raise ValueError(
            f"The recipe has teacher={recipe.teacher!r}, but {given}: pass `teacher=` to `fit` "
            f"just where the recipe has a teacher"
        )
    if recipe.start == "teacher" and teacher is not None:
        take_parameters(model, teacher)
    if recipe.latent_gain != 1.0:
        for weight in latent_weights(model):
            weight.mul_(recipe.latent_gain)


def take_parameters(model: nn.Module, teacher: Teacher) -> None:
    r"""Gives a model the parameters of its teacher.

    Args:
        model (torch.nn.Module): The model.
        teacher (Teacher): The teacher.

    Raises:
        ValueError: If they do not fit.
    """
    try:
        model.load_state_dict(dict(teacher.state))
    except RuntimeError as error:
        raise ValueError(
            f"start='teacher' needs a teacher with the same parameters as the model: {error}"
        ) from None
