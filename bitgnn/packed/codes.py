r"""Ternary values as bytes: five a byte in files, four a byte in memory."""

import torch
from torch import Tensor

TRITS = 5  # 3 ** 5 = 243 values fit a byte, which leaves 8 / log2(243) = 1 % of it unused.
CODES = 4

_POWERS = torch.tensor([3**place for place in range(TRITS)], dtype=torch.uint8)
_DIGITS = torch.stack([torch.arange(243) // 3**place % 3 for place in range(TRITS)], dim=1)
_SHIFTS = torch.arange(0, 8, 8 // CODES, dtype=torch.uint8)


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
    return (_digits(values, TRITS) * _POWERS).sum(dim=1, dtype=torch.uint8)


def from_trits(packed: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    r"""The inverse of :func:`to_trits`.

    Args:
        packed (torch.Tensor): The bytes.
        shape (tuple): The shape of the values.

    Raises:
        ValueError: If bytes are too many or too few for the shape, or one is above 242.
    """
    _check_bytes(packed, shape, TRITS)
    if packed.numel() and int(packed.max()) >= len(_DIGITS):
        raise ValueError(
            f"A byte holds five trits, at most 242 (got {int(packed.max())}): the data is damaged"
        )
    return _shaped(_DIGITS[packed.long()], shape)


def to_codes(values: Tensor) -> Tensor:
    r"""Packs ternary values four a byte, :math:`v + 1` in two bits each, the first one lowest.

    Args:
        values (torch.Tensor): As in :func:`to_trits`.

    Shapes:
        - **values:** :math:`(*)` with :math:`n` values
        - **output:** :math:`(\lceil n / 4 \rceil)`

    Raises:
        ValueError: If a value is not ternary.
    """
    return (_digits(values, CODES) << _SHIFTS).sum(dim=1, dtype=torch.uint8)


def from_codes(packed: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    r"""The inverse of :func:`to_codes`.

    Args:
        packed (torch.Tensor): The bytes.
        shape (tuple): The shape of the values.

    Raises:
        ValueError: If bytes are too many or too few for the shape, or a code is 3.
    """
    _check_bytes(packed, shape, CODES)
    digits = (packed.unsqueeze(1) >> _SHIFTS) & 3
    if digits.numel() and int(digits.max()) > 2:
        raise ValueError("Two bits hold a trit, at most 2 (got 3): the data is damaged")
    return _shaped(digits, shape)


def _digits(values: Tensor, per_byte: int) -> Tensor:
    """The values plus 1, a row a byte."""
    flat = values.detach().reshape(-1)
    ternary = (flat == -1) | (flat == 0) | (flat == 1)
    if not bool(ternary.all()):
        wrong = flat[~ternary][0].item()
        raise ValueError(f"Ternary values are -1, 0 and 1 (got {wrong}): quantize them first")
    digits = (flat.cpu().to(torch.int8) + 1).to(torch.uint8)
    missing = -len(digits) % per_byte
    return torch.nn.functional.pad(digits, (0, missing)).view(-1, per_byte)


def _shaped(digits: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    count = torch.Size(shape).numel()
    return (digits.reshape(-1)[:count].to(torch.int8) - 1).view(shape)


def _check_bytes(packed: Tensor, shape: torch.Size | tuple[int, ...], per_byte: int) -> None:
    expected = -(-torch.Size(shape).numel() // per_byte)
    if packed.dtype != torch.uint8 or packed.dim() != 1 or packed.numel() != expected:
        raise ValueError(
            f"{torch.Size(shape).numel()} values of shape {tuple(shape)} take {expected} bytes "
            f"(got {packed.dtype} of shape {tuple(packed.shape)})"
        )
