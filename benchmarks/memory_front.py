"""Memory against accuracy: the front of bytes and test accuracy over widths and bit widths.

    python -m benchmarks.memory_front run        # trains what is missing
    python -m benchmarks.memory_front figure     # writes results/memory_front.* and the figure

One data set a model: GCN and GAT on Cora, whose 1433 features make the first matrix nearly all of
the model; GraphSAGE on CiteSeer with 3703 of them; MLP and SGC on PubMed, where the matrices are
small and constants (biases, scales) weigh most. SGC has no hidden layer and so one size per bit
width. All sides are tuned alike: the same four settings on the same validation seeds, at every
width. The teacher of those that have one is the 32-bit model of the published width. The front of
32 bits takes the better of plain and distilled.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.study import (
    IMAGES,
    RESULTS,
    Images,
    Load,
    Results,
    command_line,
    load_runs,
    main,
    markdown_table,
    write_figure,
    write_results,
)
from bitgnn.cli import options
from bitgnn.experiment import RunSpec, Store
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.complete import complete
from bitgnn.experiment.format import MISSING, mean_sd, memory
from bitgnn.experiment.plots import GREY
from bitgnn.experiment.rows import DISTILLED, Record, Row, rows_from_records
from bitgnn.experiment.statistics import pair_by_seed, paired_difference
from bitgnn.experiment.tune import Settings, try_all
from bitgnn.training import Recipe, recipe_for
from bitgnn.training.parts import quant_for
from bitgnn.training.settings import parse_settings

DATASETS = {"gcn": "Cora", "sage": "CiteSeer", "gat": "Cora", "mlp": "PubMed", "sgc": "PubMed"}
NAMES = {"gcn": "GCN", "sage": "GraphSAGE", "gat": "GAT", "mlp": "MLP", "sgc": "SGC"}
WIDTHS = (2, 4, 8, 16, 32, 64, 128, 256)
TUNING_SEED = 1000


@dataclass(frozen=True)
class Series:
    """The models of one bit width: what they are called, and how they look."""

    precision: str
    weight_bits: float | None
    color: str
    marker: str


SERIES = {
    "32-bit": Series("fp32", None, "#0072B2", "o"),
    "32-bit distilled": Series(DISTILLED, None, "#56B4E9", "v"),
    "8-bit": Series("absmean", 8, "#999999", "D"),
    "4-bit": Series("absmean", 4, "#E69F00", "P"),
    "2-bit": Series("absmean", 2, "#CC79A7", "X"),
    "1.58-bit": Series("absmean", 1.58, "#D55E00", "s"),
}
FULL, TERNARY = ("32-bit", "32-bit distilled"), "1.58-bit"


@dataclass(frozen=True)
class Point:
    """A model of one width and bit width."""

    model: str
    series: str
    width: int

    @property
    def dataset(self) -> str:
        return DATASETS[self.model]


@dataclass(frozen=True)
class Plan:
    """What is drawn, and with which budget."""

    models: Sequence[str] = tuple(DATASETS)
    widths: Sequence[int] = WIDTHS
    seeds: int = 10
    tuning_seeds: int = 2
    recipe: str = "default"
    settings: Mapping[str, Any] | None = None
    root: Path | None = None

    def __post_init__(self) -> None:
        for model in self.models:
            if model not in DATASETS:
                raise ValueError(f"There is no model '{model}'; there are {', '.join(DATASETS)}")

    def recipe_of(self, model: str, dataset: str | None = None) -> Recipe:
        # A teacher of another width has no parameters to begin with.
        changes = {**(self.settings or {}), "start": "scratch"}
        return recipe_for(model, dataset or DATASETS[model], self.recipe).replace(**changes)

    def points(self) -> Iterator[Point]:
        for model in self.models:
            taught = self.recipe_of(model).teacher is not None
            series = [name for name in SERIES if taught or name != "32-bit distilled"]
            # SGC's width is that of the others, and changes nothing.
            widths = self.widths if model != "sgc" else (Recipe.hidden_channels,)
            yield from (Point(model, name, width) for name in series for width in widths)

    def candidates(self, model: str) -> list[Settings]:
        """Four settings. Narrow layers bear less dropout, and want larger steps."""
        recipe = self.recipe_of(model)
        if model == "sgc":
            decays = (recipe.weight_decay, recipe.weight_decay / 10)
            return [
                {"lr": lr, "weight_decay": decay}
                for lr, decay in product((recipe.lr, 3 * recipe.lr), decays)
            ]
        drops = [
            name
            for name in ("dropout", "input_dropout", "attention_dropout")
            if getattr(recipe, name) > 0
        ]
        return [
            {
                "lr": recipe.lr * faster,
                **{name: round(getattr(recipe, name) * less, 3) for name in drops},
            }
            for faster, less in product((1, 3), (1, 0.25))
        ]

    def specs(self, point: Point, settings: Settings, seeds: Sequence[int]) -> list[RunSpec]:
        """The runs of a model with given settings, one a seed."""
        series, base = SERIES[point.series], self.recipe_of(point.model)
        width = {"hidden_channels": point.width}
        if point.model == "gat":
            width["heads"] = math.gcd(base.heads, point.width)
        specs = build_specs(
            point.dataset,
            point.model,
            seeds,
            base.replace(**width, **settings),
            series.precision,
            self.root,
            quant=quant_for(self.recipe).replace(weight_bits=series.weight_bits or 1.58),
        )
        teacher = point.model if base.teacher == "same" else base.teacher
        if specs[0].teacher is None or teacher is None:
            return specs
        plain = self.recipe_of(teacher, point.dataset).plain()
        taught_by = {"model": teacher, "recipe": plain.to_record()}
        return [replace(spec, teacher=taught_by) for spec in specs]

    def tuning_specs(self, point: Point) -> list[RunSpec]:
        seeds = range(TUNING_SEED, TUNING_SEED + self.tuning_seeds)
        candidates = self.candidates(point.model)
        return [spec for each in candidates for spec in self.specs(point, each, seeds)]

    def chosen(self, point: Point, store: Store) -> tuple[Settings, float] | None:
        """The settings with the best validation metric; :obj:`None` if they are not all tried."""
        specs = self.tuning_specs(point)
        records = {spec.key: store.get(spec.key) for spec in specs}
        if None in records.values():
            return None
        seeds = range(TUNING_SEED, TUNING_SEED + self.tuning_seeds)
        best = try_all(
            lambda settings: self.specs(point, settings, seeds),
            self.candidates(point.model),
            lambda specs: [record for spec in specs if (record := records[spec.key])],
        ).best
        return best.settings, best.val


def point_rows(plan: Plan, store: Store, keys: set[str] | None = None) -> list[Row]:
    """One row a point; without numbers if its runs are not at hand."""
    rows = []
    for point in plan.points():
        row: Row = {"model": point.model, "dataset": point.dataset, "series": point.series}
        row |= {"width": point.width, "settings": None, "val": None, "accuracies": []}
        row |= {"seeds": [], "diverged": [], **dict.fromkeys(("mean", "sd", "low", "high"))}
        chosen = plan.chosen(point, store)
        if chosen is not None:
            settings, val = chosen
            specs = plan.specs(point, settings, range(plan.seeds))
            records = [record for spec in specs if (record := store.get(spec.key))]
            row |= {"settings": settings, "val": val, **_numbers(records)}
            if keys is not None:
                keys |= {spec.key for spec in (*plan.tuning_specs(point), *specs)}
        rows.append(row)
    return rows


def _numbers(records: Sequence[Record]) -> Row:
    if not records:
        return {}
    (row,) = rows_from_records(records)
    names = ("seeds", "accuracies", "diverged", "mean", "sd", "weight_bytes", "metric")
    finished = [accuracy for accuracy in row["accuracies"] if accuracy is not None]
    # The interval of a mean is that of its difference to nothing.
    _, low, high = paired_difference(finished, [0.0] * len(finished))
    return {**{name: row[name] for name in names}, "low": low, "high": high}


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats with as many bytes or fewer, by size."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["weight_bytes"], -row["mean"])):
        if not best or row["mean"] > best[-1]["mean"]:
            best.append(row)
    return best


def best_within(rows: Sequence[Row], num_bytes: float) -> Row | None:
    """The most accurate of rows that fit into a number of bytes."""
    fitting = [row for row in rows if row["weight_bytes"] <= num_bytes]
    return max(fitting, key=lambda row: row["mean"], default=None)


def lead(ternary: Sequence[Row], full: Sequence[Row], clearly: bool = False) -> float:
    r"""Returns the size up to which ternary dominates: in any smaller budget its most accurate
    model is at least as accurate as the most accurate one in 32 bits.

    Args:
        ternary (list[dict]): The ternary rows.
        full (list[dict]): The rows in 32 bits.
        clearly (bool, optional): If set to :obj:`True`, the lead ends only where 32 bits are
            better by more than chance: the 95 % interval of the paired difference lies above 0.
            (default: :obj:`False`)

    Returns:
        Bytes: the smallest model in 32 bits that ends the lead, infinite if none does.
    """
    for row in front(full):
        best = best_within(ternary, row["weight_bytes"])
        if best is None or (row["mean"] > best["mean"] and not clearly):
            return float(row["weight_bytes"])
        if clearly:
            _, low, _ = paired_difference(*_pairs(row, best))
            if low is not None and low > 0:
                return float(row["weight_bytes"])
    return math.inf


def _pairs(a: Row, b: Row) -> tuple[list[float], list[float]]:
    sides = (dict(zip(each["seeds"], each["accuracies"], strict=True)) for each in (a, b))
    return pair_by_seed(*sides)


def findings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One finding a model: up to which size 1.58 bits dominate, and what they save."""
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model and row["mean"] is not None]
        ternary = [row for row in mine if row["series"] == TERNARY]
        full = [row for row in mine if row["series"] in FULL]
        if not ternary or not full:
            continue
        ends = {"lead_bytes": lead(ternary, full), "not_behind_bytes": lead(ternary, full, True)}
        found.append(
            {
                "model": model,
                "dataset": DATASETS[model],
                "smallest_fp32_bytes": min(row["weight_bytes"] for row in full),
                "largest_fp32_bytes": max(row["weight_bytes"] for row in full),
                **{name: end if math.isfinite(end) else None for name, end in ends.items()},
            }
        )
    return found


