"""Where a caller may have an output written (:obj:`out=`)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from bitgnn.kernels.plain import extent, plain

MAPS = Path("/proc/self/maps")  # Linux says there what each piece of memory is.


class Mapped(NamedTuple):
    """A piece of a process's memory: whether it may be written, and which file it shows from which
    byte on, if it is mapped from one."""

    writable: bool
    file: tuple[str, str] | None
    offset: int


def check_place(out: Any, shape: tuple[int, ...], reads: Iterable[Tensor]) -> Tensor:
    r"""Returns the place of an output, if it can be written while other tensors are read.

    Args:
        out (torch.Tensor): The place.
        shape (tuple): The shape of the output.
        reads (list): What is read meanwhile.

    Raises:
        TypeError: If it is no tensor in memory.
        ValueError: If it has another shape or type, cannot be written, or shares memory with what
            is read, be it by two mappings of one file.
    """
    if isinstance(out, Tensor):
        requires_grad, out = out.requires_grad, plain(out, "out")
        fits = out.layout == torch.strided and out.shape == shape and not requires_grad
    if not isinstance(out, Tensor) or not fits or not _is_plain_rows(out):
        found = (
            f"{out.dtype}, {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        )
        raise ValueError(
            f"'out' must be contiguous, of type torch.float32 and shape {tuple(shape)}, without a "
            f"gradient (got {found})"
        )
    if out.numel() == 0:
        return out
    there = _mapped(out)
    if there is not None and not there.writable:
        raise ValueError("'out' cannot be written: its memory is read-only, as of a file mapped so")
    for each in reads:
        if each.numel() and (_meet(out, each, 0, 0) or _meet_in_file(out, there, each)):
            raise ValueError(
                "'out' shares memory with an input, which is read while 'out' is written: pass "
                "memory of its own"
            )
    return out


def _is_plain_rows(out: Tensor) -> bool:
    return out.dtype == torch.float32 and out.is_contiguous()


def _meet(a: Tensor, b: Tensor, from_a: int, from_b: int) -> bool:
    """Whether the bytes of two tensors overlap, counted from two places."""
    start_a, start_b = a.data_ptr() - from_a, b.data_ptr() - from_b
    return start_a < start_b + extent(b) and start_b < start_a + extent(a)


def _meet_in_file(out: Tensor, there: Mapped | None, other: Tensor) -> bool:
    if there is None or there.file is None:
        return False
    of_other = _mapped(other)
    if of_other is None or of_other.file != there.file:
        return False
    return _meet(out, other, out.data_ptr() - there.offset, other.data_ptr() - of_other.offset)


# Storage by storage, as to read what all memory of a process is takes a millisecond.
_known: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _mapped(x: Tensor) -> Mapped | None:
    storage = x.untyped_storage()
    key = x.data_ptr(), extent(x)
    known = _known.get(storage)
    if known is None or known[0] != key:
        known = _known[storage] = (key, _find(*key))
    found: Mapped | None = known[1]
    return found


def _find(start: int, size: int) -> Mapped | None:
    try:
        lines = MAPS.read_text().splitlines()
    except OSError:  # Another system.
        return None
    found: Mapped | None = None
    for line in lines:
        span, access, offset, device, inode, *_ = line.split(maxsplit=5)
        first, last = (int(each, 16) for each in span.split("-"))
        if last <= start or first >= start + size:
            continue
        if found is None:
            file = None if inode == "0" else (device, inode)
            found = Mapped(True, file, int(offset, 16) + start - first)
        found = found._replace(writable=found.writable and "w" in access)
    return found
