"""Regenerates the text-classification table of the papers: WideMLP on the five corpora of TextGCN.

Their protocol: bags of the words of bert-base-uncased's tokenizer, embeddings of width 1024, ReLU,
dropout 0.5 of the summed embeddings and 0.5 behind the ReLU, a linear output layer, AdamW with a
learning rate that falls linearly to 0, all training documents, test accuracy after the last step.
Ours keeps that but for the tokens (scikit-learn's) and how long and with which learning rate it
trains, which docs/text.md explains.

    python benchmarks/text_table.py --root data --seeds 5

prints the table beside the published one and writes `results/text.json` and `results/text.csv`
beside this file. Finished runs are kept in --store: stop it at any moment, and it goes on where it
was. One process, one thread.

    python benchmarks/text_table.py --split held-out --corpus R8 MR --set steps=100

validates on a tenth of the training documents instead, prints only, and never looks at a test
document: how the recipe was chosen.
"""

import argparse
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bitgnn.data.text import TEXT_SPLITS, TEXTS, TextTask, text_task
from bitgnn.data.text_features import MAX_WORDS, MIN_DOCUMENTS, TOKEN_PATTERN, WEIGHTINGS
from bitgnn.experiment.cost import share_of_zeros, weight_bytes
from bitgnn.experiment.passport import passport
from bitgnn.experiment.progress import duration
from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.statistics import pair_by_seed, paired_difference, summary
from bitgnn.experiment.store import Store
from bitgnn.files import write_whole
from bitgnn.quant import QuantConfig
from bitgnn.training.distill import Teacher
from bitgnn.training.settings import parse_settings
from bitgnn.training.text import TextRecipe, TextResult, build_text_model, fit_text

RESULTS = Path(__file__).parent / "results"
SIDES = (
    "fp32",
    "output-absmean",
    "output-absmedian",
    "all-absmean",
    "all-absmedian",
    "fp32-distilled",
)
# Fully ternary models begin from the 32-bit model of their seed and learn from it: chosen on
# held-out training documents (docs/text.md). `fp32-distilled` is a 32-bit model with the same help.
TAUGHT = {"start": "teacher", "teacher_weight": 3.0}
TAUGHT_SIDES = ("fp32-distilled", "all-absmean", "all-absmedian")
# Fields of the recipe that concern no other side.
OWN = ("latent_lr", "latent_weight_decay", "teacher_weight", "temperature", "start")
NAMES = {"tfidf": "TF-IDF", "bow": "bag of words"}

# What is published for the five corpora in the order of TEXTS, with bert-base-uncased's tokens:
# 32-bit by Galke & Scherp, https://arxiv.org/abs/2109.03777, and 1.58-bit (the output layer) in
# https://arxiv.org/abs/2411.05882.
PUBLISHED = {
    ("tfidf", "fp32"): (84.20, 97.08, 93.67, 66.06, 76.32),
    ("bow", "fp32"): (83.31, 97.27, 93.89, 63.95, 76.72),
    ("bow", "output-absmean"): (79.89, 97.40, 93.54, 60.75, 77.10),
    ("bow", "output-absmedian"): (80.08, 97.35, 94.20, 62.28, 76.14),
}


@dataclass(frozen=True)
class Run:
    """One model on one corpus."""

    corpus: str
    weighting: str
    side: str
    seed: int
    split: str
    recipe: TextRecipe
    root: str | None

    @property
    def layers(self) -> str:
        return "output" if self.side.startswith("output") else "all"

    @property
    def quant(self) -> QuantConfig | None:
        measure = None if self.side.startswith("fp32") else self.side.partition("-")[2]
        return QuantConfig(weight_measure=measure) if measure else None

    def spec(self, checksum: str) -> RunSpec:
        features = {
            "weighting": self.weighting,
            "tokens": TOKEN_PATTERN,
            "min_documents": MIN_DOCUMENTS,
            "max_words": MAX_WORDS,
        }
        return RunSpec(
            dataset=self.corpus,
            split_kind=self.split,
            checksum=checksum,
            model=f"wide_mlp-{self.weighting}",
            precision=self.side,
            quant=None if self.quant is None else self.quant.to_dict(),
            recipe={**self.recipe.to_dict(), **features},
            seed=self.seed,
        )


@cache
def open_task(corpus: str, split: str, root: str | None) -> TextTask:
    return text_task(corpus, root, split)


@cache
def features(corpus: str, split: str, root: str | None, seed: int, weighting: str) -> torch.Tensor:
    t = open_task(corpus, split, root)
    return t.features(t.split(seed), weighting)


