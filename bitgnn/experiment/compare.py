from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from bitgnn.experiment.command import command, parse_seeds, recipe_name
from bitgnn.experiment.complete import Failure, complete
from bitgnn.experiment.record import runs_in
from bitgnn.experiment.rows import DISTILLED, FULL, PRECISIONS, Record, Row, rows_from_records
from bitgnn.experiment.run import check_device, open_task
from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.store import Store, default_path
from bitgnn.experiment.workers import RunError
from bitgnn.files import check_folder
from bitgnn.quant import Quant, QuantConfig, resolve_quant
from bitgnn.quant.config import WEIGHT_MEASURES
from bitgnn.training import Recipe, recipe_for
from bitgnn.training.build import check_model
from bitgnn.training.parts import quant_for

PathLike = str | Path

MAX_RUNS = 100_000


@dataclass(frozen=True)
class Comparison:
    r"""What a comparison found.

    Args:
        rows (list[dict]): One a data set, model and precision: :obj:`accuracies` (one a seed,
            percent), :obj:`mean`, :obj:`sd`, the paired difference from 32-bit with its 95 %
            interval (:obj:`diff_mean`, :obj:`diff_low`, :obj:`diff_high`), the same from 32-bit
            with the same teacher (:obj:`diff_distilled_mean` and so on), :obj:`weight_bytes`,
            :obj:`zeros`, :obj:`int_ops`, :obj:`float_ops`, the :obj:`command` that reproduces
            the row, the closest :obj:`recipe_name`, and more.
        records (list[dict]): One a run, with its curves and its passport.
        num_trained (int): How many of the runs took place now; the others were in the store.
        report (pathlib.Path, optional): The page that was written.
        failures (list[Failure]): The runs that were given up, as the processes that trained them
            were killed again and again. They are in no row; the same comparison tries them again.
    """

    rows: list[Row]
    records: list[Record] = field(repr=False)
    num_trained: int = 0
    report: Path | None = None
    failures: Sequence[Failure] = ()

    @classmethod
    def from_records(
        cls,
        records: Iterable[Record],
        num_trained: int = 0,
        failures: Sequence[Failure] = (),
    ) -> "Comparison":
        """Pools records into rows.

        Args:
            records (list[dict]): One a run.
            num_trained (int, optional): How many took place now. (default: :obj:`0`)
            failures (list[Failure], optional): Those that failed. (default: :obj:`()`)
        """
        records = list(records)
        rows = [
            {**row, "recipe_name": recipe_name(row), "command": command(row)}
            for row in rows_from_records(records)
        ]
        return cls(rows, records, num_trained, failures=failures)


def stored_comparison(
    store: PathLike | None = None, out: PathLike | None = None, **filters: Any
) -> Comparison:
    r"""Collects what a store holds, without training.

    Args:
        store (str, optional): The result store. (default: as of :func:`compare`)
        out (str, optional): The folder to write a report to. (default: :obj:`None`, no report)
        **filters (optional): What to take; see :meth:`Store.records`.

    Raises:
        ValueError: If there is no store, or nothing in it that matches.
    """
    path = default_path() if store is None else Path(store)
    if not path.is_file():
        raise ValueError(f"There is no result store '{path}': `bitgnn compare` makes one")
    filters = {name: values for name, values in filters.items() if values not in (None, [])}
    with Store(path, readonly=True) as opened:
        records = runs_in(opened, **filters)
    if not records:
        raise ValueError(f"'{path}' holds no results{f' for {filters}' if filters else ''}")
    try:
        comparison = Comparison.from_records(records)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # Recipes and models that this version does not know, or nobody.
        raise ValueError(
            f"'{path}' holds a record that cannot be reported ({type(error).__name__}: {error})"
        ) from error
    return _reported(comparison, out)


