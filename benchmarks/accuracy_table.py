"""The accuracy table: ternary and 32-bit models, with one recipe for all of its cells.

    python -m benchmarks.accuracy_table run                  # trains what is missing
    python -m benchmarks.accuracy_table table                # writes results/accuracy.*
    python -m benchmarks.accuracy_table bars                 # says which of the bars are met
    python -m benchmarks.accuracy_table figure               # draws the differences

Every run is stored as it finishes and none takes place twice. Of everything the first seed is run
first, so that a study which is stopped has a whole table of fewer seeds. `--load
benchmarks/results/accuracy.jsonl.gz` goes on from the runs that are published.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.accuracy_bars import judge_all, verdicts_markdown
from benchmarks.accuracy_figure import differences_figure
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
    main,
    markdown_table,
    write_figure,
    write_results,
)
from bitgnn.cli import options
from bitgnn.experiment import Comparison, RunSpec, Store
from bitgnn.experiment.command import parse_seeds
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.complete import complete
from bitgnn.experiment.format import (
    MISSING,
    TO_DISTILLED,
    TO_FULL,
    difference,
    mean_sd,
    notes,
    number,
)
from bitgnn.experiment.rows import DISTILLED, PRECISIONS, Row
from bitgnn.training import Recipe, recipe_for
from bitgnn.training.parts import quant_for
from bitgnn.training.settings import parse_settings

PLANETOID = ("Cora", "CiteSeer", "PubMed")
LARGER = ("Computers", "CS")
MODELS = ("gcn", "sage", "gat", "sgc", "mlp")
TERNARY = ("absmean", "absmedian")


@dataclass(frozen=True)
class Section:
    """A part of the table: one split, one way to quantize.

    Args:
        title (str): Its heading.
        split (str): The kind of split.
        seeds (int): The number of seeds.
        datasets ([str]): The data sets.
        quant (dict, optional): What its ternary models quantize otherwise than the recipe says.
        settings (dict, optional): Fields of the recipe that differ.
    """

    title: str
    split: str = "public"
    seeds: int = 20
    datasets: Sequence[str] = PLANETOID
    quant: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


# SGC has no hidden layer: in the last section its width is that of the others.
SECTIONS = {
    "public": Section("Public split"),
    "random": Section("Random splits", "random", 10, (*PLANETOID, *LARGER)),
    "4-bit": Section("4-bit activations, public split", quant={"activation_bits": 4}),
    "2-bit-wide": Section(
        "2-bit activations and twice the width, public split",
        quant={"activation_bits": 2},
        settings={"width": 2},
    ),
}


@dataclass(frozen=True)
class Choice:
    """What of the table is meant; all of it by default."""

    sections: Sequence[str] = tuple(SECTIONS)
    datasets: Sequence[str] | None = None
    models: Sequence[str] = MODELS
    seeds: Sequence[int] | None = None
    recipe: str = "default"
    settings: dict[str, Any] = field(default_factory=dict)
    root: Path | None = None

    def __post_init__(self) -> None:
        for what, names, allowed in (
            ("section", self.sections, tuple(SECTIONS)),
            ("data set", self.datasets or (), _datasets()),
            ("model", self.models, MODELS),
        ):
            for name in names:
                if name not in allowed:
                    raise ValueError(
                        f"The table has no {what} '{name}'; it has {', '.join(allowed)}"
                    )

    def cells(self, name: str) -> Iterator[tuple[str, str]]:
        """The data sets and models of a section."""
        for dataset in SECTIONS[name].datasets:
            if self.datasets is None or dataset in self.datasets:
                yield from ((dataset, model) for model in self.models)

    def seeds_of(self, name: str) -> list[int]:
        seeds = parse_seeds(SECTIONS[name].seeds)
        return seeds if self.seeds is None else [seed for seed in seeds if seed in self.seeds]

    def specs(self, name: str) -> list[RunSpec]:
        """The runs of a section."""
        section = SECTIONS[name]
        quant = quant_for(self.recipe).replace(**section.quant)
        return [
            spec
            for dataset, model in self.cells(name)
            for spec in build_specs(
                dataset,
                model,
                self.seeds_of(name),
                self.recipe,
                root=self.root,
                split=section.split,
                quant=quant,
                settings={**self.settings, **section.settings},
            )
        ]


def all_specs(choice: Choice) -> list[RunSpec]:
    """The runs of all sections; they share those in 32 bits."""
    specs = [spec for name in choice.sections for spec in choice.specs(name)]
    return list({spec.key: spec for spec in specs}.values())


def table_rows(choice: Choice, store: Store) -> list[Row]:
    """One row a section, data set, model and precision; what has not been run has one as well,
    without numbers."""
    rows = []
    for name in choice.sections:
        records = [store.get(spec.key) for spec in choice.specs(name)]
        found = {
            (row["dataset"], row["model"], row["precision"]): row
            for row in Comparison.from_records(record for record in records if record).rows
        }
        for dataset, model in choice.cells(name):
            full = found.get((dataset, model, "fp32"), {})
            for precision in PRECISIONS:
                if precision == DISTILLED and not _has_teacher(choice, dataset, model):
                    continue
                row = found.get((dataset, model, precision))
                row = row or _missing(dataset, model, precision, SECTIONS[name].split)
                sd, sd_full = row["sd"], full.get("sd")
                rows.append(
                    {
                        "section": name,
                        **row,
                        "seeds_wanted": choice.seeds_of(name),
                        "sd_fp32": sd_full,
                        "sd_ratio": sd / sd_full if sd is not None and sd_full else None,
                    }
                )
    return rows


def table_markdown(rows: Sequence[Row]) -> str:
    """The table as a page."""
    lines = [
        "# Accuracy, ternary and 32-bit",
        "",
        "Test accuracy in percent, mean ± standard deviation over seeds. Differences are paired by "
        "seed, with their 95 % interval; *distilled* is 32-bit with the teacher that the ternary "
        "side has. *sd* is the ternary standard deviation over that of 32-bit. All cells have one "
        "recipe. A cell with (k/n) has k of its n seeds so far.",
    ]
    for name in dict.fromkeys(row["section"] for row in rows):
        mine = [row for row in rows if row["section"] == name]
        for precision in TERNARY:
            lines += ["", f"## {SECTIONS[name].title}: {precision}", ""]
            lines.append(_table(mine, precision))
        remarks = notes([row for row in mine if row["seeds"]])
        lines += ["", *(f"- {note}" for note in remarks)] if remarks else []
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row], precision: str) -> str:
    by_cell = {(row["dataset"], row["model"], row["precision"]): row for row in rows}
    header = ["data set", "model", "32-bit", "32-bit distilled", precision]
    header += ["minus 32-bit", "minus distilled", "sd"]
    lines = []
    for dataset, model in dict.fromkeys((row["dataset"], row["model"]) for row in rows):
        sides = ("fp32", DISTILLED, precision)
        cells = [by_cell.get((dataset, model, side)) for side in sides]
        row = by_cell[dataset, model, precision]
        ratio = MISSING if row["sd_ratio"] is None else f"× {number(row['sd_ratio'])}"
        differences = [difference(row, to) or MISSING for to in (TO_FULL, TO_DISTILLED)]
        lines.append([dataset, model, *map(_mean, cells), *differences, ratio])
    return markdown_table(header, lines, names=2)


def _mean(row: Row | None) -> str:
    if row is None or row["mean"] is None:
        return MISSING
    done, wanted = len(row["seeds"]), len(row["seeds_wanted"])
    return mean_sd(row) + (f" ({done}/{wanted})" if done < wanted else "")


def _missing(dataset: str, model: str, precision: str, split: str) -> Row:
    names = {"dataset": dataset, "model": model, "precision": precision, "split": split}
    numbers = ["mean", "sd", "weight_bytes", "weight_bytes_fp32", "zeros", "command"]
    numbers += [
        f"{to}_{each}" for to in (TO_FULL, TO_DISTILLED) for each in ("mean", "low", "high")
    ]
    lists = {"seeds": [], "accuracies": [], "diverged": []}
    return {**names, **lists, **dict.fromkeys(numbers)}


def _has_teacher(choice: Choice, dataset: str, model: str) -> bool:
    recipe = recipe_for(model, dataset, choice.recipe).replace(**choice.settings)
    return recipe.teacher is not None


def _datasets() -> tuple[str, ...]:
    return tuple({name: None for each in SECTIONS.values() for name in each.datasets})


def _choice(
    section: list[str] | None,
    dataset: list[str] | None,
    model: list[str] | None,
    seeds: str | None,
    recipe: str,
    settings: list[str] | None,
    root: Path | None,
) -> Choice:
    return Choice(
        section or tuple(SECTIONS),
        dataset,
        model or MODELS,
        None if seeds is None else parse_seeds(seeds),
        recipe,
        parse_settings(settings or [], Recipe),
        root,
    )


SectionNames = Annotated[
    list[str] | None, typer.Option("--section", metavar="NAME...", help=" ".join(SECTIONS))
]
Seeds = Annotated[
    str | None, typer.Option("--seeds", metavar="N", help="Fewer of the seeds: 5, 5:8 or 4,9.")
]


def run(
    section: SectionNames = None,
    dataset: Datasets = None,
    model: Models = None,
    seeds: Seeds = None,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    workers: options.Workers = None,
    load: Load = None,
) -> None:
    """Train what is missing; says first how long it will take."""
    choice = _choice(section, dataset, model, seeds, recipe, settings, root)
    with Store(store) as opened:
        load_runs(opened, load)
        complete(all_specs(choice), opened, root, workers=workers)


def table(
    section: SectionNames = None,
    dataset: Datasets = None,
    model: Models = None,
    seeds: Seeds = None,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    load: Load = None,
    results: Results = RESULTS,
) -> None:
    """Write the table, the bars and the runs to files, and print them."""
    choice = _choice(section, dataset, model, seeds, recipe, settings, root)
    with Store(store) as opened:
        load_runs(opened, load)
        rows = table_rows(choice, opened)
        verdicts = judge_all(rows)
        markdown = f"{table_markdown(rows)}\n{verdicts_markdown(verdicts)}"
        keys = {spec.key for spec in all_specs(choice)}
        bars = [verdict.to_dict() for verdict in verdicts]
        write_results(results, "accuracy", rows, markdown, opened, keys, bars=bars)
    typer.echo(markdown)


def bars(
    section: SectionNames = None,
    dataset: Datasets = None,
    model: Models = None,
    seeds: Seeds = None,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    load: Load = None,
) -> None:
    """Judge the bars cell by cell."""
    choice = _choice(section, dataset, model, seeds, recipe, settings, root)
    with Store(store) as opened:
        load_runs(opened, load)
        verdicts = judge_all(table_rows(choice, opened))
    Console().print(Markdown(verdicts_markdown(verdicts)))


def figure(
    section: SectionNames = None,
    dataset: Datasets = None,
    model: Models = None,
    seeds: Seeds = None,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    load: Load = None,
    images: Images = IMAGES,
) -> None:
    """Draw the differences, one figure a section."""
    choice = _choice(section, dataset, model, seeds, recipe, settings, root)
    with Store(store) as opened:
        load_runs(opened, load)
        rows = table_rows(choice, opened)
    for name in choice.sections:
        mine = [row for row in rows if row["section"] == name]
        if any(row["mean"] is not None for row in mine):
            write_figure(images / f"accuracy-{name}.png", differences_figure(mine))


app = command_line(__doc__, run, table, bars, figure)

if __name__ == "__main__":
    main(app)
