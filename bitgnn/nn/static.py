from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from bitgnn.kernels import Fingerprint, promises
from bitgnn.kernels.memo import own
from bitgnn.quant.straight_through import is_transformed

T = TypeVar("T")


class StaticMemo(Generic[T]):
    r"""Computes something of a tensor, and of a static tensor only once.

    In full-batch training a layer sees the same input features in every step.
    A tensor that :class:`bitgnn.nn.static_inputs` vouches for, that needs no
    gradient and that comes a second time, unchanged (the same memory and the
    same autograd version), is static: what was computed of it is kept until
    the tensor changes or is freed. Outside training nothing new is kept, and
    nothing at all under hooks for saved tensors, as in activation
    checkpointing: a forward that is run again saves the same tensors.
    """

    def __init__(self) -> None:
        self._seen: tuple[Fingerprint, list[object | None]] | None = None
        self._kept: T | None = None

    def __call__(
        self,
        x: Tensor,
        compute: Callable[[Tensor], T],
        training: bool,
        beside: Tensor | None = None,
    ) -> T:
        """Returns :obj:`compute(x)`.

        Args:
            x (torch.Tensor): The tensor.
            compute (Callable): What depends on the tensor's content alone, and
                does not hold the tensor itself.
            training (bool): Whether something may be kept.
            beside (torch.Tensor, optional): A second tensor on whose content
                the result depends. (default: :obj:`None`)
        """
        kept = self.kept(x, compute, training, beside)
        return compute(x) if kept is None else kept

    def kept(
        self,
        x: Tensor,
        compute: Callable[[Tensor], T],
        training: bool,
        beside: Tensor | None = None,
    ) -> T | None:
        """Returns :obj:`compute(x)` if the tensor is static, else :obj:`None`.

        Args:
            x (torch.Tensor): The tensor.
            compute (Callable): As in :meth:`__call__`.
            training (bool): Whether something may be kept.
            beside (torch.Tensor, optional): As in :meth:`__call__`.
                (default: :obj:`None`)
        """
        tensors = (x,) if beside is None else (x, beside)
        if torch.compiler.is_compiling() or is_transformed() or any(map(_changes, tensors)):
            return None
        vouched = promises(*tensors)
        if vouched is None or _saves_elsewhere():
            return None
        seen = Fingerprint(*tensors), vouched
        seen_before = seen == self._seen
        if seen_before and self._kept is not None:
            return self._kept
        if training and torch.is_grad_enabled():
            self._seen, self._kept = seen, (compute(x) if seen_before else None)
            own(self._kept, x)
            return self._kept
        return None

    # A copy of a layer starts afresh: what is kept belongs to one place.

    def __deepcopy__(self, memo: dict[int, Any]) -> "StaticMemo[T]":
        return StaticMemo()

    def __reduce__(self) -> tuple[Any, ...]:
        return StaticMemo, ()


def _saves_elsewhere() -> bool:
    """Whether hooks take what is saved for the backward pass."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def _changes(x: Tensor) -> bool:
    # Inference tensors have no version that would tell a change.
    return x.requires_grad or x.is_inference()