def compare(
    dataset: str | Sequence[str],
    model: str | Sequence[str],
    seeds: int | str | Iterable[int] = 10,
    recipe: str | Recipe = "default",
    precision: str | Sequence[str] | None = None,
    store: PathLike | Store | None = None,
    out: PathLike | None = None,
    root: PathLike | None = None,
    split: str | None = None,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    progress: bool = True,
    quant: Quant = "recipe",
    settings: Mapping[str, Any] | None = None,
) -> Comparison:
    r"""Compares ternary with 32-bit models on node classification: both sides with the same
    recipe, on the same seeds and splits.

    Each run is stored as it finishes and none takes place twice: what was stopped goes on when
    it is called again.

    >>> comparison = compare("Cora", ["gcn", "mlp"], seeds=3)  # doctest: +SKIP
    >>> comparison.rows[1]["diff_mean"]  # doctest: +SKIP

    Args:
        dataset (str or [str]): The data sets; see :func:`bitgnn.data.available`.
        model (str or [str]): The models: :obj:`"gcn"`, :obj:`"sage"`, :obj:`"gat"`,
            :obj:`"sgc"`, :obj:`"mlp"`.
        seeds (int, str or [int], optional): How many seeds from 0, or which.
            (default: :obj:`10`)
        recipe (str or Recipe, optional): The name of a recipe (:obj:`"default"`,
            :obj:`"paper"`, or parts of :obj:`bitgnn.training.parts.PARTS` such as
            :obj:`"continual+distill"`), or one for all models. (default: :obj:`"default"`)
        precision (str or [str], optional): :obj:`"fp32"`, :obj:`"fp32-distilled"` (32-bit with
            the teacher of the recipe) and measures of the weight scale. (default:
            :obj:`("fp32", "absmean", "absmedian")`, and if the recipe has a teacher
            :obj:`"fp32-distilled"` after the first)
        store (str or Store, optional): The result store. (default: :obj:`$BITGNN_STORE`, or
            :obj:`bitgnn-results.sqlite` here)
        out (str, optional): The folder to write a report to. (default: :obj:`None`, no report)
        root (str, optional): A folder to look for data in first. (default: :obj:`None`)
        split (str, optional): The kind of split. (default: the data set's own)
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
        workers (int, optional): The number of processes, which changes no number. (default: one
            a core, on a GPU one)
        progress (bool, optional): Whether to show progress on standard error.
            (default: :obj:`True`)
        quant (QuantConfig or str, optional): What ternary models quantize with, but for the
            measure of the weight scale, which is the precision. (default: as the parts of the
            recipe say, else :obj:`"b158"`)
        settings (dict, optional): Fields of the recipe to change, for all models.
            (default: :obj:`None`)

    Raises:
        ValueError: If a name or a value is not known, or a data set is not found.
        RunError: If a run fails for a reason that is no error of the user, or all of them were
            given up.
    """
    check_device(device)
    if out is not None:
        check_folder(Path(out))
    specs = build_specs(dataset, model, seeds, recipe, precision, root, split, quant, settings)
    with ExitStack() as stack:
        if not isinstance(store, Store):
            store = stack.enter_context(Store(store))
        num_missing = sum(store.get(spec.key) is None for spec in specs)
        failures: list[Failure] = []
        records = complete(specs, store, root, str(device), workers, progress, failures)
    if not records:
        raise RunError("\n".join(map(str, failures)))
    trained = num_missing - len(failures)
    return _reported(Comparison.from_records(records, trained, failures), out)


