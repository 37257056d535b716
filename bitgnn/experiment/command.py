r"""Between what is typed and what is run, both ways: every row can print the command that
reproduces it."""

import shlex
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from bitgnn.experiment.rows import DISTILLED
from bitgnn.quant import PRESETS, QuantConfig
from bitgnn.training import Recipe, recipe_for
from bitgnn.training.parts import quant_for, recipe_names
from bitgnn.training.recipe import QUANTIZED, TEACHING
from bitgnn.training.settings import format_settings, parse_settings

MAX_SEEDS = 100_000
MAX_SEED = 2**62  # PyTorch and SQLite take 63 bits; processes of a group add something to it.


def command(row: dict[str, Any]) -> str:
    r"""Returns the command that reproduces a row, its 32-bit partners included.

    Args:
        row (dict): A row of a comparison.
    """
    words = ["bitgnn", "compare", "--dataset", row["dataset"], "--model", row["model"]]
    words += ["--split", row["split"], "--seeds", format_seeds(row["seeds"])]
    taught = [] if row["teacher"] is None else [DISTILLED]
    words += ["--precision", *dict.fromkeys(["fp32", *taught, row["precision"]])]
    name, settings, quant = _closest_recipe(row)
    words += [] if name == "default" else ["--recipe", name]
    words += ["--set", *settings] if settings else []
    words += ["--quant", *quant] if quant else []
    return shlex.join(words)


def recipe_name(row: dict[str, Any]) -> str:
    r"""Returns the closest recipe that has a name, and what the ternary side or the teacher
    differs in: :obj:`"distill+channel"`, :obj:`"distill teacher_weight=5.0"`.

    Args:
        row (dict): A row of a comparison.
    """
    name, settings, quant = _closest_recipe(row)
    own = [word for word in settings if word.partition("=")[0] in (*QUANTIZED, *TEACHING)]
    return " ".join([name, *own, *quant])


def parse_seeds(seeds: int | str | Iterable[int]) -> list[int]:
    r"""Returns the seeds that are meant by a count, a range or a list.

    >>> parse_seeds(3), parse_seeds("3"), parse_seeds("5:7"), parse_seeds("4,9")
    ([0, 1, 2], [0, 1, 2], [5, 6], [4, 9])

    Args:
        seeds (int, str or [int]): How many seeds from 0, or which: :obj:`"5:7"` are those from
            5 to 6, :obj:`"4,9"` two, :obj:`"4,"` one.

    Raises:
        ValueError: If there is no seed, one is negative, one occurs twice, or there are more than
            can be run.
    """
    if isinstance(seeds, str):
        given = _parse_seed_text(seeds)
    else:
        given = range(seeds) if isinstance(seeds, int) else seeds
    found = list(islice(given, MAX_SEEDS + 1))  # A range may be endless.
    if len(found) > MAX_SEEDS:
        raise ValueError(f"'seeds' must be at most {MAX_SEEDS:,} seeds (got {seeds!r})")
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise ValueError(f"'seeds' must be at least one seed from 0 on, each once (got {seeds!r})")
    if max(found) >= MAX_SEED:
        raise ValueError(f"Each of 'seeds' must be below 2^62 (got {max(found)})")
    return found


def format_seeds(seeds: Sequence[int]) -> str:
    """The inverse of :func:`parse_seeds`.

    Args:
        seeds (list[int]): The seeds.
    """
    first, last = seeds[0], seeds[-1]
    if list(seeds) != list(range(first, last + 1)):
        return ",".join(map(str, seeds))
    return str(len(seeds)) if first == 0 else f"{first}:{last + 1}"


def parse_quant(words: Sequence[str], base: QuantConfig | None = None) -> QuantConfig:
    r"""Reads a configuration, such as :obj:`["reloaded"]` or
    :obj:`["b158", "activation_bits=4"]`.

    Args:
        words (list[str]): The name of a preset, settings that differ from it, or both.
        base (QuantConfig, optional): What settings change if there is no preset among the words.
            (default: the preset :obj:`"b158"`)
    """
    preset = words[0] if words and "=" not in words[0] else None
    settings = parse_settings(words if preset is None else words[1:], QuantConfig)
    if preset is None and base is not None:
        return base.replace(**settings)
    return QuantConfig.preset(preset or "b158", **settings)


def format_quant(quant: QuantConfig, precision: str, base: QuantConfig | None = None) -> list[str]:
    """The inverse of :func:`parse_quant`, less the measure, which is the precision.

    Args:
        quant (QuantConfig): The configuration.
        precision (str): The precision.
        base (QuantConfig, optional): As in :func:`parse_quant`.
    """
    bases: list[tuple[list[str], QuantConfig]] = [([], base or QuantConfig())]
    bases += [([name], QuantConfig.preset(name)) for name in PRESETS]
    options = [
        [
            *words,
            *format_settings(quant.to_dict(), each.replace(weight_measure=precision).to_dict()),
        ]
        for words, each in bases
    ]
    return min(options, key=len)


def _closest_recipe(row: dict[str, Any]) -> tuple[str, list[str], list[str]]:
    """The recipe from which the fewest words lead to a row, and these words."""
    options = []
    for name in recipe_names():
        recipe, quant = recipe_for(row["model"], row["dataset"], name), []
        if row["precision"] == "fp32":
            recipe = recipe.plain()
        elif row["precision"] == DISTILLED:
            recipe = recipe.distilled()
        else:
            config = QuantConfig.from_dict(row["quant"])
            quant = format_quant(config, row["precision"], quant_for(name))
        fields = {**Recipe().to_dict(), **row["recipe"]}  # older records have fewer
        options.append((name, format_settings(fields, recipe.to_dict()), quant))
    return min(options, key=lambda option: len(option[1]) + len(option[2]))


def _parse_seed_text(text: str) -> Iterable[int]:
    try:
        if ":" in text:
            first, last = text.split(":")
            return range(int(first), int(last))
        if "," in text:
            return [int(seed) for seed in text.split(",") if seed]
        return range(int(text))
    except ValueError:
        raise ValueError(
            f"'seeds' is a count such as 10, a range such as 5:8, or a list such as 4,9 "
            f"(got {text!r})"
        ) from None
