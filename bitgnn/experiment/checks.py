from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from bitgnn.checks import check
from bitgnn.experiment.run import open_task
from bitgnn.experiment.spec import RunSpec
from bitgnn.quant import QuantConfig
from bitgnn.training import Recipe, build_model
from bitgnn.training.inputs import normalize_features


def warn(
    specs: Sequence[RunSpec], root: str | Path | None = None, console: Console | None = None
) -> None:
    r"""Prints a line per finding of :func:`bitgnn.check` on runs that are about to be trained.

    Args:
        specs (list[RunSpec]): The runs.
        root (str, optional): A folder to look for data in first. (default: :obj:`None`)
        console (rich.console.Console, optional): Where to. (default: standard error)
    """
    console = console or Console(stderr=True)
    for line in findings(specs, root):
        console.print(Text(f"! {line}"), soft_wrap=True)


def findings(specs: Sequence[RunSpec], root: str | Path | None = None) -> list[str]:
    r"""Returns what :func:`bitgnn.check` finds of the ternary sides of runs, each finding once.

    Args:
        specs (list[RunSpec]): The runs.
        root (str, optional): A folder to look for data in first. (default: :obj:`None`)
    """
    # Seeds and measures of the weight scale make no difference before training.
    ternary = [spec for spec in specs if spec.quant is not None]
    cells = {(spec.dataset, spec.split_kind, spec.model): spec for spec in ternary}
    lines = []
    for spec in cells.values():
        t = open_task(spec.dataset, root, spec.split_kind)
        recipe, quant = Recipe.from_dict(spec.recipe), QuantConfig.from_dict(spec.quant or {})
        with torch.device("meta"):  # Initial weights are no matter, and take memory.
            model = build_model(spec.model, t.num_features, t.num_classes, recipe, quant)
        normalize = partial(normalize_features, norm=recipe.feature_norm)
        lines += [f"{spec.dataset}: {finding}" for finding in check(model, t.data, normalize)]
    return list(dict.fromkeys(lines))
