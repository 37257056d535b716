"""Bad graphs, features and places of outputs."""

import functools
import warnings
from pathlib import Path

import numpy as np
import torch

from bitgnn import pack, prepare
from bitgnn.nn import BitGATConv, BitGCNConv, BitLinear, BitSAGEConv
from tests.reliability.bad_input import BadInput

CALL = "pack(model)(x, edge_index)"
EDGES, X = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.eye(3)
WEIGHTS = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


@functools.cache
def _packed(conv=BitGCNConv):
    return pack(conv(3, 2))


def _prepare(where, given, error, says, *args, **kwargs):
    return BadInput(where, given, lambda folder: prepare(*args, **kwargs), error, says)


def _call(given, error, says, call):
    return BadInput(CALL, given, lambda folder: call(), error, says)


def _csr(crow, col, size=(3, 3)):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.sparse_csr_tensor(
            torch.tensor(crow), torch.tensor(col), torch.ones(len(col)), size,
            check_invariants=False,
        )  # fmt: skip


def _coo(indices, size=(3, 3)):
    values = torch.ones(len(indices[0]))
    return torch.sparse_coo_tensor(torch.tensor(indices), values, size, check_invariants=False)


def _read_only(folder: Path):
    np.zeros((3, 2), np.float32).tofile(folder / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = torch.from_numpy(np.memmap(folder / "out", np.float32, "r", shape=(3, 2)))
    return _packed()(X, EDGES, out=out)


def _overlapping():
    both = torch.zeros(9)
    return _packed()(both.view(3, 3), EDGES, out=both[:6].view(3, 2))


class _Named(torch.nn.Module):
    """A model whose forward calls the weights of edges `edge_attr`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = BitGCNConv(3, 2)

    def forward(self, x, edge_index, edge_attr=None):
        return self.conv(x, edge_index, edge_attr)


PREPARE = "prepare(edge_index, num_nodes)"
HETERO = "prepare(edge_index_dict, num_nodes)"
RELATION = ("a", "to", "b")

BAD_INPUTS = [
    _prepare(PREPARE, "a number of nodes with a fraction", TypeError, "got 12.9", EDGES, 12.9),
    _prepare(PREPARE, "a number of nodes as text", TypeError, "got '12'", EDGES, "12"),
    _prepare(PREPARE, "a truth value as number of nodes", TypeError, "got True", EDGES, True),
    _prepare(
        PREPARE,
        "a boolean tensor as number of nodes",
        TypeError,
        "got tensor(True)",
        EDGES,
        torch.tensor(True),
    ),
    _prepare(PREPARE, "a negative number of nodes", ValueError, "got -1", EDGES, -1),
    _prepare(PREPARE, "more nodes than 32 bits count", ValueError, "2147483647", EDGES, 2**31),
    _prepare(PREPARE, "fewer nodes than edges have", ValueError, "num_nodes=2", EDGES, 2),
    _prepare(PREPARE, "a negative node", ValueError, "counted from 0", EDGES - 1, 3),
    _prepare(PREPARE, "a node of 2^40", ValueError, "num_nodes=3", EDGES + 2**40, 3),
    _prepare(PREPARE, "edges of floating point", ValueError, "torch.float32", EDGES.float(), 3),
    _prepare(PREPARE, "complex edges", ValueError, "torch.complex64", EDGES.cfloat(), 3),
    _prepare(PREPARE, "boolean edges", ValueError, "torch.bool", EDGES.bool(), 3),
    _prepare(PREPARE, "edges in rows", ValueError, "(3, 2)", EDGES.t(), 3),
    _prepare(PREPARE, "edges as a list", TypeError, "got list", [[0, 1], [1, 2]], 3),
    _prepare(PREPARE, "edges without data (meta)", ValueError, "'meta'", EDGES.to("meta"), 3),
    _prepare(PREPARE, "a dense adjacency matrix", ValueError, "must hold integers", WEIGHTS, 3),
    _prepare(
        PREPARE,
        "a matrix that is not square",
        ValueError,
        "(2, 3)",
        _csr([0, 1, 2], [1, 2], (2, 3)),
    ),
    _prepare(
        PREPARE, "a matrix of fewer nodes", ValueError, "(3, 3)", _csr([0, 1, 2, 3], [1, 2, 0]), 4
    ),
    _prepare(
        PREPARE, "CSR with a column beyond", ValueError, "columns", _csr([0, 1, 2, 3], [1, 3, 0]), 3
    ),
    _prepare(
        PREPARE,
        "CSR with rows that descend",
        ValueError,
        "ascending",
        _csr([0, 3, 1, 3], [1, 2, 0]),
        3,
    ),
    _prepare(
        PREPARE,
        "CSR with rows beyond its values",
        ValueError,
        "ascending",
        _csr([0, 1, 2, 9], [1, 2, 0]),
        3,
    ),
    _prepare(PREPARE, "COO with a row beyond", ValueError, "indices", _coo([[0, 9], [1, 2]]), 3),
    _prepare(PREPARE, "one weight for three edges", ValueError, "(1,)", EDGES, 3, torch.ones(1)),
    _prepare(PREPARE, "complex weights", ValueError, "complex64", EDGES, 3, torch.ones(3).cfloat()),
    _prepare(
        PREPARE,
        "weights beside a matrix",
        ValueError,
        "leave",
        WEIGHTS.to_sparse(),
        3,
        torch.ones(3),
    ),
    _prepare(HETERO, "a type of edges as text", TypeError, "got 'to'", {"to": EDGES}),
    _prepare(HETERO, "a type of edges of two names", TypeError, "('a', 'b')", {("a", "b"): EDGES}),
    _prepare(
        HETERO, "nodes of one type only", ValueError, "('a', 'b')", {RELATION: EDGES}, {"a": 3}
    ),
    _prepare(HETERO, "one number for all types", TypeError, "got int", {RELATION: EDGES}, 3),
    _prepare(
        HETERO,
        "a number with a fraction",
        TypeError,
        "num_nodes['b']",
        {RELATION: EDGES},
        {"a": 3, "b": 1.5},
    ),
    _call(
        "features without data (meta)", ValueError, "'meta'", lambda: _packed()(X.to("meta"), EDGES)
    ),
    _call("complex features", ValueError, "complex64", lambda: _packed()(X.cfloat(), EDGES)),
    _call("features as a list", TypeError, "got list", lambda: _packed()([[1.0]], EDGES)),
    _call(
        "CSR features with a column beyond",
        ValueError,
        "columns",
        lambda: _packed()(_csr([0, 1, 2, 3], [1, 3, 0]), EDGES),
    ),
    _call(
        "COO features with a row beyond",
        ValueError,
        "indices",
        lambda: _packed()(_coo([[0, 9], [1, 2]]), EDGES),
    ),
    _call(
        "features in torch.func.vmap",
        TypeError,
        "torch.func",
        lambda: torch.func.vmap(lambda x: _packed()(x, EDGES))(X[None]),
    ),
    _call(
        "weights where no layer reads them",
        ValueError,
        "edge_weight",
        lambda: _packed(BitSAGEConv)(X, EDGES, torch.ones(3)),
    ),
    _call(
        "weights that its forward calls edge_attr",
        ValueError,
        "rename",
        lambda: pack(_Named().eval())(X, EDGES, torch.ones(3)),
    ),
    _call(
        "edges that the model does not read",
        ValueError,
        "leave 'edge_index'",
        lambda: _packed(BitLinear)(X, EDGES),
    ),
    _call(
        "weights without a graph",
        ValueError,
        "reads no edges",
        lambda: _packed(BitLinear)(X, None, torch.ones(3)),
    ),
    _call(
        "values of a matrix that attention does not read",
        ValueError,
        "not all 1",
        lambda: _packed(BitGATConv)(X, WEIGHTS.to_sparse()),
    ),
    BadInput(
        CALL + ", out=", "a file that is mapped for reading", _read_only, ValueError, "read-only"
    ),
    BadInput(
        CALL + ", out=",
        "the memory of the features",
        lambda folder: _overlapping(),
        ValueError,
        "shares memory",
    ),
    BadInput(
        "pack(model).to(device)",
        "another device",
        lambda folder: _packed().to("cuda"),
        ValueError,
        "cuda",
    ),
    BadInput(
        "pack(model).train()",
        "no argument, for training mode",
        lambda folder: _packed().train(),
        ValueError,
        "no weights to train",
    ),
]
