from collections.abc import Iterator

from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import UninitializedParameter

from bitgnn.checks.finding import Finding
from bitgnn.nn.hetero_linear import BitHeteroLinear
from bitgnn.nn.linear import BitLinear
from bitgnn.nn.parameters import parameter_share, percent
from bitgnn.nn.twin import is_ternary
from bitgnn.quant import QuantConfig, quantize_weight

# Weights of any one bell curve have a third of zeros.
MANY_ZEROS = 0.95
MANY_SILENT = 0.1
MANY_IN_32_BITS = 0.1
LARGE = (
    "others are so large that they set the scale. Use granularity='channel', or weights of one "
    "scale"
)


def check_weights(model: Module) -> Iterator[Finding]:
    r"""Checks the weights of a model.

    Args:
        model (torch.nn.Module): The model.
    """
    for name, parameter in model.named_parameters():
        if _has_values(parameter) and not parameter.isfinite().all():
            yield Finding("nonfinite", name, "NaN or infinite values, and so all outputs")
    for name, layer in model.named_modules():
        if not is_ternary(layer) or layer.quant is None or not layer.quant.ternary:
            continue
        if _has_values(layer.weight) and layer.weight.isfinite().all():
            yield from _check_zeros(layer, layer.quant, name)
    share = parameter_share(model)
    if share.quantized == 0:
        yield Finding("32-bit", "", "No layer is quantized: `bitgnn.convert` does that")
    elif not share.lazy and share.total - share.quantized >= MANY_IN_32_BITS * share.total:
        yield Finding("32-bit", "", str(share))


def _check_zeros(
    layer: BitLinear | BitHeteroLinear, config: QuantConfig, name: str
) -> Iterator[Finding]:
    if isinstance(layer, BitLinear):
        matrices = [layer.ternary()]
    else:  # A heterogeneous layer has a matrix for each type.
        matrices = [quantize_weight(weight.t(), config) for weight in layer.weight]
    total = sum(matrix.numel() for matrix, _ in matrices)
    outputs = sum(matrix.size(0) for matrix, _ in matrices)
    zeros, silent = _count([matrix == 0 for matrix, _ in matrices])
    if zeros >= MANY_ZEROS * total or silent >= MANY_SILENT * outputs:
        # Where the scale is eps, no weight has set it.
        at_eps = _count([(matrix == 0) & (scale <= config.eps) for matrix, scale in matrices])
        is_small = 2 * at_eps[0] > zeros or 2 * at_eps[1] > silent
        cause = _too_small(layer, config) if is_small else LARGE
        yield Finding(
            "weights",
            name,
            f"{percent(zeros, total)} of its weights are 0 in ternary, all of them in {silent} of "
            f"{outputs} outputs: {cause}",
        )


def _count(zeros: list[Tensor]) -> tuple[int, int]:
    """The number of zeros, and of outputs that have nothing else."""
    return sum(int(each.sum()) for each in zeros), sum(int(each.all(dim=1).sum()) for each in zeros)


def _too_small(layer: BitLinear | BitHeteroLinear, config: QuantConfig) -> str:
    if not layer.weight.any():
        return "all of them are 0. Initialize the layer again, `reset_parameters()`"
    return (
        f"they are so small that eps={config.eps:g}, the smallest scale, rounds them to 0. Use "
        "larger weights, such as of `reset_parameters()`, or a smaller eps"
    )


def _has_values(parameter: Tensor) -> bool:
    return not isinstance(parameter, UninitializedParameter) and not parameter.is_meta