def train(run: Run) -> tuple[torch.nn.Module, TextResult]:
    t = open_task(run.corpus, run.split, run.root)
    # The published split is the same for all seeds.
    seed = 0 if run.split == "published" else run.seed
    x = features(run.corpus, run.split, run.root, seed, run.weighting)
    teacher = None
    if run.recipe.taught:
        taught_by, finished = train_full(replace(run, side="fp32", recipe=plain(run.recipe)))
        teacher = Teacher(finished.logits, taught_by.state_dict())
    torch.manual_seed(run.seed)
    model = build_text_model(x.size(1), t.num_classes, run.recipe, run.quant, run.layers)
    return model, fit_text(model, t, t.split(run.seed), x, run.recipe, run.seed, teacher)


def plain(recipe: TextRecipe) -> TextRecipe:
    """The recipe without what concerns taught and fully ternary models alone."""
    neutral = TextRecipe()
    return recipe.replace(**{name: getattr(neutral, name) for name in OWN})


# The 32-bit side is the teacher of the ternary ones that come after it.
train_full = lru_cache(maxsize=1)(train)


def execute(run: Run, spec: RunSpec) -> dict[str, Any]:
    model, result = train_full(run) if run.side == "fp32" else train(run)
    packed, full = weight_bytes(model)
    return {
        "key": spec.key,
        "spec": spec.to_dict(),
        "metric": "accuracy",
        "test": result.test,
        "val": result.val,
        "losses": [round(loss, 4) for loss in result.losses[9::10]],
        "seconds": round(result.seconds, 3),
        "diverged": result.diverged,
        "weight_bytes": packed,
        "weight_bytes_fp32": full,
        "zeros": share_of_zeros(model),
        "passport": passport("cpu"),
    }


def plan(args: argparse.Namespace, recipe: TextRecipe) -> Iterator[Run]:
    """All runs: seed by seed, so that one that is stopped has a whole table of fewer seeds, and
    the 32-bit side before what it teaches."""
    for seed, corpus, weighting in product(range(args.seeds), args.corpus, args.weighting):
        for side in SIDES:
            if side in args.side:
                own = recipe if side in TAUGHT_SIDES else plain(recipe)
                yield Run(corpus, weighting, side, seed, args.split, own, args.root)


def estimate(runs: list[Run], known: dict[tuple[str, str, str], float]) -> str:
    """How long runs will take, from the time that runs of the same kind took."""
    times = [known.get((run.corpus, run.weighting, run.side)) for run in runs]
    if not all(times):
        return "how long that takes is known once there is one run of each kind"
    return f"about {duration(sum(time for time in times if time))} on one core"


def known_seconds(store: Store) -> dict[tuple[str, str, str], float]:
    """The median time of a run of each kind: in the store or, if it has none, as published here."""
    path = RESULTS / "text.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    known = {(row["corpus"], row["weighting"], row["side"]): row["seconds"] for row in rows}
    stored: dict[tuple[str, str, str], list[float]] = {}
    for record in store.records():
        spec = record["spec"]
        kind = spec["dataset"], spec["recipe"].get("weighting"), spec["precision"]
        stored.setdefault(kind, []).append(record["seconds"])
    return known | {kind: median(seconds) for kind, seconds in stored.items()}


