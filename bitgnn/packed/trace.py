r"""From models to programs: what a model does is read off its own ``forward``."""

import inspect
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import fx, nn
from torch.fx import _symbolic_trace

from bitgnn.nn.altered import alteration, global_hook
from bitgnn.packed.activations import ACTIVATIONS
from bitgnn.packed.lower import NOTHING, RULES, Builder, Unsupported, lower
from bitgnn.packed.program import Program
from bitgnn.packed.simplify import simplify

EDGES, WEIGHTS = "edge_index", "edge_weight"

GRAPHS = (EDGES, "adj_t", "adj")  # The first of these that a forward takes is the graph.
_DROPOUTS = ("dropout", "alpha_dropout", "feature_alpha_dropout")
_IN_PLACE = (
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv,
    operator.imod, operator.ipow, operator.imatmul,
)  # fmt: skip


def trace(model: nn.Module) -> Program:
    r"""Returns what a model does, in evaluation, as a program.

    Args:
        model (torch.nn.Module): A model of features, and for a graph network of edges
            (:obj:`edge_index`) and, if it takes any, their weights (:obj:`edge_weight`).

    Raises:
        ValueError: If a layer or function in it cannot be packed; the error names it.
    """
    check_unaltered(model)
    with in_evaluation(model):
        alone, weight = Builder(), inspect.signature(model.forward).parameters.get(WEIGHTS)
        if lower(alone, model, "", 0, weight is not None) is not None:  # A layer alone.
            return Program(simplify(alone.steps))
        graph = graph_of(model)
        if weight is not None and _calls(graph) != _calls(graph_of(model, weighted=False)):
            raise Unsupported(
                f"'{type(model).__name__}' does something else without '{WEIGHTS}' than with it, "
                "and a packed model has no branches: write two models"
            )
        return Reader(model, graph).program()


def _calls(graph: fx.Graph) -> list[Any]:
    """The calls that a graph makes, with weights of edges as if they were left out."""
    names: dict[fx.Node, str | None] = {}
    calls: list[Any] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = None if str(node.target).startswith(WEIGHTS) else str(node.target)
        elif not _is_check(node):
            given = fx.node.map_arg((node.args, node.kwargs), names.__getitem__)
            names[node] = f"call {len(calls)}"
            calls.append((node.op, node.target, given))
    return calls


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    r"""Has a model in evaluation mode for a while, and each module in its own afterwards.

    Args:
        model (torch.nn.Module): The model.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        _check_modes(model)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def check_unaltered(model: nn.Module) -> None:
    r"""Refuses a model that does what its layers' types do not say.

    Args:
        model (torch.nn.Module): The model.

    Raises:
        ValueError: If a module has a hook, a parametrization or a method of its own, or is in
            training mode where the model is in evaluation.
    """
    found = global_hook()
    if found is not None:
        raise Unsupported(f"A packed model would lose {found}: remove it first")
    for name, module in model.named_modules():
        found = alteration(module)
        if found is not None:
            raise Unsupported(
                f"{_called(name)}, a {type(module).__name__}, has {found}, which a packed model "
                "would lose: remove it first (such as by torch.nn.utils.remove_weight_norm, "
                "prune.remove or parametrize.remove_parametrizations)"
            )
    if not model.training:
        _check_modes(model)


def _check_modes(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module.training and _depends_on_mode(module):
            raise Unsupported(
                f"{_called(name)}, a {type(module).__name__}, is in training mode while the model "
                "is in evaluation; a packed model would be in evaluation as a whole: call "
                "`model.eval()` first"
            )


def _depends_on_mode(module: nn.Module) -> bool:
    if type(module) in NOTHING:
        return bool(getattr(module, "p", 0.0) > 0.0)
    if isinstance(module, (nn.BatchNorm1d, pyg.BatchNorm)):
        return True
    if isinstance(module, pyg.GATConv):
        return bool(module.dropout > 0.0)
    if isinstance(module, NOTHING):
        return False  # A dropout of the caller's own is refused for what it is.
    # What other classes of the caller's do in training is not known.
    libraries = ("torch.", "torch_geometric.", "bitgnn.")
    return isinstance(module, pyg.MLP) or not type(module).__module__.startswith(libraries)


def _called(name: str) -> str:
    return f"'{name}'" if name else "The model"


def cannot_be_packed(layer: nn.Module, name: str) -> Unsupported:
    r"""Returns the error for a layer that there is no rule for.

    Args:
        layer (torch.nn.Module): The layer.
        name (str): Its name in the model.
    """
    return Unsupported(
        f"'{name}', a {type(layer).__name__}, cannot be packed; what can be is: "
        + ", ".join(sorted({each.__name__ for each in RULES}))
        + ", activation functions, dropout and jumping knowledge"
    )


class _Value(fx.Proxy):
    """A value that can be changed in place, which torch.fx would take for a value of its own: of
    ``x += y``, it sees ``x = x + y``."""


def _recorded(target: Callable[..., Any]) -> Callable[..., fx.Proxy]:
    def method(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    return method


for _target in _IN_PLACE:
    setattr(_Value, f"__{_target.__name__}__", _recorded(_target))


class _Tracer(fx.Tracer):
    """Looks into a module only where there is no rule for it."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, (pyg.MessagePassing, pyg.JumpingKnowledge, pyg.HeteroLinear))
        whole = whole or type(m).__module__.startswith("torch_geometric.nn.norm")
        whole = whole or type(m) in NOTHING or type(m) in RULES
        return whole or super().is_leaf_module(m, module_qualified_name)


