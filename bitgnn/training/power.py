from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer


class PowerPropagation:
    r"""Trains weights as powers of others, after `"Powerpropagation: A sparsity inducing weight
    reparameterisation" <https://arxiv.org/abs/2110.00296>`_:

    .. math::
        \mathbf{W} = c \, \mathbf{V} \odot |\mathbf{V}|^{\alpha - 1}

    The optimizer moves :math:`\mathbf{V}`, with the gradient of :math:`\mathbf{W}` times
    :math:`c \, \alpha |\mathbf{V}|^{\alpha - 1}`. Small weights move little, large ones much, so
    that most end up near zero and, quantized, at zero. :math:`\mathbf{V}` begins as what
    :math:`\mathbf{W}` was, and the constant :math:`c` keeps the root mean square of
    :math:`\mathbf{W}`.

    Args:
        weights (list[torch.nn.Parameter]): The weights, at their initial values; they take those of
            their powers.
        power (float): The power :math:`\alpha`; with 1 weights are trained as ever.
    """

    @torch.no_grad()
    def __init__(self, weights: Sequence[Parameter], power: float) -> None:
        self.weights = list(weights) if power != 1.0 else []
        self.power = power
        self.roots = [weight.detach().clone() for weight in self.weights]
        self.factors = [_factor(root, power) for root in self.roots]
        self._take_powers()

    @torch.no_grad()
    def step(self, optimizer: Optimizer) -> None:
        r"""Lets an optimizer take a step.

        Args:
            optimizer (torch.optim.Optimizer): The optimizer of the weights, and of any others.
        """
        for weight, root, factor in zip(self.weights, self.roots, self.factors, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(self.power * factor * root.abs().pow(self.power - 1))
            weight.copy_(root)
        optimizer.step()
        for weight, root in zip(self.weights, self.roots, strict=True):
            root.copy_(weight)
        self._take_powers()

    def state(self) -> dict[str, Tensor]:
        r"""Returns :math:`\mathbf{V}` and :math:`c` of each weight."""
        pairs = zip(self.roots, self.factors, strict=True)
        return {
            f"{number}.{name}": value
            for number, pair in enumerate(pairs)
            for name, value in zip(("root", "factor"), pair, strict=True)
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        r"""Takes what :meth:`state` gave, the weights being there already.

        Args:
            state (dict): What :meth:`state` gave.
        """
        for name, value in self.state().items():
            value.copy_(state[name])

    def _take_powers(self) -> None:
        for weight, root, factor in zip(self.weights, self.roots, self.factors, strict=True):
            weight.copy_(factor * root * root.abs().pow(self.power - 1))


def _factor(root: Tensor, power: float) -> Tensor:
    size = root.square().mean()
    power_size = root.abs().pow(2 * power).mean()
    # Zeros, or no weights at all, have no size to keep.
    return torch.where(power_size > 0, (size / power_size).sqrt(), torch.ones_like(size))
