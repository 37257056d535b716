"""Ternary and 32-bit models, each side tuned with the same budget on validation data.

    python -m benchmarks.tuned_table run        # searches and evaluates what is missing
    python -m benchmarks.tuned_table table      # writes results/tuned.*

Both sides have the same search space, the same number of trials, and the same tuning seeds; what
is chosen is evaluated on other seeds. A ternary model and its 32-bit twin with the same teacher
learn from the *tuned* 32-bit model, whose search is part of what they cost. So plain 32-bit, which
has no teacher, gets as many trials more: all sides have the same number of trainings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.accuracy_table import LARGER, MODELS, PLANETOID, TERNARY, Datasets, Models
from benchmarks.study import (
    RESULTS,
    Load,
    Results,
    command_line,
    load_runs,
    main,
    markdown_table,
    write_results,
)
from bitgnn.cli import options
from bitgnn.experiment import RunSpec, Store
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.complete import complete
from bitgnn.experiment.format import (
    MISSING,
    TO_DISTILLED,
    TO_FULL,
    difference,
    mean_sd,
    precision_name,
)
from bitgnn.experiment.progress import duration
from bitgnn.experiment.rows import DISTILLED, Record, Row, rows_from_records
from bitgnn.experiment.statistics import pair_by_seed, paired_difference
from bitgnn.experiment.tune import Range, Run, Settings, Tuned, tune
from bitgnn.training import Recipe, recipe_for
from bitgnn.training.settings import parse_settings

SPACE = {
    "lr": Range(1e-3, 0.3, log=True),
    "weight_decay": Range(1e-6, 1e-2, log=True),
    "dropout": Range(0.0, 0.9),
    "input_dropout": Range(0.0, 0.9),
}
# With --latent, of the ternary side alone: the same two, of latent weights.
LATENT_SPACE = {
    "latent_lr": Range(1e-3, 0.3, log=True),
    "latent_weight_decay": Range(1e-6, 1e-2, log=True),
}
# SGC has nothing between layers to drop, and propagates its features once for all epochs.
NOT_OF_SGC = ("dropout", "input_dropout")
TUNING_SEED = 1000  # the first of them: far from those of the evaluation


class NotRunYetError(LookupError):
    """A run that a table needs is not in the store."""


@dataclass(frozen=True)
class Plan:
    """What is searched, and with which budget."""

    trials: int = 20
    tuning_seeds: int = 3
    seeds: int = 20
    split: str = "public"
    recipe: str = "default"
    settings: Settings | None = None
    latent: bool = False
    root: Path | None = None

    def recipe_of(self, dataset: str, model: str) -> Recipe:
        return recipe_for(model, dataset, self.recipe).replace(**(self.settings or {}))

    def teacher_of(self, dataset: str, model: str) -> str | None:
        """The model of the teacher."""
        teacher = self.recipe_of(dataset, model).teacher
        return model if teacher == "same" else teacher

    def sides(self, dataset: str, model: str) -> list[str]:
        taught = [DISTILLED] if self.teacher_of(dataset, model) else []
        return ["fp32", *taught, *TERNARY]

    def trials_of(self, dataset: str, model: str, side: str) -> int:
        """The trials of a side itself; plain 32-bit has those of the others' teacher as well."""
        return self.trials * (2 if side == "fp32" and self.teacher_of(dataset, model) else 1)

    def trainings(self, dataset: str, model: str, side: str) -> int:
        """The trainings of the search that a side is the outcome of, its teacher's included."""
        taught = side != "fp32" and self.teacher_of(dataset, model) is not None
        trials = self.trials_of(dataset, model, side) + (self.trials if taught else 0)
        return trials * self.tuning_seeds


