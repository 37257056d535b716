"""Memory for outputs, used again."""

import math
import weakref

import torch
from torch import Tensor

LARGE = 1 << 20  # bytes; less than that costs nothing to get


class Outputs:
    """Hands out tensors. When nobody has such a tensor any more, nor a view of it, the next one
    gets its memory: the system clears each new page that a process gets, which for a large output
    takes as long as some kernels."""

    def __init__(self) -> None:
        self._free: Tensor | None = None

    def empty(self, *size: int) -> Tensor:
        r"""Returns a tensor of 32-bit numbers that are not set.

        Args:
            *size (int): Its shape.
        """
        count = math.prod(size)
        if 4 * count < LARGE:
            return torch.empty(size)
        memory, self._free = self._free, None
        if memory is None or not count <= memory.numel() <= 2 * count:
            memory = torch.empty(count)
        # All that shares the storage of the tensor keeps this array, and nobody else does.
        lent = memory.numpy()[:count]
        weakref.finalize(lent, self._take_back, memory).atexit = False
        return torch.from_numpy(lent).view(size)

    def _take_back(self, memory: Tensor) -> None:
        self._free = memory
