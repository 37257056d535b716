"""Bad inputs to packed models and graphs."""

import torch

from bitgnn import pack
from bitgnn.nn import BitLinear
from tests.reliability.bad_input import BadInput


def shrunk(rows, columns):
    x = torch.ones(rows, columns)
    x.untyped_storage().resize_(4 * columns)
    return x


BAD_INPUTS = [
    BadInput(
        "pack(model)(x)",
        "features whose storage was made smaller",
        lambda folder: pack(BitLinear(4, 2))(shrunk(300, 4)),
        ValueError,
        "reaches beyond its storage",
    ),
    BadInput(
        "pack(model)(x, out=)",
        "an output whose storage was made smaller",
        lambda folder: pack(BitLinear(4, 2))(torch.ones(300, 4), out=shrunk(300, 2)),
        ValueError,
        "reaches beyond its storage",
    ),
    BadInput(
        "pack(model)(x)",
        "features of another width",
        lambda folder: pack(BitLinear(4, 2))(torch.ones(3, 5)),
        ValueError,
        "it takes 4",
    ),
]
