import numpy as np
import torch
from torch import Tensor

from bitgnn import quant
from bitgnn.kernels import native
from bitgnn.quant import QuantConfig


def quantize_weight(
    weight: Tensor,
    config: QuantConfig,
    training: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""The :func:`bitgnn.quant.quantize_weight` that has NumPy find medians on a CPU, which takes a
    tenth of torch's time where the processor has wide vectors: the same numbers.

    Args:
        weight (torch.Tensor): The latent weight.
        config (QuantConfig): Measure, granularity, bits and rounding.
        training (bool, optional): Whether stochastic rounding applies. (default: :obj:`False`)

    Shapes:
        As in :func:`bitgnn.quant.quantize_weight`.
    """
    median = None
    if config.weight_measure == "absmedian" and weight.numel() > 0 and native.is_plain(weight):
        median = _abs_median(weight.detach(), config.granularity == "channel")
    return quant.quantize_weight(weight, config, training, median)


def _abs_median(weight: Tensor, by_row: bool) -> Tensor:
    size = np.abs(weight.numpy())
    size = size if by_row else size.reshape(1, -1)
    if np.isnan(size.max()):  # NumPy would sort it to the end.
        size[np.isnan(size).any(axis=1)] = np.nan
    middle = (size.shape[1] - 1) // 2
    median = torch.from_numpy(np.partition(size, middle, axis=1)[:, middle])
    return median.unsqueeze(1) if by_row else median.squeeze(0)
