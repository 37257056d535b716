r"""The native kernels (:obj:`csrc/`), as functions of tensors.

They run on a CPU and in 32 or 64 bits. Where they do not apply, or were not built (there was no
compiler), torch takes their place: :func:`applies` says which. Each gives the same numbers on any
number of threads.
"""

import os
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_native: ModuleType | None
try:
    _native = import_module("bitgnn.kernels._native")
except ImportError:
    _native = None

MOST_HEADS = 0 if _native is None else int(_native.most_heads)
LINE, LANES, GROUP = 64, 16, 16  # bytes of a cache line, numbers of a vector, values of codes
NUMBERS, INT8, INT16, SPARSE = 0, 1, 2, 3  # forms of rows, in the engine
OWN, GIVEN, WANTED = 0, 1, 2  # whose memory a value has: the engine's, or a caller's
MANY = 2**20  # numbers of rows; a library multiplies fewer as fast
DTYPES = (torch.float32, torch.float64)
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


def multiplies(x: Tensor, weight: Tensor) -> bool:
    """Whether native products are the faster ones: of many rows of 32 bits.

    Args:
        x (torch.Tensor): The rows.
        weight (torch.Tensor): The weight.
    """
    return x.dtype == torch.float32 and x.numel() > MANY and applies(x, weight)


def takes(x: Tensor) -> bool:
    """Whether the operators of :mod:`bitgnn.kernels.ops` run natively on rows: those of 32 bits on
    a CPU, on which no transformation of torch looks but :func:`torch.compile`.

    Args:
        x (torch.Tensor): The rows.
    """
    return (
        enabled()
        and type(x) in PLAIN
        and x.layout == torch.strided
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
    )


def is_plain(*tensors: Tensor) -> bool:
    """Whether tensors are nothing but numbers in memory, dense and of one type of 32 or 64 bits on
    a CPU, that no transformation of torch looks on.

    Args:
        *tensors (torch.Tensor): The tensors.
    """
    dtype = tensors[0].dtype
    return (
        dtype in DTYPES
        and all(
            type(x) in PLAIN
            and x.layout == torch.strided
            and x.device.type == "cpu"
            and x.dtype == dtype
            for x in tensors
        )
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
    )


def draw_seed() -> int:
    """Returns a seed for :func:`dropout` and :func:`uniform`, drawn by torch's generator."""
    return int(torch.randint(2**63 - 1, ()).item())


def uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    r"""Draws numbers from :math:`[0, 1)` by Philox4x32-10, a generator that counts, from
    `"Parallel Random Numbers: As Easy as 1, 2, 3" <https://doi.org/10.1145/2063384.2063405>`_.

    Args:
        shape (tuple): The shape.
        seed (int): The seed, of 64 bits.
    """
    assert _native is not None
    out = torch.empty(shape)
    _native.uniform(out.data_ptr(), out.numel(), seed, torch.get_num_threads())
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
    args = x.data_ptr(), x.numel(), p, seed, out.data_ptr(), torch.get_num_threads()
    _of(x).dropout(*args)
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
    _of(x).quantize_rows(
        x.data_ptr(),
        0 if offsets is None else offsets.data_ptr(),
        scale.numel(),
        width,
        -low,
        high,
        eps,
        x_q.data_ptr(),
        scale.data_ptr(),
        torch.get_num_threads(),
    )
    return x_q, scale


