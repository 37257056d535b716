r"""Ternary values as bytes: five a byte, in files."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TRITS = 5  # 3 ** 5 = 243 values fit a byte, which leaves 8 / log2(243) = 1 % of it unused.

_POWERS = torch.tensor([3**place for place in range(TRITS)], dtype=torch.uint8)
# The values of each byte.
_VALUES = torch.stack([torch.arange(243) // 3**place % 3 - 1 for place in range(TRITS)], dim=1)
_VALUES = _VALUES.to(torch.int8)


def to_trits(values: Tensor) -> Tensor:
    r"""Packs ternary values five a byte, :math:`\sum_{k=0}^{4} (v_k + 1) \, 3^k`.

    Args:
        values (torch.Tensor): Values in :math:`\{-1, 0, 1\}`, of any shape and type. The last
            byte is filled up with :math:`-1`.

    Shapes:
        - **values:** :math:`(*)` with :math:`n` values
        - **output:** :math:`(\lceil n / 5 \rceil)`

    Raises:
        ValueError: If a value is not ternary.
    """
    flat = values.detach().reshape(-1)
    ternary = (flat == -1) | (flat == 0) | (flat == 1)
    if not bool(ternary.all()):
        wrong = flat[~ternary][0].item()
        raise ValueError(f"Ternary values are -1, 0 and 1 (got {wrong}): quantize them first")
    digits = (flat.cpu().to(torch.int8) + 1).to(torch.uint8)
    digits = F.pad(digits, (0, -len(digits) % TRITS)).view(-1, TRITS)
    return (digits * _POWERS).sum(dim=1, dtype=torch.uint8)


def from_trits(packed: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    r"""The inverse of :func:`to_trits`.

    Args:
        packed (torch.Tensor): The bytes.
        shape (tuple): The shape of the values.

    Raises:
        ValueError: If bytes are too many or too few for the shape, or one is above 242.
    """
    count = math.prod(shape)  # Of any size, and compared before anything is allocated.
    expected = -(-count // TRITS)
    if packed.dtype != torch.uint8 or packed.dim() != 1 or packed.numel() != expected:
        raise ValueError(
            f"{count} values of shape {tuple(shape)} take {expected} bytes "
            f"(got {packed.dtype} of shape {tuple(packed.shape)})"
        )
    if packed.numel() and int(packed.max()) >= len(_VALUES):
        raise ValueError(
            f"A byte holds five trits, at most 242 (got {int(packed.max())}): the data is damaged"
        )
    return _VALUES[packed.int()].reshape(-1)[:count].view(shape)
