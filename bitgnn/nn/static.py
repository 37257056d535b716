from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import ref

import torch
from torch import Tensor

T = TypeVar("T")


class StaticMemo(Generic[T]):
    r"""Computes something of a tensor, and of a static tensor only once.

    In full-batch training a layer sees the same input features in every step.
    A tensor that needs no gradient and that comes a second time, unchanged
    (the same memory and the same autograd version), is taken for static: what
    was computed of it is kept until the tensor changes or is freed. What
    bypasses autograd's version counter, such as writing through
    :obj:`x.data` or a NumPy view between two training steps, is not seen.
    Outside training nothing new is kept.
    """

    def __init__(self) -> None:
        self._seen: _Fingerprint | None = None
        self._kept: T | None = None

    def __call__(self, x: Tensor, compute: Callable[[Tensor], T], training: bool) -> T:
        """Returns :obj:`compute(x)`.

        Args:
            x (torch.Tensor): The tensor.
            compute (Callable): What depends on the tensor's content alone, and
                does not hold the tensor itself.
            training (bool): Whether something may be kept.
        """
        kept = self.kept(x, compute, training)
        return compute(x) if kept is None else kept

    def kept(self, x: Tensor, compute: Callable[[Tensor], T], training: bool) -> T | None:
        """Returns :obj:`compute(x)` if the tensor is static, else :obj:`None`.

        Args:
            x (torch.Tensor): The tensor.
            compute (Callable): As in :meth:`__call__`.
            training (bool): Whether something may be kept.
        """
        if x.requires_grad or torch.compiler.is_compiling() or x.is_inference():
            return None
        fingerprint = _Fingerprint(x)
        seen_before = fingerprint == self._seen
        if seen_before and self._kept is not None:
            return self._kept
        if training and torch.is_grad_enabled():
            self._seen, self._kept = fingerprint, (compute(x) if seen_before else None)
            return self._kept
        return None

    # A copy of a layer starts afresh: what is kept belongs to one place.

    def __deepcopy__(self, memo: dict[int, Any]) -> "StaticMemo[T]":
        return StaticMemo()

    def __reduce__(self) -> tuple[Any, ...]:
        return StaticMemo, ()


class _Fingerprint:
    """Tells whether a tensor is the same memory with the same content as one seen before."""

    def __init__(self, x: Tensor) -> None:
        sparse = x.layout != torch.strided
        # A sparse tensor has no memory of its own; the object stands for it.
        self.memory = ref(x if sparse else x.untyped_storage())
        self.content: tuple[object, ...] = (x._version, x.dtype, x.shape)
        if not sparse:
            self.content += (x.storage_offset(), x.stride())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Fingerprint)
            and self.memory() is not None
            and self.memory() is other.memory()
            and self.content == other.content
        )
