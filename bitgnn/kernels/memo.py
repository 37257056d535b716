from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import ref

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from bitgnn.quant.straight_through import is_transformed

T = TypeVar("T")


class Fingerprint:
    r"""Tells whether tensors are the same memory with the same content as those seen before:
    equal fingerprints mean equal content.

    What bypasses autograd's version counter, such as writing through :obj:`x.data` or a NumPy
    view, is not seen.

    Args:
        *tensors (torch.Tensor): The tensors, dense or sparse matrices.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self.memory: list[ref[object]] = []
        self.content: list[tuple[object, ...]] = []
        for x in tensors:
            parts = _parts(x)
            # A COO matrix shows its memory only once it is coalesced; the object stands for it.
            self.memory += [ref(part.untyped_storage()) for part in parts] or [ref(x)]
            self.content += [(x._version, x.dtype, x.shape), *map(_layout, parts)]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Fingerprint)
            and self.content == other.content
            and len(self.memory) == len(other.memory)
            and all(
                a() is not None and a() is b()
                for a, b in zip(self.memory, other.memory, strict=True)
            )
        )

    __hash__ = None  # type: ignore[assignment]


class Memo(Generic[T]):
    r"""Computes something of a tensor once, and remembers it until the tensor changes or its
    memory is freed.

    Aliases of a tensor, such as :obj:`x.detach()`, are the same memory. Of several views of one
    memory only the last one is remembered.

    Args:
        compute (Callable): What depends on the tensor's content alone, and does not hold its
            memory itself.
    """

    def __init__(self, compute: Callable[[Tensor], T]) -> None:
        self._compute = compute
        self._kept: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __call__(self, x: Tensor) -> T:
        """Returns :obj:`compute(x)`.

        Args:
            x (torch.Tensor): The tensor, dense or a sparse matrix (CSR).
        """
        # An inference tensor has no version that would tell a change; what is computed within a
        # transform of torch lives no longer than the transform.
        if x.is_inference() or is_transformed():
            return self._compute(x)
        memory, fingerprint = _parts(x)[-1].untyped_storage(), Fingerprint(x)
        kept = self._kept.get(memory)
        if kept is None or kept[0] != fingerprint:
            # What is computed in evaluation serves training, too.
            with torch.inference_mode(False), torch.no_grad():
                kept = self._kept[memory] = (fingerprint, self._compute(x))
        return kept[1]


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """The dense tensors that a tensor consists of."""
    if x.layout == torch.sparse_csr:
        return x.crow_indices(), x.col_indices(), x.values()
    return (x,) if x.layout == torch.strided else ()


def _layout(x: Tensor) -> tuple[object, ...]:
    return x._version, x.dtype, x.shape, x.storage_offset(), x.stride()