@dataclass(frozen=True)
class Search:
    """The searches of one data set and model."""

    plan: Plan
    dataset: str
    model: str
    run: Run

    def tuned(self, side: str) -> Tuned:
        """Searches the settings of a side."""
        num_trials = self.plan.trials_of(self.dataset, self.model, side)
        return self._search(side, num_trials)

    def evaluated(self, side: str) -> tuple[Tuned, list[Record]]:
        """The chosen settings of a side, and what they come to on other seeds."""
        tuned = self.tuned(side)
        return tuned, self.run(self._specs(side, tuned.settings, range(self.plan.seeds)))

    def _search(self, side: str, num_trials: int) -> Tuned:
        space = {n: r for n, r in SPACE.items() if self.model != "sgc" or n not in NOT_OF_SGC}
        if self.plan.latent and side in TERNARY:
            space |= LATENT_SPACE
        first = self.plan.recipe_of(self.dataset, self.model).to_dict()
        seeds = range(TUNING_SEED, TUNING_SEED + self.plan.tuning_seeds)
        return tune(
            lambda settings: self._specs(side, settings, seeds),
            space,
            self.run,
            num_trials,
            start=first,
        )

    def _specs(self, side: str, settings: Settings, seeds: Sequence[int]) -> list[RunSpec]:
        specs = build_specs(
            self.dataset,
            self.model,
            seeds,
            self.plan.recipe,
            side,
            self.plan.root,
            self.plan.split,
            settings={**(self.plan.settings or {}), **settings},
        )
        if side == "fp32" or specs[0].teacher is None:
            return specs
        return [replace(spec, teacher=self._teacher) for spec in specs]

    @cached_property
    def _teacher(self) -> dict[str, Any]:
        """The tuned 32-bit model, as of as many trials as its student has."""
        model = self.plan.teacher_of(self.dataset, self.model)
        assert model is not None
        search = replace(self, model=model)
        found = search._search("fp32", self.plan.trials)
        (spec, *_) = search._specs("fp32", found.settings, [0])
        return {"model": model, "recipe": spec.recipe}


def cell_rows(plan: Plan, dataset: str, model: str, run: Run) -> list[Row]:
    """One row a side, each paired with the tuned 32-bit sides; without numbers if a run of it is
    not at hand."""
    search = Search(plan, dataset, model, run)
    rows: list[Row] = []
    for side in plan.sides(dataset, model):
        row: Row = {"dataset": dataset, "model": model, "precision": side, "split": plan.split}
        row["search_trainings"] = plan.trainings(dataset, model, side)
        try:
            tuned, records = search.evaluated(side)
        except NotRunYetError:
            numbers = ("mean", "sd", "settings", "val", "weight_bytes")
            row |= {"seeds": [], "accuracies": [], "diverged": [], **dict.fromkeys(numbers)}
        else:
            (pooled,) = rows_from_records(records)
            names = ("seeds", "accuracies", "diverged", "mean", "sd", "metric", "weight_bytes")
            row |= {name: pooled[name] for name in names}
            row |= {"settings": tuned.settings, "val": tuned.best.val}
            row["trials"] = tuned.to_dict()["trials"]
        rows.append(row)
    by_side = {row["precision"]: row for row in rows}
    for row in rows:
        _pair(row, TO_FULL, by_side["fp32"])
        _pair(row, TO_DISTILLED, by_side.get(DISTILLED) if row["precision"] in TERNARY else None)
    return rows


def _pair(row: Row, name: str, other: Row | None) -> None:
    mine, theirs = ([], []) if other is None or other is row else _pairs(row, other)
    bounds = paired_difference(mine, theirs)
    row |= {f"{name}_{bound}": x for bound, x in zip(("mean", "low", "high"), bounds, strict=True)}


def _pairs(row: Row, other: Row) -> tuple[list[float], list[float]]:
    a, b = (dict(zip(each["seeds"], each["accuracies"], strict=True)) for each in (row, other))
    return pair_by_seed(a, b)


def to_markdown(rows: Sequence[Row], plan: Plan) -> str:
    """The table as a page."""
    header = ["data set", "model", "", "test", "minus 32-bit", "minus distilled", "trainings"]
    header += ["chosen settings"]
    lines = [
        [
            row["dataset"],
            row["model"],
            precision_name(row["precision"]),
            mean_sd(row),
            difference(row, TO_FULL),
            difference(row, TO_DISTILLED),
            str(row["search_trainings"]),
            " ".join(f"{k}={v:g}" for k, v in (row["settings"] or {}).items()) or MISSING,
        ]
        for row in rows
    ]
    about = (
        f"Test accuracy in percent, mean ± sd over {plan.seeds} seeds, of the settings with the "
        f"best validation accuracy over {plan.tuning_seeds} other seeds. Differences are paired by "
        "seed, with their 95 % interval. *Trainings*: those of the search, the teacher's included. "
        "Space: " + ", ".join(f"{n} {r.low:g} to {r.high:g}" for n, r in SPACE.items()) + "."
    )
    table = markdown_table(header, lines, names=3)
    return f"# Both sides tuned\n\n{about}\n\n{table}\n"


def _through(store: Store, root: Path | None, workers: int | None) -> Run:
    return lambda specs: complete(specs, store, root, workers=workers, progress=False)


