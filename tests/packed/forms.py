"""Every form of a graph into every layer: whether packed equals trained, or refuses.

python -m tests.packed.forms    # the table for docs/packed.md
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATConv, GCNConv, SAGEConv, SGConv
from torch_geometric.typing import WITH_TORCH_SPARSE, SparseTensor

from bitgnn.nn import BitGATConv, BitGCNConv, BitGraphSAGE, BitSAGEConv, BitSGConv
from bitgnn.packed import pack, prepare

IN, OUT = 4, 3
EQUAL, REFUSED, NONE = "equal", "refused", "–"  # the last one: the trained model raises


class AdjT(nn.Module):
    """A model whose forward calls edges `adj_t`, and knows no weights beside them."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x, adj_t):
        return self.conv(x, adj_t)


class EdgeAttr(nn.Module):
    """A model whose forward calls weights `edge_attr`."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x, edge_index, edge_attr=None):
        return self.conv(x, edge_index, edge_attr)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "GCN": lambda: BitGCNConv(IN, OUT),
    "GCN, improved": lambda: BitGCNConv(IN, OUT, improved=True),
    "GCN, no self-loops added": lambda: BitGCNConv(IN, OUT, add_self_loops=False),
    "GCN, not normalized": lambda: BitGCNConv(IN, OUT, normalize=False),
    "GCN in `forward(x, adj_t)`": lambda: AdjT(BitGCNConv(IN, OUT)),
    "GCN in `forward(x, edge_index, edge_attr=None)`": lambda: EdgeAttr(BitGCNConv(IN, OUT)),
    "SGC": lambda: BitSGConv(IN, OUT, K=2),
    "SAGE, mean": lambda: BitSAGEConv(IN, OUT),
    "SAGE, sum": lambda: BitSAGEConv(IN, OUT, aggr="sum"),
    "SAGE, max": lambda: BitSAGEConv(IN, OUT, aggr="max"),
    "SAGE, two layers": lambda: BitGraphSAGE(IN, 5, 2, OUT),
    "GAT": lambda: BitGATConv(IN, OUT, heads=2),
    "GAT, no self-loops added": lambda: BitGATConv(IN, OUT, add_self_loops=False),
    "PyG's GCN": lambda: GCNConv(IN, OUT),
    "PyG's SGC": lambda: SGConv(IN, OUT, K=2),
    "PyG's SAGE, mean": lambda: SAGEConv(IN, OUT),
    "PyG's SAGE, max": lambda: SAGEConv(IN, OUT, aggr="max"),
    "PyG's GAT": lambda: GATConv(IN, OUT, heads=2),
}


def _ones(weight: Tensor) -> Tensor:
    return torch.ones_like(weight)


def _by_row(edges: Tensor, weight: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    order = torch.argsort(edges[1], stable=True)
    crow = torch.bincount(edges[1], minlength=size).cumsum(0)
    return torch.cat([crow.new_zeros(1), crow]), edges[0][order], weight[order]


def _csr(edges: Tensor, weight: Tensor, size: int) -> Tensor:
    """Edges as they are, of which several may have the same ends."""
    return torch.sparse_csr_tensor(*_by_row(edges, weight, size), (size, size))


def _csc(edges: Tensor, weight: Tensor, size: int) -> Tensor:
    return torch.sparse_csc_tensor(*_by_row(edges.flip(0), weight, size), (size, size))


def _coo(edges: Tensor, weight: Tensor, size: int) -> Tensor:
    return torch.sparse_coo_tensor(edges.flip(0), weight, (size, size))


def _edge_index(edges: Tensor, size: int) -> EdgeIndex:
    return EdgeIndex(edges.contiguous(), sparse_size=(size, size))


def _sparse_tensor(edges: Tensor, weight: Tensor | None, size: int) -> Any:
    source, target = edges
    return SparseTensor(row=target, col=source, value=weight, sparse_sizes=(size, size))


# What is passed for edges and weights.
FORMS: dict[str, Callable[[Tensor, Tensor, int], dict[str, Any]]] = {
    "edge_index": lambda e, w, n: {"edges": e},
    "edge_index, edge_weight": lambda e, w, n: {"edges": e, "edge_weight": w},
    "EdgeIndex": lambda e, w, n: {"edges": _edge_index(e, n)},
    "EdgeIndex, edge_weight": lambda e, w, n: {"edges": _edge_index(e, n), "edge_weight": w},
    "CSR of ones": lambda e, w, n: {"edges": _csr(e, _ones(w), n)},
    "CSR": lambda e, w, n: {"edges": _csr(e, w, n)},
    "CSC": lambda e, w, n: {"edges": _csc(e, w, n)},
    "COO": lambda e, w, n: {"edges": _coo(e, w, n)},
}
if WITH_TORCH_SPARSE:
    FORMS["SparseTensor"] = lambda e, w, n: {"edges": _sparse_tensor(e, None, n)}
    FORMS["SparseTensor with values"] = lambda e, w, n: {"edges": _sparse_tensor(e, w, n)}

# A graph with self-loops, a weight of 0, edges in no order, and a node without any; and one with
# some of its edges, a self-loop among them, several times.
EDGES = torch.tensor([[3, 0, 2, 1, 3, 4, 0, 1, 1], [1, 1, 2, 0, 3, 0, 3, 4, 2]])
WEIGHT = torch.tensor([0.5, 2.0, 0.25, 0.0, 1.25, 1.0, 0.75, 2.5, 0.5])
NODES = 6
DOUBLE_EDGES = torch.cat([EDGES, EDGES[:, 1:4]], dim=1)
DOUBLE_WEIGHT = torch.cat([WEIGHT, 2 * WEIGHT[1:4] + 1])
GRAPHS = {"once": (EDGES, WEIGHT), "some twice": (DOUBLE_EDGES, DOUBLE_WEIGHT)}


def trained(model: nn.Module, x: Tensor, edges: Any, edge_weight: Tensor | None = None) -> Tensor:
    """What a model returns; raises what it raises."""
    if edge_weight is None:
        return model(x, edges)
    if isinstance(model, EdgeAttr):
        return model(x, edges, edge_weight)
    return model(x, edges, edge_weight=edge_weight)


def outcome(model: nn.Module, form: str, edges: Tensor, weight: Tensor, x: Tensor) -> str:
    """What becomes of a graph in a form; fails if packed neither equals trained nor refuses."""
    # Each call gets a matrix of its own: PyG marks one that it was given as coalesced.
    arguments = lambda: FORMS[form](edges, weight, x.size(0))  # noqa: E731
    packed, drops = pack(model), False
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            expected = trained(model, x, **arguments())
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            expected = None
        try:
            given = arguments()
            drops = expected is None and "edge_weight" in given
            found = packed(x, given["edges"], given.get("edge_weight"), exact=True)
            given = arguments()
            graph = prepare(given["edges"], x.size(0), given.get("edge_weight"))
            again = packed(x, graph, exact=True)
        except ValueError as error:
            assert "weight" in str(error) or "value" in str(error), error
            return NONE if expected is None else REFUSED
    assert not drops, (form, "takes weights that the trained model does not")
    torch.testing.assert_close(again, found)
    if expected is None:
        return NONE
    # Where a number lies between two integers, another order of sums may round it to the other.
    error = (found - expected).abs() / expected.abs().max().clamp(min=1e-6)
    ternary = any("Bit" in type(module).__name__ for module in model.modules())
    assert error.max() < (0.02 if ternary else 1e-5), (form, found, expected)
    return EQUAL


def outcomes(edges: Tensor, weight: Tensor) -> dict[str, dict[str, str]]:
    """The outcome of each layer and form, on a graph of `NODES` nodes."""
    found: dict[str, dict[str, str]] = {}
    for name, build in LAYERS.items():
        torch.manual_seed(12)
        model, x = build().eval(), torch.randn(NODES, IN)
        found[name] = {form: outcome(model, form, edges, weight, x) for form in FORMS}
    return found


def table() -> str:
    """The outcomes as Markdown; where edges that are there twice make another one, both."""
    once, twice = (outcomes(*graph) for graph in GRAPHS.values())
    lines = [f"| | {' | '.join(FORMS)} |", "|---|" + "---|" * len(FORMS)]
    for name, row in once.items():
        both = [
            cell if cell == twice[name][form] else f"{cell}; {twice[name][form]} with double edges"
            for form, cell in row.items()
        ]
        lines.append(f"| {name} | {' | '.join(both)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
