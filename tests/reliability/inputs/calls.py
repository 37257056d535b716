"""Bad inputs to packed models and graphs."""

import torch

from bitgnn import pack
from bitgnn.nn import BitLinear
from tests.reliability.bad_input import BadInput

BAD_INPUTS = [
    BadInput(
        "pack(model)(x)",
        "features of another width",
        lambda folder: pack(BitLinear(4, 2))(torch.ones(3, 5)),
        ValueError,
        "it takes 4",
    ),
]
