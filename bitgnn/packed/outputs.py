"""Memory for outputs, used again."""

import math
import weakref
from collections import deque

import torch
from torch import Tensor

LARGE = 1 << 20  # bytes; less than that costs nothing to get


class Outputs:
    """Hands out tensors. When nobody has such a tensor any more, nor a view of it, the next one
    gets its memory: the system clears each new page that a process gets, which for a large output
    takes as long as some kernels."""

    def __init__(self) -> None:
        # One piece at most. Taking and giving back are atomic, which a lock could not make them:
        # what gives back may run within `empty`, when garbage is collected.
        self._free: deque[Tensor] = deque(maxlen=1)

    def empty(self, *size: int) -> Tensor:
        r"""Returns a tensor of 32-bit numbers that are not set.

        Args:
            *size (int): Its shape.
        """
        count = math.prod(size)
        if 4 * count < LARGE:
            return torch.empty(size, dtype=torch.float32, device="cpu")
        try:
            memory = self._free.pop()
        except IndexError:
            memory = None
        if memory is None or not count <= memory.numel() <= 2 * count:
            memory = torch.empty(count, dtype=torch.float32, device="cpu")
        # All that shares the storage of the tensor keeps this array, and nobody else does.
        lent = memory.numpy()[:count]
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.from_numpy(lent).view(size)
