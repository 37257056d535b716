r"""The activation functions of packed models, in one fixed table for tracing, the native engine and
the reference. A file cannot name any other function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from bitgnn.packed.fields import Choice, Field, Number


@dataclass(frozen=True)
class Activation:
    r"""An activation function.

    Args:
        function (Callable): The function, of a value and the parameters by name.
        parameters (dict, optional): The values that each parameter may have. (default: none)
        defaults (dict, optional): The value of each parameter that a call leaves out.
            (default: none)
        native (int, optional): Its number in the native engine (:obj:`csrc/kernels.h`).
            (default: :obj:`None`, torch computes it)
    """

    function: Callable[..., Tensor]
    parameters: Mapping[str, Field] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    native: int | None = None


_SLOPE = Number(-1e30, 1e30)
_DIM = {"dim": Choice((None, -2, -1, 0, 1))}  # of a matrix

ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(F.relu, native=1),
    "leaky_relu": Activation(
        F.leaky_relu, {"negative_slope": _SLOPE}, {"negative_slope": 0.01}, native=2
    ),
    "elu": Activation(F.elu, {"alpha": _SLOPE}, {"alpha": 1.0}, native=3),
    "gelu": Activation(F.gelu, {"approximate": Choice(("none", "tanh"))}, {"approximate": "none"}),
    "silu": Activation(F.silu),
    "tanh": Activation(F.tanh),
    "sigmoid": Activation(F.sigmoid),
    "softmax": Activation(F.softmax, _DIM, {"dim": -1}),
    "log_softmax": Activation(F.log_softmax, _DIM, {"dim": -1}),
}
