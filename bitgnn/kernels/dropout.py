import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    r"""The :func:`torch.nn.functional.dropout` that takes a third of its time on a CPU, where it
    draws numbers by the vector instead of one by one.

    Args:
        x (torch.Tensor): The values.
        p (float): The probability that a value is dropped.
        training (bool, optional): Whether values are dropped at all. (default: :obj:`True`)

    Raises:
        ValueError: If the probability is not between 0 and 1.
    """
    vectors = x.device.type == "cpu" and x.is_floating_point() and not torch.compiler.is_compiling()
    if not (training and vectors and 0.0 < p < 1.0):
        return F.dropout(x, p, training)
    keep = torch.rand_like(x, requires_grad=False).ge_(p)
    return x * keep.mul_(1.0 / (1.0 - p))


class Dropout(torch.nn.Dropout):
    r"""The :class:`torch.nn.Dropout` that calls :func:`dropout`.

    Args:
        p (float, optional): The probability that a value is dropped. (default: :obj:`0.5`)
    """

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)