def build_specs(
    dataset: str | Sequence[str],
    model: str | Sequence[str],
    seeds: int | str | Iterable[int] = 10,
    recipe: str | Recipe = "default",
    precision: str | Sequence[str] | None = None,
    root: PathLike | None = None,
    split: str | None = None,
    quant: Quant = "recipe",
    settings: Mapping[str, Any] | None = None,
) -> list[RunSpec]:
    r"""Lists the runs of a comparison, in the order of its rows; see :func:`compare`."""
    seeds = parse_seeds(seeds)
    if precision is not None:
        precision = [check_precision(each) for each in _several(precision, "precision")]
    models = [check_model(each) for each in _several(model, "model")]
    config = _check_quant(quant, recipe)
    specs: list[RunSpec] = []
    for name in _several(dataset, "dataset"):
        t = open_task(name, root, split)
        for each in models:
            chosen = recipe_for(each, t.name, recipe) if isinstance(recipe, str) else recipe
            chosen = chosen.replace(**(settings or {}))
            if chosen.teacher not in (None, "same") and check_model(chosen.teacher) == each:
                chosen = chosen.replace(teacher="same")  # one configuration, one key
            for side in _precisions(chosen) if precision is None else precision:
                configuration = _configuration(each, t.name, side, chosen, config)
                if len(specs) + len(seeds) > MAX_RUNS:
                    raise ValueError(
                        f"A comparison has at most {MAX_RUNS:,} runs: use fewer seeds (got "
                        f"{len(seeds):,}), models, precisions or data sets, or compare them one "
                        f"after the other, in one store"
                    )
                specs += [
                    RunSpec(
                        t.name, t.split_kind, t.checksum, each, side, seed=seed, **configuration
                    )
                    for seed in seeds
                ]
    return list({spec.key: spec for spec in specs}.values())


def check_precision(name: str) -> str:
    """Returns the name of a precision; raises if there is no such precision."""
    allowed = (*FULL, *WEIGHT_MEASURES)
    if name not in allowed:
        raise ValueError(f"No precision is called {name!r}; there are {', '.join(allowed)}")
    return name


def _reported(comparison: Comparison, out: PathLike | None) -> Comparison:
    if out is None:
        return comparison
    from bitgnn.experiment.report import write_report  # Loads matplotlib, which takes a while.

    page = write_report(comparison, Path(out), failures=comparison.failures)
    return replace(comparison, report=page)


def _precisions(recipe: Recipe) -> list[str]:
    return [each for each in PRECISIONS if each != DISTILLED or recipe.teacher is not None]


def _configuration(
    model: str, dataset: str, precision: str, recipe: Recipe, quant: QuantConfig
) -> dict[str, Any]:
    """Returns what of a recipe, quantization and teacher a precision has: the fields of a run."""
    if precision == "fp32":
        return {"quant": None, "recipe": recipe.plain().to_record(), "teacher": None}
    if precision == DISTILLED and recipe.teacher is None:
        raise ValueError(
            f"Precision '{DISTILLED}' is 32-bit with a teacher, which the recipe lacks: use "
            "recipe distill, or set teacher=same or to the name of a model"
        )
    if precision == DISTILLED:
        fields, quantized = recipe.distilled().to_record(), None
    else:
        fields, quantized = recipe.to_record(), quant.replace(weight_measure=precision).to_dict()
    return {"quant": quantized, "recipe": fields, "teacher": _teacher(model, dataset, recipe)}


def _teacher(model: str, dataset: str, recipe: Recipe) -> dict[str, Any] | None:
    if recipe.teacher is None:
        return None
    if recipe.teacher == "same":
        return {"model": model, "recipe": recipe.plain().to_record()}
    # Another model has hyper-parameters of its own.
    plain = recipe_for(recipe.teacher, dataset).plain()
    return {"model": recipe.teacher, "recipe": plain.to_record()}


def _check_quant(quant: Quant, recipe: str | Recipe) -> QuantConfig:
    if quant == "recipe":
        return quant_for(recipe) if isinstance(recipe, str) else QuantConfig()
    config = resolve_quant(quant)
    if config is None:
        raise ValueError("'quant' says how the ternary side quantizes (got None); the 32-bit side "
                         "is precision 'fp32'")  # fmt: skip
    return config


def _several(names: str | Sequence[str], what: str) -> list[str]:
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if not names:
        raise ValueError(f"'{what}' must name at least one {what} (got none)")
    return names