def _out_of(store: Store) -> Run:
    def run(specs: list[RunSpec]) -> list[Record]:
        records = [store.get(spec.key) for spec in specs]
        found = [record for record in records if record is not None]
        if len(found) < len(specs):
            raise NotRunYetError
        return found

    return run


def _announce(plan: Plan, cells: Sequence[tuple[str, str]], store: Store) -> None:
    runs = seconds = 0.0
    unknown = False
    for dataset, model in cells:
        known = store.mean_seconds(dataset, model)
        for side in plan.sides(dataset, model):
            trials = plan.trials_of(dataset, model, side)
            count = trials * plan.tuning_seeds + plan.seeds
            runs += count
            seconds += count * known.get(side, sum(known.values()) / max(len(known), 1))
        unknown |= not known
    time = f"at most {duration(seconds)} on one core, from the time of earlier runs"
    if unknown:
        time = "how long that takes is known after the first of each data set and model"
    typer.echo(f"{runs:.0f} runs at most for {len(cells)} cells: {time}", err=True)


Trials = Annotated[int, typer.Option("--trials", help="Of each side; see above for 32-bit.")]
TuningSeeds = Annotated[int, typer.Option("--tuning-seeds", help="Of each trial.")]
SeedCount = Annotated[int, typer.Option("--seeds", help="Of the evaluation.")]
Latent = Annotated[bool, typer.Option("--latent", help="Search latent_lr and its decay as well.")]
SplitKind = Annotated[str, typer.Option("--split", help="public or random")]


def _cells(dataset: Sequence[str] | None, model: Sequence[str] | None, split: str) -> list[Any]:
    sets = dataset or (PLANETOID if split == "public" else (*PLANETOID, *LARGER))
    return [(each, name) for each in sets for name in model or MODELS]


def run(
    dataset: Datasets = None,
    model: Models = None,
    trials: Trials = Plan.trials,
    tuning_seeds: TuningSeeds = Plan.tuning_seeds,
    seeds: SeedCount = Plan.seeds,
    split: SplitKind = Plan.split,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    latent: Latent = False,
    store: options.StoreFile = None,
    root: options.Root = None,
    workers: options.Workers = None,
    load: Load = None,
) -> None:
    """Search and evaluate what is missing; says first how long it will take."""
    changed = parse_settings(settings or [], Recipe)
    plan = Plan(trials, tuning_seeds, seeds, split, recipe, changed, latent, root)
    cells = _cells(dataset, model, split)
    with Store(store) as opened:
        load_runs(opened, load)
        _announce(plan, cells, opened)
        for each in cells:
            for row in cell_rows(plan, *each, _through(opened, root, workers)):
                typer.echo(_line(row), err=True)


def table(
    dataset: Datasets = None,
    model: Models = None,
    trials: Trials = Plan.trials,
    tuning_seeds: TuningSeeds = Plan.tuning_seeds,
    seeds: SeedCount = Plan.seeds,
    split: SplitKind = Plan.split,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    latent: Latent = False,
    store: options.StoreFile = None,
    root: options.Root = None,
    load: Load = None,
    results: Results = RESULTS,
) -> None:
    """Write the table, all trials and all runs to files, and print it; trains nothing."""
    changed = parse_settings(settings or [], Recipe)
    plan = Plan(trials, tuning_seeds, seeds, split, recipe, changed, latent, root)
    keys: set[str] = set()
    with Store(store) as opened:
        load_runs(opened, load)
        run = _noting(keys, _out_of(opened))
        rows = [
            row
            for each in _cells(dataset, model, split)
            for row in cell_rows(plan, *each, run)
        ]  # fmt: skip
        markdown = to_markdown(rows, plan)
        trials_of = [
            {n: row[n] for n in ("dataset", "model", "precision", "trials")}
            for row in rows
            if "trials" in row
        ]
        rows = [{n: value for n, value in row.items() if n != "trials"} for row in rows]
        write_results(results, "tuned", rows, markdown, opened, keys, trials=trials_of)
    typer.echo(markdown)


def _noting(keys: set[str], run: Run) -> Callable[[list[RunSpec]], list[Record]]:
    def noted(specs: list[RunSpec]) -> list[Record]:
        records = run(specs)
        keys.update(record["key"] for record in records)
        return records

    return noted


def _line(row: Row) -> str:
    chosen = " ".join(f"{name}={value:g}" for name, value in row["settings"].items())
    name = f"{row['dataset']} {row['model']} {precision_name(row['precision'])}"
    return f"{name}: {mean_sd(row)} {difference(row)} ({chosen})"


app = command_line(__doc__, run, table)

if __name__ == "__main__":
    main(app)
