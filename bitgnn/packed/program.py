r"""A packed model as data: a list of steps, each of which makes one value of earlier ones.

Value 0 is the features of the nodes, value :math:`i` what step :math:`i` makes, and the last value
the output. Where there are several types of nodes, value 0 is the features of all types, and the
output may be the values of several. There is one kind of step for each thing that a model does:

============== ========================================================= ======================
op             what it makes                                             attributes
============== ========================================================= ======================
``quantize``   integer rows :math:`\mathbf{x}_q` and their scales        bits, full_range, eps
``linear``     :math:`(\mathbf{x} \mathbf{W}^{\top}) \, s_x s_w +        bits, rescale_bias
               \mathbf{b}`, of integer or 32-bit rows
``aggregate``  the weighted sum, mean or maximum over incoming edges     reduce, edges
``attend``     GAT's attention over incoming edges                       heads, concat, slope,
                                                                         edges
``affine``     :math:`\mathbf{a} \odot \mathbf{x} + \mathbf{b}`
``layer_norm`` layer normalization of each row, or of the whole graph     over, eps
``unit``       rows of Euclidean length one
``act``        an activation function                                    kind and its parameters
``add``        the sum of two values
``cat``        several values beside each other
``maximum``    the largest of several values, one by one
``pick``       the features of one type of nodes                         nodes
``collect``    the values of several types of nodes, by type             nodes
============== ========================================================= ======================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

Relation = tuple[str, str, str]  # a type of edges, as PyG names it: source, name, target


@dataclass(frozen=True)
class Edges:
    r"""What a layer makes of the edges before it sums over them.

    Args:
        norm (str, optional): :obj:`"gcn"` weights an edge with
            :math:`1 / \sqrt{\hat{d}_i \hat{d}_j}`, :obj:`None` leaves weights as they are.
            (default: :obj:`None`)
        self_loops (bool, optional): Whether each node gets an edge to itself.
            (default: :obj:`False`)
        fill (float, optional): The weight of that edge. (default: :obj:`1.0`)
        weighted (bool, optional): Whether the weights of edges count.
            (default: :obj:`False`)
        relation (tuple, optional): The type of the edges. (default: :obj:`None`, there is one)
    """

    norm: str | None = None
    self_loops: bool = False
    fill: float = 1.0
    weighted: bool = False
    relation: Relation | None = None


@dataclass(frozen=True, eq=False)
class Step:
    r"""One step of a program.

    Args:
        op (str): One of those above.
        inputs (tuple): The values that it reads.
        name (str, optional): The layer that it comes from, by its name in the model.
            (default: :obj:`""`)
        attrs (dict, optional): What it does, as plain values. (default: none)
        tensors (dict, optional): Its parameters; ternary and other integer weights as integers.
            (default: none)
        edges (Edges, optional): The edges that it reads. (default: :obj:`None`)
    """

    op: str
    inputs: tuple[int, ...]
    name: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    edges: Edges | None = None

    def replace(self, **changes: Any) -> "Step":
        """Returns a copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, eq=False)
class Program:
    r"""What a packed model does.

    Args:
        steps (tuple): The steps, in their order.
    """

    steps: tuple[Step, ...]

    @cached_property
    def edge_steps(self) -> list[Step]:
        """The steps that read edges."""
        return [step for step in self.steps if step.edges is not None]

    @property
    def reads_edges(self) -> bool:
        """Whether it needs a graph."""
        return bool(self.edge_steps)

    @cached_property
    def node_types(self) -> list[str]:
        """The types of nodes whose features it reads, if it knows types."""
        return sorted({step.attrs["nodes"] for step in self.steps if step.op == "pick"})

    @cached_property
    def is_hetero(self) -> bool:
        """Whether it knows several types of nodes."""
        return bool(self.node_types)

    @property
    def reads_weights(self) -> bool:
        """Whether weights of edges have a part in it."""
        return any(step.edges is not None and step.edges.weighted for step in self.steps)


def types(steps: Sequence[Step]) -> list[str]:
    r"""Returns for each value, that of the features first, the type of the nodes whose rows it is;
    no name where there is one type.

    Args:
        steps (list): The steps.

    Raises:
        ValueError: If a step reads rows of nodes of another type than its edges, or of several.
    """
    found = [""]
    for step in steps:
        read = sorted({found[value] for value in step.inputs})
        if step.op == "pick":
            found.append(step.attrs["nodes"])
            continue
        relation = None if step.edges is None else step.edges.relation
        wanted = read[:1] if relation is None else [relation[0]]
        if read != wanted and step.op != "collect":
            raise ValueError(
                f"'{step.name or step.op}' reads nodes of types {read}"
                + ("" if relation is None else f" over edges of type {relation}")
            )
        found.append(read[0] if relation is None else relation[-1])
    return found


def readers(steps: Sequence[Step]) -> list[list[int]]:
    """Returns for each value, that of the features first, the steps that read it.

    Args:
        steps (list): The steps.
    """
    found: list[list[int]] = [[] for _ in range(len(steps) + 1)]
    for place, step in enumerate(steps):
        for value in step.inputs:
            found[value].append(place)
    return found
