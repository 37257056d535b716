r"""What 1.58 bits are: quantizers, the straight-through estimator, schedules.

Notation, here and everywhere in bitgnn: :math:`\mathbf{W}` is the latent
weight, :math:`\mathbf{W}_q` its integers and :math:`s_w` its scale;
:math:`\mathbf{x}`, :math:`\mathbf{x}_q` and :math:`s_x` are the same of the
activations, with one scale a row; :math:`\lambda` is the strength.
"""

from bitgnn.quant.activation import dequantize_rows, quantize_rows, round_rows
from bitgnn.quant.config import PRESETS, Quant, QuantConfig, resolve_quant
from bitgnn.quant.schedule import StrengthSchedule
from bitgnn.quant.straight_through import straight_through
from bitgnn.quant.weight import quantize_weight, weight_scale

__all__ = [
    "PRESETS",
    "Quant",
    "QuantConfig",
    "StrengthSchedule",
    "dequantize_rows",
    "quantize_rows",
    "quantize_weight",
    "resolve_quant",
    "round_rows",
    "straight_through",
    "weight_scale",
]
