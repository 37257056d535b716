"""The native kernels of products: of ternary weights, of numbers, and for gradients of weights."""

from typing import Any

import torch
from torch import Tensor

from bitgnn.kernels import native

LINE, LANES, GROUP = 64, 16, 16  # bytes of a cache line, numbers of a vector, values of codes
NUMBERS, INT8, INT16, SPARSE = 0, 1, 2, 3  # forms of rows, in the engine
OWN, GIVEN, WANTED = 0, 1, 2  # whose memory a value has: the engine's, or a caller's
MANY = 2**20  # numbers of rows; a library multiplies fewer as fast


def pays(x: Tensor) -> bool:
    """Whether the operator :func:`bitgnn.kernels.ops.product` is the faster product of rows.

    Args:
        x (torch.Tensor): The rows.
    """
    if torch.compiler.is_compiling():
        return native.takes(x) and native.exceeds(x, MANY)
    return x.numel() > MANY and native.takes(x)


def multiplies(x: Tensor, weight: Tensor) -> bool:
    """Whether native products are the faster ones: of many rows of 32 bits.

    Args:
        x (torch.Tensor): The rows.
        weight (torch.Tensor): The weight.
    """
    # What is compiled calls operators instead, whose number of rows may be symbolic.
    if torch.compiler.is_compiling():
        return False
    many = x.dtype == torch.float32 and x.numel() > MANY and weight.numel() > 0
    return many and native.applies(x, weight)


def pack_codes(weight: Tensor) -> Tensor:
    r"""Returns a ternary weight as the codes that native products read, four in a byte.

    Args:
        weight (torch.Tensor): The weight :math:`(N, K)`, in -1, 0 and 1.
    """
    n, k = weight.shape
    weight = weight.to(torch.int8).contiguous()
    codes = weight.new_empty(-(-n // LANES) * -(-k // GROUP) * LINE, dtype=torch.uint8)
    native.library().pack_codes(native.span(weight), n, k, native.span(codes))
    return codes


def pack_numbers(weight: Tensor) -> Tensor:
    r"""Returns a weight of 32-bit numbers in the order in which native products read it.

    Args:
        weight (torch.Tensor): The weight :math:`(N, K)`.
    """
    n, k = weight.shape
    weight = weight.float().contiguous()
    packed = weight.new_empty(-(-n // LANES) * LANES * k)
    native.library().pack_numbers(native.span(weight), n, k, native.span(packed))
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
    return ternary_product(x_q, weight, x_q.new_ones(1), low=-1e6, high=127.0, eps=1.0)


def _product(x: Tensor, shape: torch.Size, **how: Any) -> Tensor:
    """What the engine's smallest program makes of rows: one term of one stage."""
    library, x = native.library(), x.contiguous()
    out = x.new_empty(x.size(0), shape[0])
    engine, stage, term = library.Engine(), library.Stage(), library.Term()
    term.n, term.k = shape
    term.value = engine.add_value(NUMBERS, x.size(1), GIVEN, 0)
    for name, value in how.items():
        setattr(term, name, value)
    stage.terms, stage.width = [term], shape[0]
    stage.numbers = engine.add_value(NUMBERS, shape[0], WANTED, 0)
    engine.add_pass([stage], 0)
    threads = torch.get_num_threads()
    engine.run([native.span(x)], [], [native.span(out)], [x.size(0)], threads)
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
    library, x, grad = native.library(), x.contiguous(), grad.contiguous()
    (rows, k), n = x.shape, grad.size(1)
    low, high, eps = bounds or (0.0, 0.0, 0.0)
    out, room = x.new_empty(n, k), x.new_empty(library.gradient_room(n, k))
    library.weight_gradient(
        native.span(x), native.span(grad), rows, n, k, -low, high, eps, native.span(room),
        native.span(out), torch.get_num_threads(),
    )  # fmt: skip
    return out
