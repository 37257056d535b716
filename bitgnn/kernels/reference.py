"""The operators in plain torch, as their formulas read: what every faster form must equal."""

import torch
import torch.nn.functional as F
from torch import Tensor


def quantized_linear(
    x_q: Tensor,
    x_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    rescale_bias: bool = False,
) -> Tensor:
    r"""Multiplies quantized rows by quantized weights,

    .. math::
        \mathbf{y} = (\mathbf{x}_q \mathbf{W}_q^{\top}) \, s_x \, s_w + \mathbf{b}.

    The product of integers below :math:`2^{24}` is exact in 32-bit floating
    point: for ternary weights up to 132,104 input channels.

    Args:
        x_q (torch.Tensor): The integers of the rows.
        x_scale (torch.Tensor): The scale of each row.
        weight_q (torch.Tensor): The integers of the weight.
        weight_scale (torch.Tensor): The scale of the weight.
        bias (torch.Tensor, optional): The bias. (default: :obj:`None`)
        rescale_bias (bool, optional): If set to :obj:`True`, adds the bias
            before the rescale. (default: :obj:`False`)

    Shapes:
        - **x_q:** :math:`(*, F_{in})`
        - **x_scale:** :math:`(*, 1)`
        - **weight_q:** :math:`(F_{out}, F_{in})`
        - **weight_scale:** :math:`()` or :math:`(F_{out}, 1)`
        - **bias:** :math:`(F_{out})`
        - **output:** :math:`(*, F_{out})`
    """
    out = x_q @ weight_q.t()
    if bias is not None and rescale_bias:
        out = out + bias
    out = out * x_scale * weight_scale.view(-1)
    if bias is not None and not rescale_bias:
        out = out + bias
    return out


def attention(
    crow: Tensor,
    col: Tensor,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    p: float,
    noise: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Aggregates neighbors by attention, as :func:`bitgnn.kernels.graph_attention` has it.

    Args:
        crow (torch.Tensor): Where the edges of each target start, and their number.
        col (torch.Tensor): The source of each edge.
        x (torch.Tensor): The features of each source and head.
        score_src (torch.Tensor): The score of each source and head.
        score_dst (torch.Tensor): The score of each target and head.
        negative_slope (float): The slope of LeakyReLU below zero.
        p (float): The dropout of attention coefficients.
        noise (torch.Tensor or None): A number from :math:`[0, 1)` for each edge and head, where
            there is dropout.

    Shapes:
        - **crow, col:** :math:`(N + 1)` and :math:`(E)`
        - **x:** :math:`(M, H, C)`
        - **score_src, score_dst:** :math:`(M, H)` and :math:`(N, H)`
        - **noise:** :math:`(E, H)`
        - **outputs:** :math:`(N, H, C)`, and the coefficients :math:`(E, H)` without and with
          dropout
    """
    row = _targets(crow, col)
    score = F.leaky_relu(score_src[col] + score_dst[row], negative_slope)
    index = row.view(-1, 1).expand_as(score)
    lowest = torch.full_like(score_dst, float("-inf"))
    largest = lowest.scatter_reduce(0, index, score.detach(), "amax")
    power = (score - largest[row]).exp()
    alpha = power / torch.zeros_like(score_dst).index_add(0, row, power)[row]
    weight = alpha if noise is None else alpha * (noise >= p) / (1.0 - p)
    out = x.new_zeros(score_dst.size(0), *x.shape[1:])
    return out.index_add(0, row, weight.unsqueeze(-1) * x[col]), alpha, weight


def attention_backward(
    crow: Tensor,
    col: Tensor,
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
        crow (torch.Tensor): As in :func:`attention`, as are the other arguments.
        grad (torch.Tensor): The gradient of the output.
    """
    row = _targets(crow, col)
    inner = (grad * out).sum(dim=-1)
    of_edge = weight * (grad[row] * x[col]).sum(dim=-1) - alpha * inner[row]
    of_edge = torch.where(score_src[col] + score_dst[row] > 0, 1.0, negative_slope) * of_edge
    grad_x = torch.zeros_like(x).index_add_(0, col, weight.unsqueeze(-1) * grad[row])
    grad_src = torch.zeros_like(score_src).index_add_(0, col, of_edge)
    return grad_x, grad_src, torch.zeros_like(score_dst).index_add_(0, row, of_edge)


def _targets(crow: Tensor, col: Tensor) -> Tensor:
    nodes = torch.arange(crow.numel() - 1)
    return torch.repeat_interleave(nodes, crow.diff(), output_size=col.numel())
