from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitgnn.training.decay import decayed
from bitgnn.training.distributed import ALONE, Group
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
    r"""The training loss of a recipe, a function of logits: cross-entropy of the training nodes
    and, with a teacher, its part in the loss (see :class:`Recipe`). Nodes with several labels have
    the binary cross-entropy of each, and the divergence of each from the teacher's; their logits
    are not standardized, as each label has a scale of its own.

    Args:
        recipe (Recipe): The hyper-parameters.
        y (torch.Tensor): The class of each node, or its labels (0, 1, or -1 where unknown).
        train (torch.Tensor): The mask of the nodes that train.
        teacher (Teacher, optional): The teacher. (default: :obj:`None`)
        group (Group, optional): The processes that share a step, whose mean loss is that of all
            their nodes together. (default: this one alone)

    Shapes:
        - **y:** :math:`(|\mathcal{V}|)` or :math:`(|\mathcal{V}|, C)`
        - **train:** :math:`(|\mathcal{V}|)`
    """

    def __init__(
        self,
        recipe: Recipe,
        y: Tensor,
        train: Tensor,
        teacher: Teacher | None = None,
        group: Group = ALONE,
    ) -> None:
        self.y, self.train, self.group = y, train, group
        self.weight = 0.0 if teacher is None else recipe.teacher_weight
        self.decay = recipe.teacher_decay
        self.temperature = recipe.temperature
        self.standardize = recipe.standardize if y.dim() == 1 else None
        if teacher is not None:
            self.target = self._soften(teacher.logits.to(y.device), least=EPS)

    def __call__(self, out: Tensor, progress: float = 0.0, nodes: Tensor | None = None) -> Tensor:
        """Returns the loss of logits when a share of the epochs is done.

        Args:
            out (torch.Tensor): The logits.
            progress (float, optional): The share. (default: :obj:`0.0`)
            nodes (torch.Tensor, optional): The nodes whose logits these are; :obj:`None` for all.
                (default: :obj:`None`)
        """
        loss = self._mean(*self._labelled(out, self.train, nodes))
        if self.weight == 0.0:
            return loss
        # Were small logits of a student blown up, their gradients were too, and Adam, which
        # remembers how large gradients have been, would hardly move any more.
        found = self._soften(out, least=1.0)
        target = self.target if nodes is None else self.target[nodes]
        divergence = self._mean(_divergence(found, target, self.y.dim() == 1), out.size(0))
        weight = self.weight * decayed(self.decay, progress)
        return loss + weight * self.temperature**2 * divergence

    def supervised(self, out: Tensor, mask: Tensor) -> Tensor:
        """Returns the loss of the logits of all nodes without the teacher's part, over a mask."""
        total, count = self._labelled(out, mask)
        return total / count

    def _labelled(
        self, out: Tensor, mask: Tensor, nodes: Tensor | None = None
    ) -> tuple[Tensor, float]:
        """The summed loss of the nodes of a mask, and their number; a label is a share of one."""
        y = self.y
        if nodes is not None:
            mask, y = mask[nodes], y[nodes]
        out, y = out[mask], y[mask]
        if y.dim() == 1:
            return F.cross_entropy(out, y, reduction="sum"), y.size(0)
        known, labels = y >= 0, max(y.size(1), 1)
        total = F.binary_cross_entropy_with_logits(
            out[known], y[known].to(out.dtype), reduction="sum"
        )
        return total / labels, int(known.sum()) / labels

    def _mean(self, total: Tensor, count: float) -> Tensor:
        # A batch may have no training node at all: its loss is 0, and so are its gradients.
        return total / (self.group.mean(count) or 1.0)

    def _soften(self, logits: Tensor, least: float) -> Tensor:
        if self.y.dim() == 2:
            return logits / self.temperature
        if self.standardize is not None:
            logits = _standardized(logits, self.standardize == "node", least)
        return torch.log_softmax(logits / self.temperature, dim=-1)


def _divergence(found: Tensor, target: Tensor, one_class: bool) -> Tensor:
    """The divergence from the target, summed over nodes, a mean over labels."""
    if one_class:
        return F.kl_div(found, target, reduction="sum", log_target=True)
    p = target.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(target, p, reduction="sum")
    cross = F.binary_cross_entropy_with_logits(found, p, reduction="sum")
    return (cross - entropy) / max(found.size(1), 1)


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
