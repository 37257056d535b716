r"""From models of several types of nodes and edges to programs: those that
:func:`torch_geometric.nn.to_hetero` makes, and those of :class:`torch_geometric.nn.HeteroConv`."""

import operator
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import fx, nn

from bitgnn.packed.lower import RULES, Unsupported, lower
from bitgnn.packed.program import Program, Relation, types
from bitgnn.packed.trace import (
    Reader,
    cannot_be_packed,
    check_unaltered,
    graph_of,
    in_evaluation,
    writes,
)

AGGREGATIONS = ("sum", "mean", "max", "cat")
COMBINE = (torch.sum, torch.mean, torch.max)  # the values of several relations, in a stack


def trace_hetero(model: nn.Module, nodes: list[str], relations: list[Relation]) -> Program:
    r"""Returns what a model of several types of nodes does, in evaluation, as a program.

    Args:
        model (torch.nn.Module): A model of :obj:`x_dict` and :obj:`edge_index_dict`.
        nodes (list): The types of nodes.
        relations (list): The types of edges.

    Raises:
        ValueError: If a layer or function in it cannot be packed; the error names it.
    """
    for name, module in model.named_modules():
        if isinstance(module, pyg.MessagePassing) and type(module) not in RULES:
            raise cannot_be_packed(module, name)
        if isinstance(module, pyg.HeteroConv) and module.aggr not in AGGREGATIONS:
            raise Unsupported(
                f"'{name or 'HeteroConv'}' combines edges of several types with "
                f"aggr={module.aggr!r}: only {', '.join(map(repr, AGGREGATIONS))} can be packed"
            )
    check_unaltered(model)
    with in_evaluation(model):
        graph = graph_of(_Called(model, nodes, relations), type(model).__name__)
        for node in reversed(graph.nodes):
            if node.op == "call_module":
                node.target = str(node.target).removeprefix("model.")
            in_use = node.users or node.op in ("placeholder", "output") or writes(node, model)
            if not in_use:
                graph.erase_node(node)  # Such as what the last layer makes of other types.
        program = _HeteroReader(model, graph).program()
    types(program.steps)  # It mixes none.
    return program


def types_of(model: nn.Module) -> tuple[list[str], list[Relation]]:
    r"""Returns the types of nodes and edges that a model speaks of; none if it knows one type only.

    Args:
        model (torch.nn.Module): The model.
    """
    nodes: dict[str, None] = {}
    relations: dict[Relation, None] = {}
    for module in model.modules():
        if isinstance(module, pyg.HeteroConv):
            relations |= dict.fromkeys(module.convs.keys())
        elif isinstance(module, pyg.HeteroDictLinear):
            nodes |= dict.fromkeys(module.lins.keys())
        elif isinstance(module, (pyg.HGTConv, pyg.HANConv)):
            nodes |= dict.fromkeys(module.in_channels)
        elif isinstance(module, fx.GraphModule):  # What `to_hetero` makes takes them from dicts.
            keys = [node.args[1] for node in module.graph.nodes if _takes_a_type(node)]
            nodes |= dict.fromkeys(key for key in keys if isinstance(key, str))
            relations |= dict.fromkeys(key for key in keys if isinstance(key, tuple))
    nodes |= dict.fromkeys(kind for source, _, target in relations for kind in (source, target))
    return list(nodes), list(relations)


def _takes_a_type(node: fx.Node) -> bool:
    given = node.args[0] if node.op == "call_method" and node.target == "get" else None
    return isinstance(given, fx.Node) and getattr(given.target, "__name__", "") == "get_dict"


class _Called(nn.Module):
    """A model as it is called: with dicts, whose keys are known."""

    def __init__(self, model: nn.Module, nodes: list[str], relations: list[Relation]) -> None:
        super().__init__()
        self.model, self.nodes, self.relations = model, nodes, relations

    def forward(self, x: Any, edges: Any) -> Any:
        return self.model(
            {kind: x[kind] for kind in self.nodes},
            {relation: edges[relation] for relation in self.relations},
        )


class _Stack(list[int]):
    """Values that `HeteroConv` is about to combine."""


class _Sum(list[int]):
    """Values to be added, one after the other: `to_hetero` adds them in pairs of pairs."""


class _HeteroReader(Reader):
    """Reads calls with values of several types of nodes."""

    def _argument(self, node: fx.Node) -> Any:
        return str(node.target)  # "x" or "edges"; what is taken of them is read one by one.

    def _output(self, given: Any) -> int:
        if not isinstance(given, dict):
            return super()._output(given)
        values = [self._value(each, f"the output of '{kind}'") for kind, each in given.items()]
        return self.builder.emit("collect", *values, nodes=list(given))

    def _lower(self, layer: nn.Module, name: str, given: list[Any]) -> int | None:
        self.builder.relation = None
        if not isinstance(layer, pyg.MessagePassing):
            return lower(self.builder, layer, name, self._value(given[0], name))
        others = [self._known(each) for each in given[1:]]
        found = [each for each in others if each is not None]
        if len(found) != 1 or not isinstance(found[0], tuple):
            raise Unsupported(f"'{name}' must be called with features and edges of one type, alone")
        self.builder.relation = found[0]
        x = given[0]
        if isinstance(x, tuple):
            return lower(self.builder, layer, name, tuple(self._value(each, name) for each in x))
        return lower(self.builder, layer, name, self._value(x, name))

    def _call_function(self, node: fx.Node) -> Any:
        target: Any = node.target
        name = getattr(target, "__name__", str(target))
        first, *rest = [self._known(each) for each in node.args] or [None]
        dim = node.kwargs.get("dim") if len(node.kwargs) == 1 else None
        if target is operator.getitem and first == "x":
            return self.builder.emit("pick", 0, nodes=rest[0])
        if target is operator.getitem and first == "edges":
            return rest[0]
        if target is torch.stack and dim == 0:
            return _Stack(self._value(each, name) for each in first)
        if target in COMBINE and isinstance(first, _Stack) and dim == 0:
            return self._combined(target, first)
        if target is torch.add and not node.kwargs:
            return _Sum(value for each in node.args for value in self._summands(each, name))
        if target is torch.max and len(node.args) == 2 and not node.kwargs:
            return self._combined(target, [self._value(each, name) for each in node.args])
        is_scaled = target is torch.div and not node.kwargs
        if is_scaled and isinstance(node.args[1], (int, float)):
            return self._scaled(self._value(node.args[0], name), 1.0 / node.args[1])
        return super()._call_function(node)

    def _combined(self, how: Any, values: list[int]) -> int:
        if how is torch.max:
            return self.builder.emit("maximum", *values)
        total = values[0]
        for value in values[1:]:
            total = self.builder.emit("add", total, value)
        return total if how is torch.sum else self._scaled(total, 1.0 / len(values))

    def _summands(self, given: Any, name: str) -> list[int]:
        value = self._known(given)
        return value if isinstance(value, _Sum) else [self._value(given, name)]

    def _value(self, given: Any, name: str) -> int:
        if isinstance(given, fx.Node) and isinstance(self.values[given], _Sum):
            self.values[given] = self._combined(torch.sum, self.values[given])
        return super()._value(given, name)

    def _scaled(self, value: int, factor: float) -> int:
        return self.builder.emit("affine", value, tensors={"factor": torch.tensor([factor])})
