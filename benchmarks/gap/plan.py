"""From factors to runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gap.factors import Factor, Level
from bitgnn.experiment import RunSpec
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.rows import DISTILLED
from bitgnn.training import recipe_for
from bitgnn.training.parts import parse_parts, quant_for

DATASETS = ("Cora", "CiteSeer", "PubMed")
MODELS = ("gcn", "sage", "gat", "mlp")


@dataclass(frozen=True)
class Study:
    """Where the factors are looked at; the whole study by default.

    Args:
        datasets: The data sets.
        models: The models.
        seeds: The seeds.
        settings: Fields of the recipe that differ from the published hyper-parameters.
        root: A folder to look for data in first.
    """

    datasets: Sequence[str] = DATASETS
    models: Sequence[str] = MODELS
    seeds: Sequence[int] = tuple(range(5))
    settings: Mapping[str, Any] = field(default_factory=dict)
    root: Path | None = None


@dataclass(frozen=True)
class Cell:
    """What is drawn as one point: one level and line of a factor, on one data set, for one model.

    Args:
        line: The label of the line.
        level: The label of the level.
        dataset: The data set.
        model: The model.
        precision: The precision of the runs that are drawn.
        specs: These runs and the 32-bit ones that they are compared with.
    """

    line: str
    level: str
    dataset: str
    model: str
    precision: str
    specs: tuple[RunSpec, ...]


def plan(factor: Factor, study: Study) -> list[Cell]:
    """Lists the cells of a factor, line by line.

    Cells of 32-bit models with a teacher are left out where there is none.

    Args:
        factor: The factor.
        study: Where it is looked at.
    """
    return [
        cell
        for line in factor.lines
        for level in factor.levels
        for dataset in study.datasets
        for model in study.models
        for cell in _cells(factor, line, level, dataset, model, study)
    ]


def all_specs(factors: Iterable[Factor], study: Study) -> list[RunSpec]:
    """Lists the runs of several factors, each once: they share the 32-bit ones, and more.

    Args:
        factors: The factors.
        study: Where they are looked at.
    """
    specs = [spec for each in factors for cell in plan(each, study) for spec in cell.specs]
    return list({spec.key: spec for spec in specs}.values())


def _cells(
    factor: Factor, line: Level, level: Level, dataset: str, model: str, study: Study
) -> list[Cell]:
    base = line.base or level.base or factor.base
    precision = level.precision or line.precision or "absmean"
    settings, quant = dict(study.settings), quant_for(base)
    for change in (line, level):
        for part in parse_parts(change.parts) if change.parts else ():
            settings |= part.recipe
            quant = quant.replace(**part.quant)
        settings |= change.recipe
        quant = quant.replace(**change.quant)
    taught = recipe_for(model, dataset, base).replace(**settings).teacher is not None
    if precision == DISTILLED and not taught:
        return []
    sides = dict.fromkeys(["fp32", *([DISTILLED] if taught else []), precision])
    specs = build_specs(
        dataset,
        model,
        study.seeds,
        base,
        list(sides),
        study.root,
        quant=quant,
        settings=settings,
    )
    return [Cell(line.label, level.label, dataset, model, precision, tuple(specs))]
