r"""Whether a module does what its type says: asked by what reads the parameters of a module instead
of calling it, or takes a faster way to its output."""

from typing import Any

from torch.nn import Module
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize
from torch_geometric.nn import (
    MaxAggregation,
    MeanAggregation,
    MessagePassing,
    MinAggregation,
    MulAggregation,
    SumAggregation,
)

# The methods of PyG's message passing that a subclass or an instance may replace.
MESSAGES = ("message", "aggregate", "message_and_aggregate", "update", "edge_update")
COMPILED = ("propagate", "edge_updater")  # PyG writes these itself, for each class.
AGGREGATIONS: dict[str, type[Module]] = {
    "add": SumAggregation,
    "sum": SumAggregation,
    "mean": MeanAggregation,
    "max": MaxAggregation,
    "min": MinAggregation,
    "mul": MulAggregation,
}
HOOKS = tuple(
    f"_{step}_forward_{when}"
    for step in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    for when in ("pre_hooks", "hooks")
)


def alteration(module: Module, backward: bool = False) -> str | None:
    r"""Returns, in words, what a module does beyond what its type says, such as forward hooks,
    parametrizations, or a method of its own; :obj:`None` if nothing.

    Args:
        module (torch.nn.Module): The module. Those that it holds are not looked at.
        backward (bool, optional): Whether hooks of the backward pass count, too.
            (default: :obj:`False`)
    """
    for kind, hooks in (
        ("a forward hook", module._forward_hooks),
        ("a forward pre-hook", module._forward_pre_hooks),
        ("a backward hook", module._backward_hooks if backward else {}),
        ("a backward pre-hook", module._backward_pre_hooks if backward else {}),
    ):
        for key, hook in hooks.items():
            if key not in _own_hooks(module):
                return f"{kind} ({_name(hook)})"
    if parametrize.is_parametrized(module):
        names = ", ".join(repr(name) for name in module.parametrizations)  # type: ignore[union-attr]
        return f"parametrizations of {names}"
    for name in ("forward", "_call_impl"):
        if name in vars(module):
            return f"a '{name}' of its own, set on the instance"
    return _of_messages(module) if isinstance(module, MessagePassing) else None


def global_hook() -> str | None:
    """Returns, in words, a hook that torch calls in the forward pass of every module, if any."""
    for hooks in (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks):
        for hook in hooks.values():
            return f"a forward hook of all modules ({_name(hook)})"
    return None


def sends_messages_of(conv: MessagePassing, kind: type[MessagePassing]) -> bool:
    r"""Whether a convolution passes messages exactly as its base class does: without methods of a
    subclass or of the instance, without PyG's hooks, and unobserved by an explainer.

    Args:
        conv (MessagePassing): The convolution.
        kind (type): The base class.
    """
    own = type(conv)
    if own is not kind and any(getattr(own, each) is not getattr(kind, each) for each in MESSAGES):
        return False
    return _of_messages(conv) is None and not any(_is_custom(own, each) for each in COMPILED)


def is_fused(conv: MessagePassing, kind: type[MessagePassing]) -> bool:
    r"""Whether a convolution may multiply by a sparse matrix instead of sending messages: not if
    a subclass replaces the messages or their aggregation, but not the product that stands for both.

    Args:
        conv (MessagePassing): The convolution.
        kind (type): The base class, whose product it is.
    """
    own = type(conv)
    same = {each: getattr(own, each) is getattr(kind, each) for each in MESSAGES}
    replaced = not same["message"] or not same["aggregate"]
    return bool(conv.fuse) and not (replaced and same["message_and_aggregate"])


def _of_messages(conv: MessagePassing) -> str | None:
    for name in HOOKS:
        for hook in getattr(conv, name, {}).values():
            return f"a hook of message passing ({_name(hook)})"
    if conv.explain:
        return "an explainer at work"
    found = alteration(conv.aggr_module)
    if found is not None:
        return f"an aggregation with {found}"
    named = AGGREGATIONS.get(conv.aggr) if isinstance(conv.aggr, str) else None
    if named is not None and type(conv.aggr_module) is not named:
        return f"another aggregation ({_name(conv.aggr_module)}) than aggr={conv.aggr!r} says"
    for name in (*MESSAGES, *COMPILED):
        if name in vars(conv) and not _is_pygs(conv, name):
            return f"a '{name}' of its own, set on the instance"
    return None


def _is_pygs(conv: MessagePassing, name: str) -> bool:
    """Whether it is PyG that has set a method on an instance, as it does after explanations."""
    function = getattr(vars(conv)[name], "__func__", None)
    known = (getattr(type(conv), f"_{which}_{name}", None) for which in ("orig", "jinja"))
    return function is not None and function in known


def _is_custom(kind: type[MessagePassing], name: str) -> bool:
    # What PyG could not compile, because a subclass has written it, it leaves as it is.
    found: Any = getattr(kind, f"_orig_{name}", None)
    return found is not getattr(MessagePassing, name) and found is not None and (
        found is getattr(kind, f"_jinja_{name}", None)
    )  # fmt: skip


def _own_hooks(module: Module) -> set[int]:
    """The hook of a lazy layer, which goes once the layer is initialized."""
    found = (getattr(module, name, None) for name in ("_hook", "_initialize_hook"))
    return {hook.id for hook in found if hook is not None}


def _name(hook: Any) -> str:
    return getattr(hook, "__name__", type(hook).__name__)
