"""The operators in plain torch, as their formulas read: what every faster form must equal."""

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
