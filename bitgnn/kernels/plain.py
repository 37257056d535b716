"""What native code may have the address of: tensors whose numbers lie in memory."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric import EdgeIndex, Index

REFUSED = "pass a plain tensor in CPU memory"


def plain(x: Any, name: str) -> Tensor:
    r"""Returns a tensor as one whose numbers lie in CPU memory, without its gradient. The parts of
    a sparse one are left to :func:`bitgnn.kernels.sparse.check_sparse`.

    Subclasses that are such tensors are unwrapped: :class:`torch.nn.Parameter`,
    :class:`torch_geometric.EdgeIndex`, and those that only add methods. All others are refused,
    as what :meth:`~torch.Tensor.data_ptr` says of them is no address.

    Args:
        x (torch.Tensor): The tensor, dense or sparse.
        name (str): The name of the argument, for the error.

    Raises:
        TypeError: If it is no tensor, or one without memory of its own.
        ValueError: If it is on another device, or reaches beyond its storage.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"'{name}' must be a tensor (got {type(x).__name__})")
    given = type(x)
    if given is not Tensor:
        x = _unwrapped(x)
    if type(x) is not Tensor or x.is_nested or _is_transformed(x):
        kind = "a transformation of torch.func" if _is_transformed(x) else _name(given)
        raise TypeError(f"'{name}' must be a plain tensor (got {kind}): {REFUSED}")
    if not x.is_cpu:
        raise ValueError(
            f"'{name}' is on device '{x.device}', and packed models run on the CPU: pass "
            f"'{name}.cpu()'"
        )
    x = x.detach() if x.requires_grad else x
    if x.layout != torch.strided:
        return x
    if x.is_neg() or x.is_conj():  # Views whose memory holds other numbers.
        x = x.resolve_neg().resolve_conj()
    if x.data_ptr() == 0 and x.numel() > 0:
        raise TypeError(f"'{name}' has no memory (its storage was freed or never made): {REFUSED}")
    check_extent(x, name)
    return x


def check_extent(x: Tensor, name: str) -> None:
    r"""Refuses a tensor that reaches beyond its storage. Storages can be made smaller, or freed,
    under the tensors that show them (:meth:`~torch.UntypedStorage.resize_`), which torch reads all
    the same.

    Args:
        x (torch.Tensor): The tensor, dense.
        name (str): The name of the argument, for the error.

    Raises:
        ValueError: If it does.
    """
    end = int(x.storage_offset()) * x.element_size() + extent(x)
    if x.numel() > 0 and end > x.untyped_storage().nbytes():
        raise ValueError(f"'{name}' reaches beyond its storage, which was made smaller: {REFUSED}")


def extent(x: Tensor) -> int:
    r"""Returns the number of bytes from the first number of a tensor to the end of its last one.

    Args:
        x (torch.Tensor): The tensor, dense.
    """
    if x.numel() == 0 or x.is_contiguous():  # The sum below takes a microsecond.
        return x.nbytes
    last: int = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return (last + 1) * x.element_size()


def _unwrapped(x: Tensor) -> Tensor:
    if type(x) is Parameter:  # One that is sparse has no `as_subclass`.
        return x.detach()
    with torch._C.DisableTorchFunctionSubclass():
        if isinstance(x, (EdgeIndex, Index)):
            return x.as_tensor()
        try:
            return x.as_subclass(Tensor)
        except (RuntimeError, TypeError):  # A subclass that answers for each operation.
            return x


def _is_transformed(x: Tensor) -> bool:
    if not torch._C._are_functorch_transforms_active():
        return False
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
