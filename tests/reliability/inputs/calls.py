"""Bad inputs to packed models and graphs."""

import torch

from bitgnn import pack
from bitgnn.nn import BitGCNConv, BitLinear
from tests.reliability.bad_input import BadInput


def shrunk(rows, columns):
    x = torch.ones(rows, columns)
    x.untyped_storage().resize_(4 * columns)
    return x


def freed(layout, part):
    x = getattr(torch.eye(4), f"to_sparse_{layout}")()
    getattr(x, part)().untyped_storage().resize_(0)
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
        "CSR features whose columns were freed",
        lambda folder: pack(BitLinear(4, 2))(freed("csr", "col_indices")),
        ValueError,
        "'x' reaches beyond its storage",
    ),
    BadInput(
        "pack(model)(x, edge_index)",
        "a COO matrix whose indices were freed",
        lambda folder: pack(BitGCNConv(4, 2))(torch.eye(4), freed("coo", "indices")),
        ValueError,
        "'edge_index' reaches beyond its storage",
    ),
    BadInput(
        "BitLinear(x)",
        "CSR features whose values were freed",
        lambda folder: BitLinear(4, 2)(freed("csr", "values")),
        ValueError,
        "'x' reaches beyond its storage",
    ),
    BadInput(
        "pack(model)(x)",
        "features of another width",
        lambda folder: pack(BitLinear(4, 2))(torch.ones(3, 5)),
        ValueError,
        "it takes 4",
    ),
]