def finding_text(finding: Mapping[str, Any]) -> str:
    """A finding in a sentence."""
    name = f"{NAMES[finding['model']]} on {finding['dataset']}"
    lead_end, clear_end = finding["lead_bytes"], finding["not_behind_bytes"]
    if lead_end is None:
        text = "1.58-bit dominates 32-bit at every size tried"
    elif lead_end <= finding["smallest_fp32_bytes"]:
        text = f"1.58-bit dominates only below {memory(lead_end)}, where no 32-bit model fits"
    else:
        text = f"1.58-bit dominates 32-bit below {memory(lead_end)}"
    if clear_end is None:
        text += "; 32-bit is clearly ahead nowhere"
    else:
        text += f"; 32-bit is clearly ahead from {memory(clear_end)} on"
    return f"{name}: {text} (32-bit models have {memory(finding['smallest_fp32_bytes'])} to " \
           f"{memory(finding['largest_fp32_bytes'])})."  # fmt: skip


def draw(rows: Sequence[Row]) -> Figure:
    """A panel a model: bytes against test accuracy, the two fronts, and where the lead ends."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    columns = min(3, len(models) + 1)
    lines = -(-(len(models) + 1) // columns)  # one place is for the legend
    figure = Figure(figsize=(3.5 * columns, 3.1 * lines + 0.3), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    by_model = {finding["model"]: finding for finding in findings(rows)}
    for ax, model in zip(axes, models, strict=False):
        _panel(ax, [row for row in rows if row["model"] == model], by_model.get(model))
    for ax in axes[len(models) :]:
        ax.axis("off")
    for column, ax in enumerate(axes[: len(models)]):
        if column % columns == 0:
            ax.set_ylabel("Test accuracy, %")
    shown = [name for name in SERIES if any(row["series"] == name for row in rows)]
    for name in shown:
        series = SERIES[name]
        axes[len(models)].errorbar(
            [], [], yerr=[], color=series.color, marker=series.marker, ls="none", label=name
        )
    for name, color in (("front of 32 bits", SERIES["32-bit"].color),
                        ("front of 1.58 bits", SERIES[TERNARY].color)):  # fmt: skip
        axes[len(models)].plot([], [], color=color, lw=1.8, drawstyle="steps-post", label=name)
    axes[len(models)].plot([], [], color=GREY, ls=":", label="1.58 bits lead up to here")
    axes[len(models)].legend(loc="center", frameon=False)
    figure.supxlabel(
        "Memory of the weights, KiB (log scale)\n"
        "As stored, ternary ones five a byte. Bar: 95 % interval of the mean over seeds",
        fontsize=9,
    )
    return figure


def _panel(ax: Axes, rows: Sequence[Row], finding: Mapping[str, Any] | None) -> None:
    drawn = [row for row in rows if row["mean"] is not None]
    for name, series in SERIES.items():
        mine = [row for row in drawn if row["series"] == name]
        if not mine:
            continue
        # One seed has no interval.
        errors = [[row["mean"] - row["low"] if row["low"] is not None else 0.0 for row in mine]] * 2
        ax.errorbar(
            [row["weight_bytes"] / 1024 for row in mine],
            [row["mean"] for row in mine],
            yerr=errors,
            color=series.color,
            marker=series.marker,
            ms=4.5,
            ls="none",
            elinewidth=1,
            zorder=3,
        )
    right = 1.4 * max((row["weight_bytes"] for row in drawn), default=1024) / 1024
    for names, color in ((FULL, SERIES["32-bit"].color), ((TERNARY,), SERIES[TERNARY].color)):
        best = front([row for row in drawn if row["series"] in names])
        if best:
            x = [row["weight_bytes"] / 1024 for row in best] + [right]
            y = [row["mean"] for row in best] + [best[-1]["mean"]]
            ax.step(x, y, where="post", color=color, lw=1.8, alpha=0.75, zorder=2)
    title = f"{NAMES[rows[0]['model']]}, {rows[0]['dataset']}"
    if finding is not None:
        title += f"\n{_lead_text(finding)}"
        if finding["lead_bytes"] is not None:
            ax.axvline(finding["lead_bytes"] / 1024, color=GREY, ls=":", lw=1.2, zorder=1)
    ax.set_title(title, fontsize=10)
    if drawn:
        # Few seeds have wide intervals, which must not squeeze the rest.
        means = [row["mean"] for row in drawn]
        margin = 0.08 * (max(means) - min(means)) + 1.0
        ax.set_ylim(min(means) - margin, max(means) + margin)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda kib, _: f"{kib:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(labelsize=9)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _lead_text(finding: Mapping[str, Any]) -> str:
    end = finding["lead_bytes"]
    if end is None:
        return "1.58 bits lead at every size"
    nowhere = end <= finding["smallest_fp32_bytes"]
    return f"{'32 bits lead from' if nowhere else '1.58 bits lead below'} {memory(end)}"


def to_markdown(rows: Sequence[Row], plan: Plan) -> str:
    """The findings and all points as a page."""
    header = ["model", "data set", "bits", "width", "weights", "test", "chosen settings"]
    lines = [
        [
            NAMES[row["model"]],
            row["dataset"],
            row["series"],
            MISSING if row["model"] == "sgc" else str(row["width"]),
            memory(row.get("weight_bytes")),
            mean_sd(row),
            " ".join(f"{k}={v:g}" for k, v in (row["settings"] or {}).items()) or MISSING,
        ]
        for row in rows
    ]
    others = "another seed" if plan.tuning_seeds == 1 else f"{plan.tuning_seeds} other seeds"
    about = (
        f"Test accuracy in percent, mean ± sd over {plan.seeds} seeds, of the best of four "
        f"settings on the validation data of {others}. *Dominates*: in any "
        "smaller budget the best 1.58-bit model is at least as accurate as the best 32-bit one, "
        "plain or distilled. *Clearly*: the 95 % interval of the paired difference excludes 0."
    )
    said = [f"- {finding_text(finding)}" for finding in findings(rows)]
    table = markdown_table(header, lines, names=3)
    return "\n".join(["# Memory against accuracy", "", about, "", *said, "", table]) + "\n"


Models = Annotated[
    list[str] | None, typer.Option("--model", metavar="NAME...", help=" ".join(DATASETS))
]
Widths = Annotated[list[int] | None, typer.Option("--width", metavar="N...")]
SeedCount = Annotated[int, typer.Option("--seeds", help="Of the evaluation.")]
TuningSeeds = Annotated[int, typer.Option("--tuning-seeds", help="Of each of four settings.")]


def run(
    model: Models = None,
    width: Widths = None,
    seeds: SeedCount = Plan.seeds,
    tuning_seeds: TuningSeeds = Plan.tuning_seeds,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    workers: options.Workers = None,
    load: Load = None,
) -> None:
    """Train what is missing; says first how long it will take."""
    plan = Plan(model or tuple(DATASETS), width or WIDTHS, seeds, tuning_seeds, recipe,
                parse_settings(settings or [], Recipe), root)  # fmt: skip
    points = list(plan.points())
    with Store(store) as opened:
        load_runs(opened, load)
        tuning = [spec for point in points for spec in plan.tuning_specs(point)]
        typer.echo(f"Search: {len(tuning)} runs, then {seeds * len(points)} to evaluate", err=True)
        complete(_distinct(tuning), opened, root, workers=workers)
        final = [
            spec
            for point in points
            if (chosen := plan.chosen(point, opened)) is not None
            for spec in plan.specs(point, chosen[0], range(seeds))
        ]
        complete(_distinct(final), opened, root, workers=workers)


def figure(
    model: Models = None,
    width: Widths = None,
    seeds: SeedCount = Plan.seeds,
    tuning_seeds: TuningSeeds = Plan.tuning_seeds,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    load: Load = None,
    results: Results = RESULTS,
    images: Images = IMAGES,
) -> None:
    """Write the figure, the table and the runs to files, and print the findings."""
    plan = Plan(model or tuple(DATASETS), width or WIDTHS, seeds, tuning_seeds, recipe,
                parse_settings(settings or [], Recipe), root)  # fmt: skip
    keys: set[str] = set()
    with Store(store) as opened:
        load_runs(opened, load)
        rows = point_rows(plan, opened, keys)
        found = findings(rows)
        markdown = to_markdown(rows, plan)
        write_results(results, "memory_front", rows, markdown, opened, keys, findings=found)
    write_figure(images / "memory-front.png", draw(rows))
    typer.echo(markdown)


def _distinct(specs: Sequence[RunSpec]) -> list[RunSpec]:
    return list({spec.key: spec for spec in specs}.values())


app = command_line(__doc__, run, figure)

if __name__ == "__main__":
    main(app)