def graph_of(model: nn.Module, called: str = "", weighted: bool = True) -> fx.Graph:
    r"""Returns the calls of layers and functions that a model makes.

    Args:
        model (torch.nn.Module): The model; arguments that have a default are left at it, apart
            from the graph and the weights of its edges.
        called (str, optional): What it is called in errors. (default: the name of its class)
        weighted (bool, optional): If set to :obj:`False`, weights are left at their default, too,
            or are :obj:`None`. (default: :obj:`True`)

    Raises:
        ValueError: If what it does depends on its input.
    """
    parameters = inspect.signature(model.forward).parameters
    given = {next((name for name in parameters if name in GRAPHS), EDGES)}
    given |= {WEIGHTS} if weighted else set()
    fixed = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in given and parameter.default is not inspect.Parameter.empty
    }
    if not weighted:
        fixed.setdefault(WEIGHTS, None)
    try:
        return _Tracer().trace(model, concrete_args=fixed)
    except Unsupported:
        raise
    except Exception as error:
        raise ValueError(
            f"'{called or type(model).__name__}' cannot be packed: what it does depends on its "
            f"input, or torch.fx cannot follow it ({error})"
        ) from error


class Reader:
    r"""Reads a graph of calls, one after the other.

    Args:
        model (torch.nn.Module): The model.
        graph (torch.fx.Graph): The calls that it makes.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.model, self.graph = model, graph
        self.builder = Builder()
        self.values: dict[fx.Node, Any] = {}

    def program(self) -> Program:
        """The program."""
        result: int | None = None
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._argument(node)
            elif node.op == "output":
                result = self._output(node.args[0])
            elif not _is_check(node):
                self._check_in_place(node)
                self.values[node] = getattr(self, f"_{node.op}")(node)
        steps = self.builder.steps
        if result != len(steps):
            raise ValueError(
                f"'{type(self.model).__name__}' goes on after it has made its output: a packed "
                "model returns the last value"
            )
        return Program(simplify(steps))

    def _argument(self, node: fx.Node) -> Any:
        first = next(iter(self.graph.nodes))
        if node is first:
            return 0
        name = str(node.target)
        if name == WEIGHTS:
            return WEIGHTS
        if name in GRAPHS:
            return EDGES
        if node.args or not node.users or all(map(_is_check, node.users)):
            return None  # Not used, or left at its default.
        who = f"'{type(self.model).__name__}'"
        for layer in [str(user.target) for user in node.users if user.op == "call_module"]:
            who = f"'{layer}', a {type(self.model.get_submodule(layer)).__name__},"
        raise ValueError(
            f"{who} reads '{name}': a packed model is called with features, '{EDGES}' and "
            f"'{WEIGHTS}'"
        )

    def _output(self, given: Any) -> int:
        return self._value(given, "the output")

    def _check_in_place(self, node: fx.Node) -> None:
        """Refuses an operation in place on a value that is read later, which would find the result:
        a program has no value that changes."""
        if not writes(node, self.model) or not isinstance(node.args[0], fx.Node):
            return
        written = self.values[node.args[0]]
        # Dropout hands on the tensor itself, which then has two names.
        later = [
            user
            for name, value in self.values.items()
            if isinstance(value, (int, list)) and value == written
            for user in name.users
            if user is not node and user not in self.values and not _is_check(user)
        ]
        if later:
            raise Unsupported(
                f"'{node.name}' changes '{node.args[0].name}' in place, which '{later[0].name}' "
                "reads afterwards: this cannot be packed; do it out of place"
            )

    def _call_module(self, node: fx.Node) -> int:
        name = str(node.target)
        layer = self.model.get_submodule(name)
        if isinstance(layer, pyg.JumpingKnowledge):
            if type(layer) is not pyg.JumpingKnowledge:
                raise cannot_be_packed(layer, name)
            return self._jump(layer, name, node)
        given = [*node.args, *node.kwargs.values()]
        found = self._lower(layer, name, given)
        if found is None:
            raise cannot_be_packed(layer, name)
        return found

    def _lower(self, layer: nn.Module, name: str, given: list[Any]) -> int | None:
        x, others = self._value(given[0], name), [self._known(each) for each in given[1:]]
        self._check_rest(layer, name, others)
        return lower(self.builder, layer, name, x, WEIGHTS in others)

    def _check_rest(self, layer: nn.Module, name: str, others: list[Any]) -> None:
        allowed = {EDGES, WEIGHTS, None}
        if isinstance(layer, pyg.MessagePassing):
            wrong = [other for other in others if other not in allowed]
            if wrong or EDGES not in others:
                raise Unsupported(
                    f"'{name}' must be called with features, '{EDGES}' and perhaps '{WEIGHTS}'"
                )

    def _jump(self, layer: Any, name: str, node: fx.Node) -> int:
        (given,) = node.args
        assert isinstance(given, (list, tuple))
        values = [self._value(each, name) for each in given]
        if layer.mode == "lstm":
            raise Unsupported(f"'{name}' is jumping knowledge with an LSTM, which cannot be packed")
        op = {"cat": "cat", "max": "maximum"}[layer.mode]
        return self.builder.emit(op, *values, name=name)

    def _call_function(self, node: fx.Node) -> int:
        target: Any = node.target
        name = getattr(target, "__name__", str(target))
        if target in (operator.add, operator.iadd, torch.add):
            if node.kwargs:
                raise Unsupported(f"'{name}' with {dict(node.kwargs)} cannot be packed")
            a, b = (self._value(each, name) for each in node.args)
            return self.builder.emit("add", a, b)
        if target in (torch.cat, torch.concat):
            values, dim = _bound(node, ("tensors", "dim"), (None, 0))
            if dim not in (-1, 1):
                raise Unsupported(f"'{name}' along dimension {dim} cannot be packed: use dim=-1")
            return self.builder.emit("cat", *(self._value(each, name) for each in values))
        is_known = name.rstrip("_") in (*ACTIVATIONS, *_DROPOUTS)
        if is_known and target not in _functions(name):
            raise Unsupported(
                f"'{target.__module__}.{name}' cannot be packed: it is not torch's function of "
                "that name"
            )
        return self._act(node, name)

    def _call_method(self, node: fx.Node) -> int:
        return self._act(node, str(node.target))

    def _act(self, node: fx.Node, name: str) -> int:
        name = name.rstrip("_")
        x = self._value(node.args[0], name)
        if name in _DROPOUTS:
            if node.kwargs.get("training", True) is not False:
                raise Unsupported(
                    f"'{name}' drops in evaluation, too: pass training=self.training, or use "
                    "torch.nn.Dropout, which alone changes with the mode after `to_hetero`"
                )
            return x
        if name not in ACTIVATIONS:
            raise Unsupported(f"'{name}' cannot be packed")
        defaults = ACTIVATIONS[name].defaults
        names = tuple(defaults)
        values = _bound(
            node,
            ("input", *names),
            (None, *defaults.values()),
            ignored=("inplace", "_stacklevel", "dtype", "training"),
        )
        if node.kwargs.get("dtype") not in (None, torch.float32):
            raise Unsupported(
                f"'{name}' with dtype={node.kwargs['dtype']} cannot be packed: packed models "
                "compute in torch.float32"
            )
        return self.builder.emit("act", x, kind=name, **dict(zip(names, values[1:], strict=True)))

    def _get_attr(self, node: fx.Node) -> int:
        raise Unsupported(f"'{node.target}' is read outside a layer, which cannot be packed")

    def _known(self, given: Any) -> Any:
        return self.values[given] if isinstance(given, fx.Node) else given

    def _value(self, given: Any, name: str) -> int:
        value = self._known(given)
        # A number that is written down is not the value of that number.
        if not isinstance(given, fx.Node) or not isinstance(value, int):
            raise Unsupported(f"'{name}' reads {value!r}, which is not the features of the nodes")
        return value


def _bound(
    node: fx.Node, names: tuple[str, ...], defaults: tuple[Any, ...], ignored: tuple[str, ...] = ()
) -> list[Any]:
    """The arguments of a call, by name."""
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    unknown = set(given) - {*names, *ignored}
    if unknown or len(node.args) > len(names):
        raise Unsupported(f"'{node.target}' with {sorted(unknown)} cannot be packed")
    return [given.get(name, default) for name, default in zip(names, defaults, strict=True)]


def writes(node: fx.Node, model: nn.Module) -> bool:
    r"""Whether a call writes its result to its first argument.

    Args:
        node (torch.fx.Node): The call.
        model (torch.nn.Module): The model that makes it.
    """
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    if node.op not in ("call_function", "call_method") or not node.args:
        return False
    name = getattr(node.target, "__name__", str(node.target))
    in_place = node.kwargs.get("inplace", False) or any(each is True for each in node.args[1:])
    return bool(in_place) or node.target in _IN_PLACE or (name[-1] == "_" != name[-2])


def _functions(name: str) -> tuple[Any, ...]:
    """torch's functions of a name."""
    return tuple(getattr(module, name, None) for module in (torch, F, torch.special))


def _is_check(node: fx.Node) -> bool:
    """Whether it only checks that an argument is left at its default."""
    if node.op != "call_function":
        return False
    if node.target is operator.eq:
        return bool(node.users) and all(map(_is_check, node.users))
    return node.target in (torch._assert, _symbolic_trace._assert_is_none)
