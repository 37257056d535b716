"""The command line of the gap analysis.

    python -m benchmarks.gap list                      # the factors, and what is left to run
    python -m benchmarks.gap run weight-decay          # trains what is missing
    python -m benchmarks.gap figure weight-decay       # draws what there is
    python -m benchmarks.gap page                      # page, all figures, results/gap.*

Every run is stored as it finishes and none takes place twice. Of everything the first seed is run
first. `--load benchmarks/results/gap.jsonl.gz` goes on from the runs that are published.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.gap.factors import FACTORS, Factor, factors_named
from benchmarks.gap.figure import draw
from benchmarks.gap.page import HERE, make_page, read_readings
from benchmarks.gap.plan import DATASETS, MODELS, Study, all_specs
from benchmarks.gap.results import Found, find
from benchmarks.study import (
    IMAGES,
    RESULTS,
    Datasets,
    Images,
    Load,
    Models,
    Results,
    command_line,
    load_runs,
    write_figure,
    write_results,
)
from benchmarks.study import main as run_command_line
from bitgnn.cli import options
from bitgnn.cli.many import ManyValues
from bitgnn.cli.output import print_table
from bitgnn.experiment import Store
from bitgnn.experiment.command import parse_seeds
from bitgnn.experiment.complete import complete
from bitgnn.experiment.estimate import estimate_seconds
from bitgnn.experiment.progress import duration
from bitgnn.files import write_whole
from bitgnn.training import Recipe
from bitgnn.training.settings import parse_settings

DOCS = IMAGES.parent
DPI = 120

Factors = Annotated[
    list[str] | None, typer.Argument(metavar="[FACTOR]...", help="See `list`; else all.")
]
Docs = Annotated[Path, typer.Option("--docs", metavar="DIR", help="Where the page goes.")]


def listed(
    factor: Factors = None,
    dataset: Datasets = None,
    model: Models = None,
    seeds: options.Seeds = "5",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    load: Load = None,
) -> None:
    """List the factors, and how long their runs will take."""
    study = _study(dataset, model, seeds, settings, root)
    factors = factors_named(factor)
    table = Table("factor", "question", box=None)
    for name in ("runs", "missing", "time on one core"):
        table.add_column(name, justify="right")
    with Store(store) as opened:
        load_runs(opened, load)
        for each in factors:
            table.add_row(each.name, each.question, *_left([each], study, opened))
        table.add_row("together", "they share runs", *_left(factors, study, opened))
    print_table(table)


def run(
    factor: Factors = None,
    dataset: Datasets = None,
    model: Models = None,
    seeds: options.Seeds = "5",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    workers: options.Workers = None,
    load: Load = None,
) -> None:
    """Train what is missing; says first how long it will take."""
    study = _study(dataset, model, seeds, settings, root)
    with Store(store) as opened:
        load_runs(opened, load)
        complete(all_specs(factors_named(factor), study), opened, root, workers=workers)


def figure(
    factor: Factors = None,
    dataset: Datasets = None,
    model: Models = None,
    seeds: options.Seeds = "5",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    load: Load = None,
    images: Images = IMAGES / "gap",
) -> None:
    """Draw figures of what is finished."""
    study = _study(dataset, model, seeds, settings, root)
    with Store(store) as opened:
        load_runs(opened, load)
        for each in factors_named(factor):
            found = find(each, study, opened)
            if factor is None and not found.whole:
                continue
            typer.echo(_write_figure(found, images))


def page(
    dataset: Datasets = None,
    model: Models = None,
    seeds: options.Seeds = "5",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    load: Load = None,
    docs: Docs = DOCS,
    results: Results = RESULTS,
) -> None:
    """Write the page with all figures, the numbers and the runs."""
    study = _study(dataset, model, seeds, settings, root)
    readings = read_readings((HERE / "readings.md").read_text(encoding="utf-8"))
    with Store(store) as opened:
        load_runs(opened, load)
        known = [find(each, study, opened) for each in FACTORS]
        images = {}
        for found in known:
            if found.whole:
                path = _write_figure(found, docs / "images" / "gap")
                images[found.factor.name] = path.relative_to(docs).as_posix()
        rows = [row for found in known for row in found.published()]
        keys = {spec.key for spec in all_specs(FACTORS, study)}
        write_results(results, "gap", rows, None, opened, keys)
    text = make_page(known, study, images, readings)
    write_whole(docs / "gap-analysis.md", text.encode())
    typer.echo(docs / "gap-analysis.md")


def _study(
    dataset: Sequence[str] | None,
    model: Sequence[str] | None,
    seeds: str,
    settings: Sequence[str] | None,
    root: Path | None,
) -> Study:
    return Study(
        tuple(dataset or DATASETS),
        tuple(model or MODELS),
        tuple(parse_seeds(seeds)),
        parse_settings(settings or [], Recipe),
        root,
    )


def _left(factors: Sequence[Factor], study: Study, store: Store) -> tuple[str, str, str]:
    specs = all_specs(factors, study)
    missing = [spec for spec in specs if store.get(spec.key) is None]
    seconds = estimate_seconds(missing, store) if missing else 0.0
    time = "known after the first" if seconds is None else duration(seconds)
    return str(len(specs)), str(len(missing)), time if missing else ""


def _write_figure(found: Found, folder: Path) -> Path:
    path = folder / f"{found.factor.name}.png"
    write_figure(path, draw(found), DPI)
    return path


app = command_line(__doc__, run, figure, page)
app.command("list", cls=ManyValues)(listed)


def main() -> None:
    """Runs the command line."""
    run_command_line(app)
