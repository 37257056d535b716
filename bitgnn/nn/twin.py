from typing import TypeGuard

import torch
from torch.nn import Module, Parameter
from torch_geometric.nn import HeteroLinear, Linear

from bitgnn.nn.altered import alteration
from bitgnn.nn.fused import reads_weights
from bitgnn.nn.hetero_linear import BitHeteroLinear
from bitgnn.nn.linear import BitLinear
from bitgnn.nn.sparse_linear import SparseLinear
from bitgnn.quant import Quant

# Exactly these types are replaced: a subclass may do more than a linear map. The ternary
# layers themselves, and what they hold, are among them, for where they were built with
# `quant=None`.
CONVERTIBLE = (
    torch.nn.Linear,
    torch.nn.LazyLinear,
    Linear,
    SparseLinear,
    HeteroLinear,
    BitLinear,
    BitHeteroLinear,
)


def ternary_twin(module: Module, quant: Quant) -> Module | None:
    """Returns the ternary twin of a linear layer, with the same parameters, or
    :obj:`None` if the module is none or is ternary already.

    Args:
        module (torch.nn.Module): The layer.
        quant (QuantConfig or str): How to quantize.
    """
    if type(module) not in CONVERTIBLE or is_ternary(module):
        return None
    if isinstance(module, HeteroLinear):
        return BitHeteroLinear.from_linear(module, quant)
    if isinstance(module, torch.nn.LazyLinear):
        # Nothing is initialized yet: there is no weight to keep.
        twin = BitLinear(-1, module.out_features, module.bias is not None, quant=quant)
        return twin.to(module.weight.device, module.weight.dtype).train(module.training)
    return BitLinear.from_linear(module, quant)


def quantize_children(module: Module, quant: Quant) -> None:
    """Replaces the linear layers that a module holds itself by ternary ones, in place.

    Args:
        module (torch.nn.Module): The module.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None`
            stays in full precision, but takes sparse features.
    """
    if quant is None:
        for linear in module.children():
            if type(linear) is Linear:
                linear.__class__ = SparseLinear
        return
    twins: dict[Module, Module | None] = {}
    for name, child in list(module._modules.items()):
        if child is None:
            continue
        # A layer that is held under two names stays one layer.
        if child not in twins:
            twins[child] = ternary_twin(child, quant)
        if twins[child] is not None:
            setattr(module, name, twins[child])


def find_linears(model: Module) -> dict[Module, list[str]]:
    """Returns all linear layers of a model, each with every name it goes by."""
    linears: dict[Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (torch.nn.Linear, Linear, HeteroLinear)):
            linears.setdefault(module, []).append(name)
    return linears


def is_ternary(module: Module) -> TypeGuard[BitLinear | BitHeteroLinear]:
    """Whether a module is a linear layer that quantizes."""
    return isinstance(module, (BitLinear, BitHeteroLinear)) and module.quant is not None


def why_left(model: Module, linear: Module) -> str | None:
    """Returns why a linear layer of a model can't be converted, or :obj:`None` if it can.

    Args:
        model (torch.nn.Module): The model.
        linear (torch.nn.Module): One of its linear layers.
    """
    if is_ternary(linear):
        return None
    if type(linear) not in CONVERTIBLE:
        return f"a {type(linear).__name__}, which may do more than a linear map"
    found = alteration(linear, backward=True)
    if found is None and not isinstance(linear.weight, Parameter):
        found = "a weight that is no parameter, for example of weight_norm or pruning"
    if found is not None:
        return f"{found}, which would be lost"
    for parent in model.modules():
        if reads_weights(parent) and any(child is linear for child in parent.modules()):
            return f"{type(parent).__name__} reads its weight and never calls it"
    return None