def summarize(records: dict[Run, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a corpus, weighting and side: its mean and, of the ternary sides, the difference to
    the 32-bit side, paired by seed."""
    cells: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = {}
    for run, record in records.items():
        cells.setdefault((run.corpus, run.weighting, run.side), {})[run.seed] = record
    rows = []
    for (corpus, weighting, side), by_seed in cells.items():
        accuracies = {seed: accuracy(record) for seed, record in by_seed.items()}
        mean, sd = summary([value for value in accuracies.values() if value is not None])
        full = cells.get((corpus, weighting, "fp32"), {})
        base = {seed: accuracy(record) for seed, record in full.items()}
        ternary = side != "fp32"
        diff = paired_difference(*pair_by_seed(accuracies, base)) if ternary else (None,) * 3
        first = next(iter(by_seed.values()))
        published = PUBLISHED.get((weighting, side))
        rows.append(
            {
                "corpus": corpus,
                "weighting": weighting,
                "side": side,
                "mean": mean,
                "sd": sd,
                **dict(zip(("diff_mean", "diff_low", "diff_high"), diff, strict=True)),
                "published": published[TEXTS.index(corpus)] if published else None,
                "weight_bytes": first["weight_bytes"],
                "weight_bytes_fp32": first["weight_bytes_fp32"],
                "zeros": first["zeros"],
                "seconds": round(median(record["seconds"] for record in by_seed.values()), 1),
                "seeds": list(accuracies),
                "accuracies": list(accuracies.values()),
            }
        )
    return rows


def accuracy(record: dict[str, Any]) -> float | None:
    """What counts: after a held-out run the validation accuracy, else the test accuracy."""
    if record["diverged"]:
        return None
    return record["val" if record["spec"]["split_kind"] == "held-out" else "test"]


def render(rows: list[dict[str, Any]], corpora: list[str], split: str) -> Table:
    kind = "Validation" if split == "held-out" else "Test"
    seeds = " to ".join(str(n) for n in sorted({len(row["seeds"]) for row in rows}))
    table = Table(title=f"{kind} accuracy in percent, mean ± sd over {seeds} seeds")
    table.add_column("features")
    table.add_column("weights")
    table.add_column("")
    for corpus in corpora:
        table.add_column(corpus, justify="right")
    by_cell = {(row["corpus"], row["weighting"], row["side"]): row for row in rows}
    for weighting, side in dict.fromkeys((row["weighting"], row["side"]) for row in rows):
        cells = [by_cell.get((corpus, weighting, side)) for corpus in corpora]
        lines = [("ours", [_mean(row) for row in cells])]
        if side != "fp32":
            lines.append(("  minus 32-bit", [_difference(row) for row in cells]))
        if split == "published" and any(row and row["published"] for row in cells):
            published = [f"{row['published']:.2f}" if row else "" for row in cells]
            lines.append(("  published, other tokens", published))
        for i, (name, values) in enumerate(lines):
            first = (NAMES[weighting], side) if i == 0 else ("", "")
            table.add_row(*first, name, *values, end_section=i == len(lines) - 1)
    return table


def _mean(row: dict[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return "–"
    return f"{row['mean']:.2f}" + ("" if row["sd"] is None else f" ± {row['sd']:.2f}")


def _difference(row: dict[str, Any] | None) -> str:
    if row is None or row["diff_mean"] is None:
        return "–"
    interval = (
        "" if row["diff_low"] is None else f" [{row['diff_low']:+.1f}, {row['diff_high']:+.1f}]"
    )
    return f"{row['diff_mean']:+.2f}{interval}"


def write(rows: list[dict[str, Any]], recipe: TextRecipe) -> None:
    setting = {
        "recipe": asdict(recipe),
        "tokens": TOKEN_PATTERN,
        "min_documents": MIN_DOCUMENTS,
        "max_words": MAX_WORDS,
        **passport("cpu"),
    }
    text = json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n"
    write_whole(RESULTS / "text.json", text.encode())
    out = io.StringIO()
    names = [name for name in rows[0] if name not in ("seeds", "accuracies")]
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(RESULTS / "text.csv", out.getvalue().encode())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", help="where the corpora lie (default: $BITGNN_DATA)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--corpus", nargs="+", choices=TEXTS, default=list(TEXTS))
    parser.add_argument("--weighting", nargs="+", choices=WEIGHTINGS, default=list(WEIGHTINGS))
    parser.add_argument("--side", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--split", choices=TEXT_SPLITS, default="published")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE",
                        help="change a field of the recipe")  # fmt: skip
    parser.add_argument(
        "--store", default="results/text.sqlite", help="where finished runs are kept"
    )
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = TextRecipe(**{**TAUGHT, **parse_settings(args.set, TextRecipe)})
    console = Console(stderr=True)

    with Store(args.store) as store:
        runs = list(plan(args, recipe))
        checksums = {name: open_task(name, args.split, args.root).checksum for name in args.corpus}
        specs = {run: run.spec(checksums[run.corpus]) for run in runs}
        missing = [run for run in runs if store.get(specs[run].key) is None]
        if missing and not args.report_only:
            known = known_seconds(store)
            console.print(f"{len(missing)} runs to train: {estimate(missing, known)}")
            for run in track(missing, description="training", console=console):
                store.put(execute(run, specs[run]))
        found = {run: store.get(specs[run].key) for run in runs}
    rows = summarize({run: record for run, record in found.items() if record is not None})
    if not rows:
        raise SystemExit("No run is finished: leave out --report-only to train them")
    Console(width=150).print(render(rows, args.corpus, args.split))
    complete = args.split == "published" and not args.set and set(args.corpus) == set(TEXTS)
    if complete:
        write(rows, recipe)


if __name__ == "__main__":
    main()
