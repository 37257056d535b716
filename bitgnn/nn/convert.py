import copy
import logging
from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
import torch_geometric.nn
from torch.nn import Module

from bitgnn.nn.hetero_linear import BitHeteroLinear
from bitgnn.nn.linear import BitLinear
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
    layers keep their weights, which become latent weights. Layers that are
    ternary already are left as they are: converting twice changes nothing.
    What was changed is logged (logger :obj:`"bitgnn"`, level INFO) and listed
    in :obj:`model.converted`.

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
        TypeError: If :obj:`quant` or :obj:`model` has another type.
        ValueError: If no layer matches, or :obj:`quant` is :obj:`None`.
    """
    config = resolve_quant(quant)
    if config is None:
        raise ValueError("'convert' needs a configuration to quantize with (got quant=None)")
    if not isinstance(model, Module):
        raise TypeError(f"'model' must be a torch.nn.Module (got {type(model).__name__})")
    include, exclude = _patterns(include, "include"), _patterns(exclude, "exclude")

    model = model if inplace else copy.deepcopy(model)
    linears = {name: m for name, m in model.named_modules() if _is_linear(m)}
    chosen = [
        name
        for name in linears
        if (not include or _matches(name, include)) and not _matches(name, exclude)
    ]
    if not chosen:
        raise ValueError(
            f"No linear layer of '{model.__class__.__name__}' matches include={include or '*'} "
            f"and exclude={exclude or None}; its linear layers are {sorted(linears) or 'none'}"
        )

    converted = []
    for name in chosen:
        twin = ternary_twin(linears[name], config)
        if twin is None:
            continue
        converted.append(name)
        if name == "":
            model = twin
        else:
            # A layer may be shared: every place that holds it gets the same twin.
            _replace(model, linears[name], twin)
    model.converted = converted  # type: ignore[assignment]
    logger.info(
        "converted %d of %d linear layers of %s: %s",
        len(converted),
        len(linears),
        model.__class__.__name__,
        ", ".join(converted) or "-",
    )
    return model


def ternary_twin(module: Module, quant: Quant) -> Module | None:
    """Returns the ternary twin of a linear layer, with the same parameters, or
    :obj:`None` if the module is none or is ternary already.

    Subclasses are not touched: they may do more than a linear map.

    Args:
        module (torch.nn.Module): The layer.
        quant (QuantConfig or str): How to quantize.
    """
    if type(module) in (torch.nn.Linear, torch_geometric.nn.Linear):
        return BitLinear.from_linear(module, quant)
    if type(module) is torch_geometric.nn.HeteroLinear:
        return BitHeteroLinear.from_linear(module, quant)
    return None


def quantize_children(module: Module, quant: Quant) -> None:
    """Replaces the linear layers that a module holds itself by ternary ones, in place.

    Args:
        module (torch.nn.Module): The module.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None`
            leaves the module as it is.
    """
    if quant is None:
        return
    for name, child in list(module.named_children()):
        twin = ternary_twin(child, quant)
        if twin is not None:
            setattr(module, name, twin)


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


def _is_linear(module: Module) -> bool:
    ternary = isinstance(module, (BitLinear, BitHeteroLinear))
    return ternary or type(module) in (
        torch.nn.Linear,
        torch_geometric.nn.Linear,
        torch_geometric.nn.HeteroLinear,
    )


def _replace(model: Module, old: Module, new: Module) -> None:
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def _patterns(patterns: Patterns, name: str) -> list[str]:
    patterns = [patterns] if isinstance(patterns, str) else list(patterns or [])
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"'{name}' must be a shell-style pattern or several (got {pattern!r})")
    return patterns


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
