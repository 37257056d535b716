from typing import Any, NamedTuple
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.quant import QuantConfig, quantize_rows


class Rows(NamedTuple):
    """Rows, their integers and their scales; the gradient belongs to :obj:`x`."""

    x: Tensor
    values: Tensor
    scale: Tensor


class RowQuantizer:
    r"""Quantizes the rows a layer receives, and static rows only once.

    In full-batch training a layer sees the same input features in every step.
    Features that need no gradient and that come a second time, unchanged (the
    same memory and the same autograd version), are taken for static: their
    integers are kept until the features change or are freed. What bypasses
    autograd's version counter, such as writing through :obj:`x.data` or a
    NumPy view between two training steps, is not seen. Nothing is ever kept
    outside training.

    Args:
        config (QuantConfig): How to quantize.
    """

    def __init__(self, config: QuantConfig) -> None:
        self.config = config
        self._seen: _Fingerprint | None = None
        self._kept: Rows | None = None

    def __call__(self, x: Tensor, training: bool = False) -> Rows:
        """Quantizes the rows of a tensor, dense or a sparse matrix.

        Args:
            x (torch.Tensor): The activations.
            training (bool, optional): Whether static rows may be kept.
                (default: :obj:`False`)
        """
        if x.requires_grad or torch.compiler.is_compiling() or x.is_inference():
            return self._quantize(x)

        fingerprint = _Fingerprint(x)
        seen_before = fingerprint == self._seen
        if seen_before and self._kept is not None:
            return self._kept
        rows = self._quantize(x)
        if training and torch.is_grad_enabled():
            self._seen, self._kept = fingerprint, (rows if seen_before else None)
        return rows

    def _quantize(self, x: Tensor) -> Rows:
        x = self.normalize(x)
        return Rows(x, *quantize_rows(x, self.config))

    def normalize(self, x: Tensor) -> Tensor:
        """Applies what comes before quantization: layer normalization, if configured."""
        if not self.config.layer_norm:
            return x
        x = x if x.layout == torch.strided else x.to_dense()
        return F.layer_norm(x, x.shape[-1:])

    def __deepcopy__(self, memo: dict[int, Any]) -> "RowQuantizer":
        return RowQuantizer(self.config)

    def __reduce__(self) -> tuple[Any, ...]:
        return RowQuantizer, (self.config,)


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
            and self.memory() is other.memory()
            and other.memory() is not None
            and self.content == other.content
        )