def attention(
    adj_t: Tensor,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    p: float,
    noise: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The forward pass of :func:`bitgnn.kernels.graph_attention`.

    Args:
        adj_t (torch.Tensor): The adjacency matrix (CSR).
        x (torch.Tensor): The features of each source and head.
        score_src (torch.Tensor): The score of each source and head.
        score_dst (torch.Tensor): The score of each target and head.
        negative_slope (float): The slope of LeakyReLU below zero.
        p (float): The dropout of attention coefficients.
        noise (torch.Tensor or None): A number from :math:`[0, 1)` for each edge and head, where
            there is dropout.

    Shapes:
        - **adj_t:** :math:`(N, M)`, with :math:`E` values
        - **x:** :math:`(M, H, C)`
        - **score_src, score_dst:** :math:`(M, H)` and :math:`(N, H)`
        - **noise:** :math:`(E, H)`
        - **outputs:** :math:`(N, H, C)`, and the coefficients :math:`(E, H)` without and with
          dropout
    """
    heads, channels = x.shape[1:]
    out = x.new_empty(adj_t.size(0), heads, channels)
    alpha = x.new_empty(adj_t.values().numel(), heads)
    weight = alpha if noise is None else torch.empty_like(alpha)
    _of(x).attention(
        *_operands(adj_t, x, score_src, score_dst, negative_slope),
        0 if noise is None else noise.data_ptr(),
        p,
        out.data_ptr(),
        alpha.data_ptr(),
        weight.data_ptr(),
        torch.get_num_threads(),
    )
    return out, alpha, weight


def attention_backward(
    adj_t: Tensor,
    transpose: tuple[Tensor, Tensor, Tensor],
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    grad: Tensor,
    out: Tensor,
    alpha: Tensor,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The gradients of features and of both scores.

    Args:
        adj_t (torch.Tensor): As in :func:`attention`, as are the other arguments.
        transpose (tuple): The transposed matrix: where each of its rows starts, its columns, and
            the place of each of its values in the matrix (in 32 bits).
        grad (torch.Tensor): The gradient of the output.
    """
    crow, col, order = transpose
    grad_x, grad_src, grad_dst = map(torch.empty_like, (x, score_src, score_dst))
    grad_edge = torch.empty_like(alpha)
    _of(x).attention_backward(
        *_operands(adj_t, x, score_src, score_dst, negative_slope),
        crow.data_ptr(),
        col.data_ptr(),
        x.size(0),
        order.data_ptr(),
        grad.data_ptr(),
        out.data_ptr(),
        alpha.data_ptr(),
        weight.data_ptr(),
        grad_edge.data_ptr(),
        grad_x.data_ptr(),
        grad_src.data_ptr(),
        grad_dst.data_ptr(),
        torch.get_num_threads(),
    )
    return grad_x, grad_src, grad_dst


def pack_codes(weight: Tensor) -> Tensor:
    r"""Returns a ternary weight as the codes that native products read, four in a byte.

    Args:
        weight (torch.Tensor): The weight :math:`(N, K)`, in -1, 0 and 1.
    """
    assert _native is not None
    n, k = weight.shape
    weight = weight.to(torch.int8).contiguous()
    codes = torch.empty(-(-n // LANES) * -(-k // GROUP) * LINE, dtype=torch.uint8)
    _native.pack_codes(weight.data_ptr(), n, k, codes.data_ptr())
    return codes


def pack_numbers(weight: Tensor) -> Tensor:
    r"""Returns a weight of 32-bit numbers in the order in which native products read it.

    Args:
        weight (torch.Tensor): The weight :math:`(N, K)`.
    """
    assert _native is not None
    n, k = weight.shape
    weight = weight.float().contiguous()
    packed = torch.empty(-(-n // LANES) * LANES * k)
    _native.pack_numbers(weight.data_ptr(), n, k, packed.data_ptr())
    return packed


def product(x: Tensor, weight: Tensor) -> Tensor:
    r"""Multiplies rows of 32 bits by the transpose of a weight.

    Args:
        x (torch.Tensor): The rows.
        weight (torch.Tensor): The weight.

    Shapes:
        - **x:** :math:`(M, K)`
        - **weight:** :math:`(N, K)`
        - **output:** :math:`(M, N)`
    """
    return _product(x, weight.shape, numbers=pack_numbers(weight))


def ternary_product(
    x: Tensor, weight: Tensor, scale: Tensor, low: float, high: float, eps: float
) -> Tensor:
    r"""Quantizes rows of 32 bits to integers of at most 8, and multiplies them by the transpose of
    a ternary weight: :math:`(\mathbf{x}_q \mathbf{W}_q^{\top}) \, s_x \, s_w`.

    Args:
        x (torch.Tensor): The rows.
        weight (torch.Tensor): The weight, in -1, 0 and 1.
        scale (torch.Tensor): The scale of the weight, one number or one a row of it.
        low (float): The smallest integer of a row.
        high (float): The largest.
        eps (float): The smallest scale of a row.

    Shapes:
        - **x:** :math:`(M, K)`
        - **weight:** :math:`(N, K)`
        - **output:** :math:`(M, N)`
    """
    scale = scale.float().view(-1).expand(weight.size(0)).contiguous()
    return _product(
        x, weight.shape, hold=INT8, high=-low, top=high, eps=eps, codes=pack_codes(weight),
        scale=scale,
    )  # fmt: skip


def integer_product(x_q: Tensor, weight: Tensor) -> Tensor:
    r"""Multiplies rows of integers of at most 8 bits, held as numbers of 32, by the transpose of a
    ternary weight, exactly.

    Args:
        x_q (torch.Tensor): The integers.
        weight (torch.Tensor): The weight, in -1, 0 and 1.

    Shapes:
        As in :func:`product`.
    """
    # A scale that is at least 1, and not more for any integer: they stay what they are.
    return ternary_product(x_q, weight, torch.ones(1), low=-1e6, high=127.0, eps=1.0)


def _product(x: Tensor, shape: torch.Size, **how: Any) -> Tensor:
    """What the engine's smallest program makes of rows: one term of one stage."""
    assert _native is not None
    x = x.contiguous()
    out = torch.empty(x.size(0), shape[0])
    engine, stage, term = _native.Engine(), _native.Stage(), _native.Term()
    term.n, term.k = shape
    term.value = engine.add_value(NUMBERS, x.size(1), GIVEN, 0)
    for name, value in how.items():
        setattr(term, name, value.data_ptr() if isinstance(value, Tensor) else value)
    stage.terms, stage.width = [term], shape[0]
    stage.numbers = engine.add_value(NUMBERS, shape[0], WANTED, 0)
    engine.add_pass([stage], 0)
    engine.run([x.data_ptr()], [], [out.data_ptr()], [x.size(0)], torch.get_num_threads())
    return out


def weight_gradient(
    x: Tensor, grad: Tensor, bounds: tuple[float, float, float] | None = None
) -> Tensor:
    r"""Returns :math:`\mathbf{G}^{\top} \mathbf{X}`, the gradient of a linear layer's weight.

    Args:
        x (torch.Tensor): The rows, of 32 bits.
        grad (torch.Tensor): The gradient of the output.
        bounds (tuple, optional): If given, rows are quantized first, to integers from the first
            to the second of these numbers, with scales of at least the third, and stand for
            :math:`\mathbf{x}_q \, s_x`. (default: :obj:`None`)

    Shapes:
        - **x:** :math:`(M, K)`
        - **grad:** :math:`(M, N)`
        - **output:** :math:`(N, K)`
    """
    assert _native is not None
    x, grad = x.contiguous(), grad.contiguous()
    (rows, k), n = x.shape, grad.size(1)
    low, high, eps = bounds or (0.0, 0.0, 0.0)
    out, room = torch.empty(n, k), torch.empty(_native.gradient_room(n, k))
    addresses = room.data_ptr(), out.data_ptr()
    _native.weight_gradient(
        x.data_ptr(), grad.data_ptr(), rows, n, k, -low, high, eps, *addresses,
        torch.get_num_threads(),
    )  # fmt: skip
    return out


def _operands(
    adj_t: Tensor, x: Tensor, score_src: Tensor, score_dst: Tensor, negative_slope: float
) -> tuple[int | float, ...]:
    """What the passes of attention have in common."""
    matrix = adj_t.crow_indices().data_ptr(), adj_t.col_indices().data_ptr(), adj_t.size(0)
    tensors = x.data_ptr(), score_src.data_ptr(), score_dst.data_ptr()
    return *matrix, *x.shape[1:], *tensors, negative_slope


def _of(x: Tensor) -> ModuleType:
    assert _native is not None
    kernels = _native.f32 if x.dtype == torch.float32 else _native.f64
    assert isinstance(kernels, ModuleType)
    return kernels
