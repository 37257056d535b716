r"""What a recipe is put together from: :obj:`"continual+distill"`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from bitgnn.quant import QuantConfig, StrengthSchedule


@dataclass(frozen=True)
class Part:
    r"""A named change of how ternary models are trained.

    Args:
        about (str): What it does, in a few words.
        recipe (dict, optional): Fields of the recipe. (default: none)
        quant (dict, optional): Fields of the quantization. (default: none)
    """

    about: str
    recipe: dict[str, Any] = field(default_factory=dict)
    quant: dict[str, Any] = field(default_factory=dict)


# The one place of their constants; docs/recipes.md says where each comes from.
PARTS = {
    "scratch": Part(
        "ternary from the first epoch on, from random weights",
        {"schedule": StrengthSchedule(), "start": "scratch"},
    ),
    "continual": Part(
        "32-bit first, then ternary, the strength phased in",
        {"schedule": StrengthSchedule("linear", 0.25, 0.5)},
    ),
    "distill": Part(
        "taught by the 32-bit run of the same seed on all nodes",
        {
            "teacher": "same",
            "teacher_weight": 100.0,
            "temperature": 0.5,
            "standardize": "graph",
        },
    ),
    "powers": Part(
        "latent weights trained as squares: more of them are zero", {"latent_power": 2.0}
    ),
    "decoupled": Part(
        "decoupled weight decay of latent weights",
        {"latent_optimizer": "adamw", "latent_weight_decay": 0.1},
    ),
    "channel": Part("one weight scale an output channel", quant={"granularity": "channel"}),
    "wide2": Part("hidden layers twice as wide", {"width": 2}),
    "wide4": Part("hidden layers four times as wide", {"width": 4}),
}

DEFAULT = "distill+powers"  # What `default` stands for, the same for every model and data set.


def parse_parts(name: str) -> list[Part]:
    r"""Returns the parts that a name joins with :obj:`"+"`.

    Args:
        name (str): For example :obj:`"continual+distill"`; :obj:`"default"` is the combination
            that is used if none is named.

    Raises:
        ValueError: If there is no such part, or two of them change the same field.
    """
    names = [DEFAULT if each == "default" else each for each in name.split("+")]
    names = "+".join(names).split("+")
    set_by: dict[str, str] = {}
    for each in names:
        if each == "paper":
            raise ValueError(f"'paper' stands alone: it cannot be combined (got '{name}')")
        if each not in PARTS:
            raise ValueError(
                f"No recipe is called {each!r}; there are default, paper and the parts "
                f"{', '.join(PARTS)}, which '+' joins, as in continual+distill"
            )
        for changed in (*PARTS[each].recipe, *PARTS[each].quant):
            if changed in set_by:
                raise ValueError(
                    f"'{name}' cannot be combined: {set_by[changed]} and {each} both set "
                    f"'{changed}'; choose one of them"
                )
            set_by[changed] = each
    return [PARTS[each] for each in names]


def recipe_changes(name: str) -> dict[str, Any]:
    """Returns the fields of the recipe that a combination of parts changes.

    Args:
        name (str): Parts, joined by :obj:`"+"`.
    """
    return {key: value for part in parse_parts(name) for key, value in part.recipe.items()}


def quant_for(name: str) -> QuantConfig:
    """Returns what ternary models quantize with in a recipe.

    Args:
        name (str): The name of a recipe: :obj:`"paper"`, or parts joined by :obj:`"+"`.
    """
    parts = [] if name == "paper" else parse_parts(name)
    return QuantConfig(**{key: value for part in parts for key, value in part.quant.items()})


def recipe_names() -> Iterator[str]:
    """Yields every recipe that has a name, those of few parts first."""
    yield from ("default", "paper")
    for count in range(1, len(PARTS) + 1):
        for names in combinations(PARTS, count):
            name = "+".join(names)
            # To begin from scratch is what all do that say nothing else.
            if (count > 1 and "scratch" in names) or not _combine(name):
                continue
            yield name


def _combine(name: str) -> bool:
    try:
        parse_parts(name)
    except ValueError:
        return False
    return True
