from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.kernels import native_products, ops
from bitgnn.kernels.second_order import creates_graph, differentiable_gradients, stand_in
from bitgnn.kernels.sparse import sparse_product


def quantized_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    x_q: Tensor,
    x_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    rescale_bias: bool = False,
) -> Tensor:
    r"""The differentiable :func:`bitgnn.kernels.reference.quantized_linear`.

    The gradient passes straight through both quantizers, as if
    :math:`\mathbf{x}_q s_x` were :math:`\mathbf{x}` and :math:`\mathbf{W}_q
    s_w` were :math:`\mathbf{W}`:

    .. math::
        \nabla_{\mathbf{x}} = \nabla_{\mathbf{y}} \, (\mathbf{W}_q s_w), \quad
        \nabla_{\mathbf{W}} = (\nabla_{\mathbf{y}} \, s_x)^{\top} \mathbf{x}_q.

    Args:
        x (torch.Tensor): The rows before quantization; only its gradient is
            used.
        weight (torch.Tensor): The latent weight; only its gradient is used.
        bias (torch.Tensor or None): The bias.
        x_q (torch.Tensor): The integers of the rows, dense or a sparse matrix.
        x_scale (torch.Tensor): The scale of each row.
        weight_q (torch.Tensor): The integers of the weight.
        weight_scale (torch.Tensor): The scale of the weight.
        rescale_bias (bool, optional): If set to :obj:`True`, adds the bias
            before the rescale. (default: :obj:`False`)

    Shapes:
        As in :func:`bitgnn.kernels.reference.quantized_linear`.
    """
    if not torch.compiler.is_compiling() and x.requires_grad and weight.requires_grad:
        x = stand_in(x)
    return _QuantizedLinear.apply(
        x, weight, bias, x_q, x_scale, weight_q, weight_scale, rescale_bias
    )


class _QuantizedLinear(torch.autograd.Function):
    # The scales multiply the narrower side wherever one is free to choose: the
    # output in the forward pass, its gradient in the backward pass, never `x_q`.

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        x_q: Tensor,
        x_scale: Tensor,
        weight_q: Tensor,
        weight_scale: Tensor,
        rescale_bias: bool,
    ) -> Tensor:
        # Only second derivatives need the operands themselves, and only where both have one.
        twice = not torch.compiler.is_compiling() and all(ctx.needs_input_grad[:2])
        operands = (x, weight) if twice else (None, None)
        ctx.save_for_backward(*operands, x_q, x_scale, weight_q, weight_scale)
        ctx.sparse, ctx.rescale_bias = x_q.layout != torch.strided, rescale_bias
        out = (
            sparse_product(x_q, weight_q.t(), name="x") if ctx.sparse else _integers(x_q, weight_q)
        )
        return rescale_(out, x_scale, weight_scale, bias, rescale_bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, x_q, x_scale, weight_q, weight_scale = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if x is not None and creates_graph():
            if ctx.sparse:
                raise RuntimeError(
                    "Second derivatives of sparse features are not supported: make them dense, or "
                    "call backward without create_graph=True"
                )
            grad_x, grad_weight = differentiable_gradients(
                (True, True), grad, x, x_q * x_scale, weight, weight_q * weight_scale
            )
        else:
            if ctx.needs_input_grad[0]:
                grad_x = dense_linear(grad, (weight_q * weight_scale).t())
            if ctx.needs_input_grad[1]:
                scaled = flat(grad * x_scale)
                if ctx.sparse:
                    grad_weight = sparse_product(x_q, scaled, True, "x").t()
                elif native_products.multiplies(x_q, scaled) and not creates_graph():
                    grad_weight = native_products.weight_gradient(flat(x_q), scaled)
                else:
                    grad_weight = scaled.t() @ flat(x_q)
        if ctx.needs_input_grad[2]:
            grad_bias = bias_grad(grad, x_scale, weight_scale, ctx.rescale_bias)
        return grad_x, grad_weight, grad_bias, None, None, None, None, None


def dense_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""The :func:`torch.nn.functional.linear` that multiplies by native kernels, forward and
    backward, if these are faster.

    Args:
        x (torch.Tensor): The rows.
        weight (torch.Tensor): The weight.
        bias (torch.Tensor, optional): The bias. (default: :obj:`None`)

    Shapes:
        - **x:** :math:`(*, F_{in})`
        - **weight:** :math:`(F_{out}, F_{in})`
        - **output:** :math:`(*, F_{out})`
    """
    if not native_products.pays(x):
        return F.linear(x, weight, bias)
    out = ops.product(flat(x), weight).view(*x.shape[:-1], weight.size(0))
    return out if bias is None else out + bias


def _integers(x_q: Tensor, weight_q: Tensor) -> Tensor:
    """The product of integers; of ternary weights, native kernels take them as such."""
    if not native_products.multiplies(x_q, weight_q) or weight_q.abs().amax() > 1:
        return F.linear(x_q, weight_q)
    return native_products.integer_product(flat(x_q), weight_q).view(*x_q.shape[:-1], -1)


def rescale_(
    out: Tensor,
    x_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    rescale_bias: bool,
) -> Tensor:
    """Turns the product of integers into the output of the layer, in place."""
    if bias is not None and rescale_bias:
        out = out.add_(bias)
    out = out.mul_(x_scale).mul_(weight_scale.view(-1))
    if bias is not None and not rescale_bias:
        out = out.add_(bias)
    return out


def bias_grad(grad: Tensor, x_scale: Tensor, weight_scale: Tensor, rescale_bias: bool) -> Tensor:
    """The gradient of the bias, from that of the output."""
    if rescale_bias:
        grad = grad * x_scale * weight_scale.view(-1)
    return flat(grad).sum(dim=0)


def flat(rows: Tensor) -> Tensor:
    """Returns rows as a matrix."""
    return rows.unsqueeze(0) if rows.dim() == 1 else rows.flatten(end_dim=-2)
