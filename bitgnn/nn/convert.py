import copy
import logging
import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch.nn import Module

from bitgnn.nn.fused import use_forward
from bitgnn.nn.hetero_linear import BitHeteroLinear
from bitgnn.nn.linear import BitLinear
from bitgnn.nn.parameters import list_holders, parameter_share
from bitgnn.nn.twin import find_linears, is_ternary, ternary_twin, why_left
from bitgnn.quant import Quant, resolve_quant

logger = logging.getLogger("bitgnn")

Patterns = str | Iterable[str] | None


def convert(
    model: Module,
    quant: Quant = "b158",
    include: Patterns = None,
    exclude: Patterns = None,
    inplace: bool = False,
) -> Module:
    r"""Turns the linear layers of any PyG or torch model into ternary ones.

    :class:`torch.nn.Linear` and :class:`torch_geometric.nn.Linear` become
    :class:`bitgnn.nn.BitLinear`, :class:`torch_geometric.nn.HeteroLinear`
    becomes :class:`bitgnn.nn.BitHeteroLinear`, and the linears within a
    :class:`torch_geometric.nn.HeteroDictLinear` are converted one by one. The
    layers keep their weights, which become latent weights. A layer in several
    places stays one layer, and a weight in several layers one weight. Layers
    that are ternary already are left as they are: converting twice changes
    nothing. So are subclasses, and layers with hooks or parametrizations,
    which a ternary layer would lose.

    What was changed, what was left and why, how many of all parameters are
    ternary and what holds the others is logged (logger :obj:`"bitgnn"`, level
    INFO), or written to stderr where logging is not set up. A pattern that
    matches no linear layer is logged as a warning. The names of all converted
    layers are in :obj:`model.converted`.

    >>> from torch_geometric.nn import GCN
    >>> model = convert(GCN(16, 32, num_layers=2), include="convs.*")
    >>> model.converted
    ['convs.0.lin', 'convs.1.lin']

    Args:
        model (torch.nn.Module): The model.
        quant (QuantConfig or str, optional): How to quantize.
            (default: :obj:`"b158"`)
        include (str or [str], optional): Shell-style patterns; only layers
            whose name matches one are converted. (default: :obj:`None`, all)
        exclude (str or [str], optional): Shell-style patterns; layers whose
            name matches one are not. (default: :obj:`None`, none)
        inplace (bool, optional): If set to :obj:`True`, changes the model
            itself instead of a copy. (default: :obj:`False`)

    Raises:
        TypeError: If :obj:`quant`, :obj:`model` or a pattern has another type.
        ValueError: If no layer matches, none that matches can be converted, or
            :obj:`quant` is :obj:`None`.
    """
    config = resolve_quant(quant)
    if config is None:
        raise ValueError("'convert' needs a configuration to quantize with (got quant=None)")
    if not isinstance(model, Module):
        raise TypeError(f"'model' must be a torch.nn.Module (got {type(model).__name__})")
    included = ["*"] if include is None else _patterns(include, "include")
    excluded = [] if exclude is None else _patterns(exclude, "exclude")

    model = model if inplace else copy.deepcopy(model)
    linears = find_linears(model)
    chosen = {
        linear: names
        for linear, names in linears.items()
        if _matches(names, included) and not _matches(names, excluded)
    }
    if not chosen:
        available = sorted(name for names in linears.values() for name in names)
        holders = parameter_share(model).holders
        raise ValueError(
            f"No linear layer of '{model.__class__.__name__}' matches include={include!r} and "
            f"exclude={exclude!r}; its linear layers are {available or 'none'}"
            + (f", its parameters {list_holders(holders)}" if holders and not linears else "")
        )

    left = {
        names[0]: reason
        for linear, names in chosen.items()
        if (reason := why_left(model, linear)) is not None
    }
    ternary = sum(is_ternary(linear) for linear in chosen)
    # All twins are built before the first is put in place: an error leaves the model whole.
    twins = {
        linear: ternary_twin(linear, config)
        for linear, names in chosen.items()
        if names[0] not in left and not is_ternary(linear)
    }
    if not twins and not ternary:
        raise ValueError(
            f"No linear layer of '{model.__class__.__name__}' can be converted: {_listed(left)}"
        )

    name = model.__class__.__name__
    converted = [place for linear in twins for place in linears[linear]]
    before = getattr(model, "converted", [])
    model = twins.get(model) or model
    for parent in model.modules():
        for key, child in parent._modules.items():
            if child in twins:
                parent._modules[key] = twins[child]
    use_forward(model)
    model.converted = [*before, *converted]  # type: ignore[assignment]

    for what, patterns in (("include", included), ("exclude", excluded)):
        for pattern in patterns:
            if not any(_matches(names, [pattern]) for names in linears.values()):
                _say(f"{what}={pattern!r} matches no linear layer of {name}", logging.WARNING)
    _say(
        f"converted {len(twins)} of {len(linears)} linear layers of {name}"
        + (f": {', '.join(place or 'the model itself' for place in converted)}" if twins else "")
        + (f"; {ternary} ternary already" if ternary else "")
        + (f"; left as they are: {_listed(left)}" if left else "")
        + f"; {parameter_share(model)}"
    )
    return model


def set_strength(model: Module, strength: float) -> None:
    r"""Sets how strongly the ternary layers of a model quantize.

    Args:
        model (torch.nn.Module): The model.
        strength (float): From 0 (full precision) to 1 (quantized).

    Raises:
        ValueError: If :obj:`strength` is not between 0 and 1.
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"'strength' must lie between 0 and 1 (got {strength!r})")
    for module in model.modules():
        if isinstance(module, (BitLinear, BitHeteroLinear)):
            module.strength = float(strength)


def _patterns(patterns: str | Iterable[str], name: str) -> list[str]:
    if isinstance(patterns, str):
        return [patterns]
    several = list(patterns) if isinstance(patterns, Iterable) else [patterns]
    if not all(isinstance(pattern, str) for pattern in several):
        raise TypeError(f"'{name}' must be a shell-style pattern or several (got {patterns!r})")
    return several


def _matches(names: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _listed(left: dict[str, str]) -> str:
    return ", ".join(f"{name or 'the model itself'} ({reason})" for name, reason in left.items())


def _say(message: str, level: int = logging.INFO) -> None:
    if logger.hasHandlers():
        logger.log(level, message)
    elif logger.level <= level:
        print(f"bitgnn: {message}", file=sys.stderr)
