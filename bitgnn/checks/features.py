from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.checks.finding import Finding, listed
from bitgnn.nn.parameters import percent
from bitgnn.quant import QuantConfig, dequantize_rows, quantize_rows

# A column whose rounding error has a tenth of its own variance: from about here on, ternary models
# learn less from it than 32-bit ones. One such column is no finding, a tenth of all columns is.
LOST = 0.1
MIN_LOST_COLUMNS = 0.1
MIN_SMALL_ROWS = 0.01


def check_features(
    x: Tensor, config: QuantConfig | None, where: str = "x", sampled: str = ""
) -> Iterator[Finding]:
    r"""Checks features that a layer receives.

    Args:
        x (torch.Tensor): The features.
        config (QuantConfig, optional): How the layer quantizes; :obj:`None` is full precision.
        where (str, optional): What the features are called. (default: :obj:`"x"`)
        sampled (str, optional): Of which sample numbers are. (default: :obj:`""`)

    Shapes:
        - **x:** :math:`(N, F)`
    """
    finite = x.isfinite()
    if not finite.all():
        rows = (~finite).any(dim=1)
        columns = (~finite).any(dim=0).nonzero().view(-1).tolist()
        share = percent(int(rows.sum()), rows.numel())
        yield Finding(
            "nonfinite",
            where,
            f"{share} of the rows{sampled} have NaN or infinite features, in column"
            f"{'s' if len(columns) > 1 else ''} {listed(columns)}: their outputs are NaN",
        )
        x = x[~rows]
    if config is None or config.activation_bits is None or x.numel() == 0:
        return
    if config.layer_norm:
        x = F.layer_norm(x, x.shape[-1:])
    yield from _constant(x, where, sampled)
    yield from _small(x, config, where, sampled)
    yield from _scale(x, config, where, sampled)


def _constant(x: Tensor, where: str, sampled: str) -> Iterator[Finding]:
    low, high = x.aminmax(dim=0)
    # A column of zeros takes no part in a row's scale.
    columns = ((low == high) & (low != 0)).nonzero().view(-1).tolist()
    if columns and x.size(0) > 1:
        which = "Column" if len(columns) == 1 else f"{len(columns)} columns,"
        yield Finding(
            "constant",
            where,
            f"{which} {listed(columns)} {'is' if len(columns) == 1 else 'are'} constant{sampled}: "
            "remove what takes up part of each row's scale and tells nothing",
        )


def _small(x: Tensor, config: QuantConfig, where: str, sampled: str) -> Iterator[Finding]:
    largest = x.abs().amax(dim=1)
    smallest = -config.eps * config.activation_range[0]
    small = (largest > 0) & (largest < smallest)
    if small.double().mean() >= MIN_SMALL_ROWS:
        yield Finding(
            "small",
            where,
            f"{percent(int(small.sum()), small.numel())} of the rows{sampled} have no value above "
            f"{smallest:.3g}, the smallest that keeps {config.activation_bits} bits "
            f"(eps={config.eps:g}): multiply the features by a constant",
        )


def _scale(x: Tensor, config: QuantConfig, where: str, sampled: str) -> Iterator[Finding]:
    variance = x.var(dim=0, correction=0)
    varies = variance > 0
    error = (dequantize_rows(*quantize_rows(x, config)) - x).square().mean(dim=0)
    lost = varies & (error >= LOST * variance)
    num_lost, num_columns = int(lost.sum()), int(varies.sum())
    if num_lost < max(1, MIN_LOST_COLUMNS * num_columns):
        return
    size = x.abs()
    largest, column = size.max(dim=1)
    rows_of = torch.bincount(column[largest > 0], minlength=x.size(1))
    first = int(rows_of.argmax())
    share = percent(int(rows_of[first]), int(rows_of.sum()))
    yield Finding(
        "scale",
        where,
        f"{num_lost} of {num_columns} columns lose a tenth of their variance or more when rows"
        f"{sampled} are rounded to {config.activation_bits} bits: column {first} sets the scale of "
        f"{share} of them with values up to {float(size[:, first].max()):.4g}, next to others of "
        f"at most {float(size[:, lost].amax(dim=0).median()):.4g} (median). Standardize columns, "
        "(x - x.mean(0)) / x.std(0), or leave out those that are no features",
    )
