r"""The native kernels (:obj:`csrc/`), as functions of tensors: which there are, when they apply,
and those that work row by row. Products and attention have files of their own.

They run on a CPU and in 32 or 64 bits. Where they do not apply, or were not built (there was no
compiler), torch takes their place: :func:`applies` says which. Each gives the same numbers on any
number of threads.
"""

import os
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import Parameter

from bitgnn.quant.straight_through import is_transformed

_native: ModuleType | None
try:
    _native = import_module("bitgnn.kernels._native")
except ImportError:
    _native = None

DTYPES = (torch.float32, torch.float64)
SEEDS = 2**63 - 1
PLAIN = (Tensor, Parameter)  # Others, such as fake tensors, may have no memory.


def isa() -> str | None:
    """Returns the instruction set whose native kernels are in use, :obj:`None` if none are."""
    return str(_native.isa) if _native is not None and enabled() else None


def status() -> str:
    """Says in one line which native kernels are in use, or why none are."""
    if _native is None:
        return "none: reference path in use (install bitgnn where there is a C++ compiler)"
    if not enabled():
        return "none: reference path in use (turned off by BITGNN_NATIVE=0)"
    return str(isa())


def enabled() -> bool:
    """Whether there are native kernels and the environment does not turn them off."""
    return _native is not None and os.environ.get("BITGNN_NATIVE", "1") != "0"


def applies(*tensors: Tensor) -> bool:
    """Whether native kernels take tensors: there are some, and tensors are plain.

    Args:
        *tensors (torch.Tensor): The tensors.
    """
    return enabled() and is_plain(*tensors)


def takes(x: Tensor) -> bool:
    """Whether the operators of :mod:`bitgnn.kernels.ops` run natively on rows: those of 32 bits on
    a CPU, on which no transformation of torch looks but :func:`torch.compile`. An exported program
    consists of torch's own operators: it runs where this package is not installed.

    Args:
        x (torch.Tensor): The rows.
    """
    return (
        enabled()
        and type(x) in PLAIN
        # Dynamo knows no sparse tensors, and forbids the question in a backward pass.
        and (torch.compiler.is_compiling() or x.layout == torch.strided)
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        # Dynamo of torch 2.10 takes torch.compiler.is_exporting() for True.
        and not torch.compiler._is_exporting_flag
        and not torch.jit.is_tracing()
        and not is_transformed()
    )


def exceeds(x: Tensor, size: int) -> bool:
    """Whether a tensor has more numbers than :obj:`size`. A number of rows that is symbolic under
    :func:`torch.compile` counts as large and stays symbolic: no guard is added.

    Args:
        x (torch.Tensor): The tensor.
        size (int): The numbers that it may have.
    """
    if not torch.compiler.is_compiling():
        return x.numel() > size
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return not statically_known_true(x.numel() <= size)


def is_plain(*tensors: Tensor) -> bool:
    """Whether tensors are nothing but numbers in memory, dense and of one type of 32 or 64 bits on
    a CPU, that no transformation of torch looks on.

    Args:
        *tensors (torch.Tensor): The tensors.
    """
    dtype = tensors[0].dtype
    return (
        dtype in DTYPES
        and not torch.compiler.is_compiling()
        and all(
            type(x) in PLAIN
            and x.layout == torch.strided
            and x.device.type == "cpu"
            and x.dtype == dtype
            and not x.is_neg()  # A view whose memory holds the opposite numbers.
            for x in tensors
        )
        and not torch.jit.is_tracing()
        and not is_transformed()
    )


def library() -> ModuleType:
    """Returns the library of native kernels, where there is one."""
    assert _native is not None
    return _native


def of(x: Tensor) -> ModuleType:
    """Returns the kernels for numbers of as many bits.

    Args:
        x (torch.Tensor): The numbers, of 32 or 64 bits.
    """
    kernels = library().f32 if x.dtype == torch.float32 else library().f64
    assert isinstance(kernels, ModuleType)
    return kernels


def span(x: Tensor | None) -> tuple[int, int]:
    r"""Returns the address and the number of bytes of a tensor, of which kernels check both.

    Args:
        x (torch.Tensor or None): The tensor, contiguous.

    Raises:
        ValueError: If it is a view whose memory holds the opposite numbers.
    """
    if x is not None and x.is_neg():
        raise ValueError("A tensor with its negative bit set has no memory of its own numbers")
    return (0, 0) if x is None else (x.data_ptr(), x.nbytes)


def draw_seed() -> int:
    """Returns a seed for :func:`dropout` and :func:`uniform`, drawn by torch's generator."""
    return int(torch.randint(SEEDS, ()).item())


def uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    r"""Draws numbers from :math:`[0, 1)` by Philox4x32-10, a generator that counts, from
    `"Parallel Random Numbers: As Easy as 1, 2, 3" <https://doi.org/10.1145/2063384.2063405>`_.

    Args:
        shape (tuple): The shape.
        seed (int): The seed, of 64 bits.
    """
    out = torch.empty(shape, dtype=torch.float32, device="cpu")
    library().uniform(span(out), seed, torch.get_num_threads())
    return out


def dropout(x: Tensor, p: float, seed: int) -> Tensor:
    r"""Multiplies numbers by 0 where the noise of :func:`uniform` lies below :math:`p`, else by
    :math:`1 / (1 - p)`.

    Args:
        x (torch.Tensor): The numbers.
        p (float): The probability that one is dropped, below 1.
        seed (int): The seed.
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    of(x).dropout(span(x), p, seed, span(out), torch.get_num_threads())
    return out


def quantize_rows(
    x: Tensor, low: float, high: float, eps: float, offsets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Quantizes rows as :func:`bitgnn.quant.quantize_rows` does.

    Args:
        x (torch.Tensor): The rows; with offsets, their values one after the other.
        low (float): The smallest integer.
        high (float): The largest integer.
        eps (float): The smallest scale.
        offsets (torch.Tensor, optional): Where each row starts among the values, and their
            number. (default: :obj:`None`)

    Shapes:
        - **x:** :math:`(*, F)`, or :math:`(E)` with offsets :math:`(N + 1)`
        - **outputs:** the shape of :math:`\mathbf{x}`, and :math:`(*, 1)` or :math:`(N, 1)`
    """
    x = x.contiguous()
    if offsets is None:
        shape, width = x.shape[:-1], x.size(-1)
    else:
        shape, width = torch.Size([offsets.numel() - 1]), 0
        offsets = offsets.contiguous()
    x_q, scale = torch.empty_like(x), x.new_empty((*shape, 1))
    of(x).quantize_rows(
        span(x),
        span(offsets),
        scale.numel(),
        width,
        -low,
        high,
        eps,
        span(x_q),
        span(scale),
        torch.get_num_threads(),
    )
    return x_q, scale
