from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast
from weakref import ref

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from bitgnn.quant.straight_through import is_transformed

T = TypeVar("T")

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes

# The promises that the content of a memory does not change unseen, and one copy of the content of
# each other memory of which something is remembered.
_PROMISES: WeakIdKeyDictionary = WeakIdKeyDictionary()
_COPIES: WeakIdKeyDictionary = WeakIdKeyDictionary()
_OWN = object()  # The promise for what this package has computed and hands to nobody.


class Fingerprint:
    r"""Tells whether tensors are the same memory with the same autograd version as those seen
    before.

    What bypasses autograd's version counter, such as writing through :obj:`x.data` or a NumPy
    view, is not seen: only together with :func:`promises` or a comparison of contents do equal
    fingerprints mean equal content.

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


class static_inputs:
    r"""A promise that nothing rewrites tensors behind autograd's back while the context is
    entered: no NumPy array that shares their memory, and no :obj:`x.data`. What layers compute of
    them alone, such as the integers of input features or how to transpose an adjacency matrix, is
    then computed once, and not checked. Changes that autograd sees (:obj:`x.add_(1)`) are allowed.

    >>> with static_inputs(x, adj_t):
    ...     for epoch in range(100):
    ...         train(model, x, adj_t)

    It may be entered several times; the promise then covers the time in between, too.

    Args:
        *tensors (torch.Tensor): Input features and adjacency matrices, dense or sparse.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._memory = [each for x in tensors for each in _memory(x)]
        self._token = object()
        self._before: list[list[object | None]] = []

    def __enter__(self) -> "static_inputs":
        self._before.append([_PROMISES.get(each) for each in self._memory])
        for each in self._memory:
            _PROMISES[each] = self._token
        return self

    def __exit__(self, *error: object) -> None:
        for each, before in zip(self._memory, self._before.pop(), strict=True):
            if before is None:
                _PROMISES.pop(each, None)
            else:
                _PROMISES[each] = before


def vouch(x: Tensor) -> None:
    r"""Promises for good that nothing rewrites the memory of a tensor unseen: for what this
    package has computed and hands to nobody.

    Args:
        x (torch.Tensor): The tensor, dense or a sparse matrix.
    """
    for each in _memory(x):
        _PROMISES[each] = _OWN


def promises(*tensors: Tensor) -> list[object | None] | None:
    r"""Returns what vouches for the content of tensors (:class:`static_inputs`), or :obj:`None`
    if anything may rewrite one of them. Content for which the same vouches is the same.

    Args:
        *tensors (torch.Tensor): The tensors, dense or sparse matrices.
    """
    found = [each for x in tensors for each in _promised(x)]
    return None if None in found else found


def _promised(x: Tensor) -> list[object | None]:
    return [_PROMISES.get(each) for each in _memory(x)]


@dataclass(frozen=True)
class _Kept(Generic[T]):
    """What was seen of a tensor and, from the second time on, a copy of the parts that nothing
    vouches for, and the result."""

    fingerprint: Fingerprint
    promises: list[object | None]
    copies: list[Tensor | None] | None
    value: T | None

    def serves(self, x: Tensor, fingerprint: Fingerprint, promises: list[object | None]) -> bool:
        if self.copies is None or self.promises != promises or self.fingerprint != fingerprint:
            return False
        return all(
            copy is None or _same(copy, part)
            for copy, part in zip(self.copies, _parts(x), strict=True)
        )


class Memo(Generic[T]):
    r"""Computes something of a tensor once, and remembers it until the tensor changes or its
    memory is freed. Unless :class:`static_inputs` vouches for it, it is remembered from the second
    time on, and the content is compared with a copy, bit by bit, each time; without copies nothing
    is remembered then.

    Aliases of a tensor, such as :obj:`x.detach()`, are the same memory. Of several views of one
    memory only the last one is remembered.

    Args:
        compute (Callable): What depends on the tensor's content alone, and does not hold its
            memory itself.
        copies (bool, optional): Whether to keep a copy to compare with. (default: :obj:`True`)
    """

    def __init__(self, compute: Callable[[Tensor], T], copies: bool = True) -> None:
        self._compute, self._copies = compute, copies
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
        memory = _parts(x)[-1].untyped_storage()
        fingerprint, vouched = Fingerprint(x), _promised(x)
        kept: _Kept[T] | None = self._kept.get(memory)
        if kept is not None and kept.serves(x, fingerprint, vouched):
            return cast(T, kept.value)
        # What is seen once, such as a matrix of one training step, is not worth a copy.
        seen = kept is not None and kept.fingerprint == fingerprint
        keeps = None not in vouched or (seen and self._copies)
        # What is computed in evaluation serves training, too.
        with torch.inference_mode(False), torch.no_grad():
            value = self._compute(x)
            if keeps:
                own(value, x)
            copies = [
                None if vouch is not None else _copy(part)
                for vouch, part in zip(vouched, _parts(x), strict=True)
            ] if keeps else None  # fmt: skip
        self._kept[memory] = _Kept(fingerprint, vouched, copies, value if keeps else None)
        return value


def own(value: Any, x: Tensor) -> None:
    r"""Vouches for the tensors of a result (:func:`vouch`), but not for memory that they share.

    Args:
        value (Any): The result: a tensor, a tuple of results, or anything else.
        x (torch.Tensor): The tensor that it was computed of.
    """
    if isinstance(value, Tensor):
        shared = _memory(x)
        for each in _memory(value):
            if not any(each is other for other in shared):
                _PROMISES[each] = _OWN
    elif isinstance(value, tuple):
        for each in value:
            own(each, x)


def _copy(part: Tensor) -> Tensor:
    """A copy of a dense tensor, of which there is one for all memos."""
    memory, layout = part.untyped_storage(), _layout(part)
    kept = _COPIES.get(memory)
    if kept is None or kept[0] != layout or not _same(kept[1], part):
        kept = _COPIES[memory] = (layout, part.detach().clone())
    return kept[1]


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether tensors have the same bits."""
    integers = INTEGERS.get(a.element_size())
    return integers is not None and torch.equal(a.view(integers), b.detach().view(integers))


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """The dense tensors that a tensor consists of."""
    if x.layout == torch.sparse_csr:
        return x.crow_indices(), x.col_indices(), x.values()
    return (x,) if x.layout == torch.strided else ()


def _memory(x: Tensor) -> list[Any]:
    """What stands for the memory of a tensor."""
    return [part.untyped_storage() for part in _parts(x)] or [x]


def _layout(x: Tensor) -> tuple[object, ...]:
    # A storage that was made smaller must not be read, not even to compare it with a copy.
    bytes_there = x.untyped_storage().nbytes()
    return x._version, x.dtype, x.shape, x.storage_offset(), x.stride(), bytes_there
