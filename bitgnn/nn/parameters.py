from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from torch.nn import Module, Parameter
from torch.nn.parameter import UninitializedParameter

from bitgnn.nn.twin import is_ternary

BIASES = "biases of linear layers"
MAX_NAMES = 3
MAX_HOLDERS = 4


@dataclass(frozen=True)
class Holder:
    r"""What holds 32-bit parameters: all modules of one type.

    Args:
        kind (str): The type.
        names (tuple[str]): The names of the modules.
        numel (int): How many parameters they hold.
    """

    kind: str
    names: tuple[str, ...]
    numel: int

    def __str__(self) -> str:
        names = [name or "the model itself" for name in self.names[:MAX_NAMES]]
        more = len(self.names) - len(names)
        listed = ", ".join(names) + (f" and {more} more" if more else "")
        return f"{self.numel:,} in {self.kind}" + (f" ({listed})" if listed else "")


@dataclass(frozen=True)
class ParameterShare:
    r"""How many parameters of a model are quantized, and what holds the others.

    Args:
        total (int): The number of parameters; a shared one counts once.
        quantized (int): How many of them are quantized.
        holders (tuple[Holder]): What holds the others, the largest first.
        ternary (bool): Whether all that are quantized are ternary.
        lazy (int): How many tensors are not initialized yet and not counted.
    """

    total: int
    quantized: int
    holders: tuple[Holder, ...]
    ternary: bool = True
    lazy: int = 0

    def __str__(self) -> str:
        kind = "ternary" if self.ternary else "quantized"
        share = f"{self.quantized:,} of {self.total:,} parameters"
        share += f" ({percent(self.quantized, self.total)}) are {kind}"
        rest = f", in 32 bits: {list_holders(self.holders)}" if self.holders else ""
        lazy = f", not counting {self.lazy} lazy parameters" if self.lazy else ""
        return f"{share}{rest}{lazy}"


def parameter_share(model: Module) -> ParameterShare:
    r"""Counts the parameters of a model that are quantized, and finds what holds the others.

    Args:
        model (torch.nn.Module): The model.
    """
    quantized = [
        module
        for module in model.modules()
        if is_ternary(module) and module.quant is not None and module.quant.weight_bits is not None
    ]
    seen: set[Parameter] = set()
    lazy = total = latent = 0
    for module in quantized:
        if isinstance(module.weight, UninitializedParameter) or module.weight in seen:
            continue
        seen.add(module.weight)
        latent += module.weight.numel()
    total = latent

    names: dict[str, list[str]] = defaultdict(list)
    numel: dict[str, int] = defaultdict(int)
    for name, module in model.named_modules():
        own = [p for p in module._parameters.values() if p is not None and p not in seen]
        seen.update(own)
        lazy += sum(isinstance(p, UninitializedParameter) for p in own)
        count = sum(p.numel() for p in own if not isinstance(p, UninitializedParameter))
        if count:
            kind = BIASES if module in quantized else type(module).__name__
            numel[kind] += count
            names[kind] += [] if kind == BIASES else [name]
            total += count
    holders = [Holder(kind, tuple(names[kind]), count) for kind, count in numel.items()]
    return ParameterShare(
        total,
        latent,
        tuple(sorted(holders, key=lambda holder: -holder.numel)),
        all(module.quant.ternary for module in quantized if module.quant is not None),
        lazy,
    )


def list_holders(holders: Sequence[Holder]) -> str:
    r"""Lists the largest holders of parameters.

    Args:
        holders (list[Holder]): The holders, the largest first.
    """
    listed = ", ".join(map(str, holders[:MAX_HOLDERS]))
    others = holders[MAX_HOLDERS:]
    if not others:
        return listed
    return f"{listed}, {sum(other.numel for other in others):,} in other types"


def percent(part: int, total: int) -> str:
    r"""A share in percent that is 0 or 100 only if nothing or everything is meant.

    >>> percent(0, 3), percent(1, 3), percent(1, 10**6), percent(10**6 - 1, 10**6)
    ('0 %', '33.3 %', '< 0.1 %', '> 99.9 %')

    Args:
        part (int): The part.
        total (int): The whole.
    """
    if part in (0, total):
        return "100 %" if part else "0 %"
    share = 100 * part / total
    if share < 0.1:
        return "< 0.1 %"
    return "> 99.9 %" if share > 99.9 else f"{share:.1f} %"
