"""Other implementations of 1.58 bits, and more bits, on the same splits and seeds.

    python -m benchmarks.peers run         # trains what is missing
    python -m benchmarks.peers table       # writes results/peers.*

The models are the same but for the layer in the place of PyG's `Linear`: that of the package
`bitlinear` (absmean), or PyG's own, with the weight that torchao's BitNet training puts in (its
filter set to that class). Both are trained twice: with the published hyper-parameters, as someone
would who puts them in, and with bitgnn's default recipe. They know no latent weights, so that there
the settings of latent weights are those of all parameters, and strength schedules have no meaning.
8 and 4 bits are bitgnn's own. What cannot run here has a row that says why.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import torch_geometric
import typer
from rich.console import Console
from rich.progress import track
from torch import nn

from benchmarks.accuracy_table import MODELS, PLANETOID, Datasets, Models
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
from bitgnn.experiment import RunSpec, Store, execute, export_records
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.complete import complete
from bitgnn.experiment.estimate import announce
from bitgnn.experiment.format import (
    MISSING,
    TO_DISTILLED,
    TO_FULL,
    difference,
    mean_sd,
)
from bitgnn.experiment.passport import passport
from bitgnn.experiment.rows import DISTILLED, Record, Row
from bitgnn.experiment.run import open_task
from bitgnn.experiment.statistics import pair_by_seed, paired_difference, summary
from bitgnn.experiment.store import default_path
from bitgnn.experiment.teachers import load_teacher
from bitgnn.experiment.workers import number_of_workers
from bitgnn.quant import StrengthSchedule
from bitgnn.training import Recipe, build_model, fit, recipe_for
from bitgnn.training.parts import quant_for
from bitgnn.training.settings import parse_settings


@dataclass(frozen=True)
class Side:
    """A row of each data set and model.

    Args:
        name (str): What it is called.
        precision (str, optional): bitgnn's precision; of others the name of their package.
            (default: :obj:`"absmean"`)
        recipe (str, optional): The recipe; :obj:`None` is the one that is compared.
            (default: :obj:`None`)
        quant (dict, optional): What is quantized otherwise than the recipe says.
    """

    name: str
    precision: str = "absmean"
    recipe: str | None = None
    quant: dict[str, Any] = field(default_factory=dict)


PUBLISHED = "scratch"  # the published hyper-parameters of a model and data set, and no more
SIDES = (
    Side("32-bit", "fp32"),
    Side("32-bit distilled", DISTILLED),
    Side("bitgnn"),
    Side("bitgnn, published recipe", recipe=PUBLISHED),
    Side("bitgnn, 4-bit weights", quant={"weight_bits": 4}),
    Side("bitgnn, 8-bit weights", quant={"weight_bits": 8}),
    Side("bitlinear, published recipe", "bitlinear", PUBLISHED),
    Side("bitlinear", "bitlinear"),
    Side("torchao BitNet, published recipe", "torchao", PUBLISHED),
    Side("torchao BitNet", "torchao"),
)


def put_bitlinear(model: nn.Module) -> nn.Module:
    """Puts the layer of the package `bitlinear` where PyG has its own."""
    from bitlinear import BitLinear

    return _replace(
        model,
        lambda linear: BitLinear(
            linear.in_channels,
            linear.out_channels,
            linear.bias is not None,
            weight_measure="AbsMean",
        ),
    )


def put_torchao(model: nn.Module) -> nn.Module:
    """Lets torchao's BitNet training have PyG's linear layers."""
    from torchao.prototype.quantized_training import bitnet_training
    from torchao.quantization import quantize_

    kind = torch_geometric.nn.Linear

    def plain(linear: Any) -> nn.Module:
        layer = kind(
            linear.in_channels,
            linear.out_channels,
            linear.bias is not None,
            linear.weight_initializer,
            linear.bias_initializer,
        )
        layer.load_state_dict(linear.state_dict())
        return layer

    model = _replace(model, plain)
    quantize_(model, bitnet_training(), filter_fn=lambda module, name: isinstance(module, kind))
    return model


PACKAGES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "bitlinear": put_bitlinear,
    "torchao": put_torchao,
}


def _replace(model: nn.Module, twin: Callable[[Any], nn.Module]) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch_geometric.nn.Linear):
                setattr(parent, name, twin(child))
    return model


def why_not(package: str) -> str | None:
    """Returns why a package does not run here, :obj:`None` if it does: it trains one step."""
    try:
        model = PACKAGES[package](nn.Sequential(torch_geometric.nn.Linear(24, 8)))
        optimizer = torch.optim.Adam(model.parameters())
        F.cross_entropy(model(torch.randn(32, 24)), torch.zeros(32, dtype=torch.long)).backward()
        optimizer.step()
        model.load_state_dict({k: v.detach().clone() for k, v in model.state_dict().items()})
    except Exception as error:  # whatever it is: the row says so
        said = (str(error) or type(error).__name__).splitlines()[0]
        return f"does not run with torch {torch.__version__}: {said}"
    return None


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    datasets: Sequence[str] = PLANETOID
    models: Sequence[str] = MODELS
    seeds: int = 10
    recipe: str = "default"
    settings: dict[str, Any] = field(default_factory=dict)
    root: Path | None = None

    def cells(self) -> Iterator[tuple[str, str]]:
        yield from ((dataset, model) for dataset in self.datasets for model in self.models)

    def sides(self, dataset: str, model: str) -> list[Side]:
        taught = self._recipe(dataset, model, self.recipe).teacher is not None
        return [side for side in SIDES if taught or side.precision != DISTILLED]

    def specs(self, dataset: str, model: str, side: Side) -> list[RunSpec]:
        """The runs of a row, one a seed."""
        name = side.recipe or self.recipe
        specs = build_specs(
            dataset,
            model,
            self.seeds,
            name,
            "absmean" if side.precision in PACKAGES else side.precision,
            self.root,
            quant=quant_for(name).replace(**side.quant),
            settings=self.settings,
        )
        if side.precision not in PACKAGES:
            return specs
        recipe = self._recipe(dataset, model, name)
        decay = None if side.recipe == PUBLISHED else recipe.latent_weight_decay
        recipe = recipe.replace(
            lr=recipe.latent_lr or recipe.lr,
            weight_decay=recipe.weight_decay if decay is None else decay,
            optimizer=recipe.latent_optimizer or recipe.optimizer,
            schedule=StrengthSchedule(),
            reset_optimizer=False,
        )
        changes = {
            "precision": side.precision,
            "quant": {"package": side.precision, "version": _version(side.precision)},
            "recipe": recipe.to_record(),
        }
        return [replace(spec, **changes) for spec in specs]

    def _recipe(self, dataset: str, model: str, name: str) -> Recipe:
        return recipe_for(model, dataset, name).replace(**self.settings)


def execute_peer(spec: RunSpec, root: Path | None = None) -> Record:
    """Trains a model of another package on one thread; as :func:`bitgnn.experiment.execute`."""
    torch.set_num_threads(1)
    t = open_task(spec.dataset, root, spec.split_kind)
    recipe, teacher = Recipe.from_dict(spec.recipe), None
    taught_by = spec.teacher_spec()
    if taught_by is not None:
        if load_teacher(taught_by.key) is None:
            execute(taught_by, root, keep=True)
        found = load_teacher(taught_by.key)
        assert found is not None
        teacher = found.teacher
        if teacher is None:
            raise ValueError(f"{spec} has no teacher to learn from: {taught_by} diverged")
    torch.manual_seed(spec.seed)
    width = recipe.replace(hidden_channels=recipe.hidden_channels * recipe.width)
    model = build_model(spec.model, t.num_features, t.num_classes, width)
    model = PACKAGES[spec.precision](model)
    result = fit(model, t, t.split(spec.seed), recipe, spec.seed, teacher=teacher)
    return {
        "key": spec.key,
        "spec": spec.to_dict(),
        "metric": t.metric,
        "test": result.test,
        "val": result.val,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs_run,
        "curves": {},
        "seconds": round(result.seconds, 3),
        "diverged": result.diverged,
        "passport": passport("cpu"),
    }


def complete_peers(
    specs: Sequence[RunSpec], store: Store, root: Path | None, workers: int | None
) -> None:
    """Trains the runs of other packages that a store lacks, one seed of everything first."""
    missing = [spec for spec in specs if store.get(spec.key) is None]
    missing.sort(key=lambda spec: spec.seed)
    if not missing:
        return
    workers = number_of_workers(workers, "cpu", len(missing))
    announce(missing, store, workers)
    train = partial(execute_peer, root=root)
    shown = partial(track, total=len(missing), console=Console(stderr=True))
    if workers == 1:
        for record in shown(map(train, missing)):
            store.put(record)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in shown(as_completed([pool.submit(train, spec) for spec in missing])):
            store.put(done.result())


def table_rows(plan: Plan, store: Store, peers: Store) -> list[Row]:
    """One row a data set, model and side; without numbers if it has not been run."""
    reasons = {package: why_not(package) for package in PACKAGES}
    rows = []
    for dataset, model in plan.cells():
        cell = []
        for side in plan.sides(dataset, model):
            where = peers if side.precision in PACKAGES else store
            records = [where.get(spec.key) for spec in plan.specs(dataset, model, side)]
            names = {"dataset": dataset, "model": model, "side": side.name}
            names["precision"] = side.precision
            found = [record for record in records if record is not None]
            cell.append({**names, **_numbers(found), "why_not": reasons.get(side.precision)})
        full = next(row for row in cell if row["precision"] == "fp32")
        taught = next((row for row in cell if row["precision"] == DISTILLED), None)
        for row in cell:
            _pair(row, TO_FULL, full)
            _pair(row, TO_DISTILLED, taught if row is not full else None)
        rows += cell
    return rows


def _numbers(records: Sequence[Record]) -> Row:
    accuracies = [None if record["diverged"] else record["test"] for record in records]
    mean, sd = summary([accuracy for accuracy in accuracies if accuracy is not None])
    seeds = [record["spec"]["seed"] for record in records]
    lost = [seed for seed, accuracy in zip(seeds, accuracies, strict=True) if accuracy is None]
    return {"seeds": seeds, "accuracies": accuracies, "diverged": lost, "mean": mean, "sd": sd}


def _pair(row: Row, name: str, other: Row | None) -> None:
    mine: list[float] = []
    theirs: list[float] = []
    if other is not None and other is not row:
        sides = (dict(zip(r["seeds"], r["accuracies"], strict=True)) for r in (row, other))
        mine, theirs = pair_by_seed(*sides)
    bounds = paired_difference(mine, theirs)
    row |= {f"{name}_{bound}": x for bound, x in zip(("mean", "low", "high"), bounds, strict=True)}


def to_markdown(rows: Sequence[Row], plan: Plan) -> str:
    """The table as a page."""
    lines = []
    for row in rows:
        test = mean_sd(row)
        if row["mean"] is None and row["why_not"]:
            test = row["why_not"]
        done = len(row["seeds"])
        test += f" ({done}/{plan.seeds})" if 0 < done < plan.seeds else ""
        test += f", {len(row['diverged'])} diverged" if row["diverged"] else ""
        differences = [difference(row, to) or MISSING for to in (TO_FULL, TO_DISTILLED)]
        lines.append([row["dataset"], row["model"], row["side"], test, *differences])
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    about = (
        f"Test accuracy in percent, mean ± sd over {plan.seeds} seeds, public split; differences "
        f"paired by seed, with their 95 % interval. {packages}."
    )
    header = ["data set", "model", "", "test", "minus 32-bit", "minus distilled"]
    return f"# Peers\n\n{about}\n\n{markdown_table(header, lines, names=3)}\n"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _of_packages(path: Path) -> Path:
    """Where the runs of other packages are: `bitgnn report` knows only bitgnn's precisions."""
    name, dot, kind = path.name.partition(".")
    return path.with_name(f"{name}-packages{dot}{kind}")


def _load(store: Store, peers: Store, path: Path | None) -> None:
    load_runs(store, path)
    if path is None:
        return
    if _of_packages(path).exists():
        load_runs(peers, _of_packages(path))
    else:  # Another study's file, which other packages have no part in.
        typer.echo(f"No runs of other packages: there is no {_of_packages(path)}", err=True)


SeedCount = Annotated[int, typer.Option("--seeds", help="How many, from 0.")]


def run(
    dataset: Datasets = None,
    model: Models = None,
    seeds: SeedCount = Plan.seeds,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    workers: options.Workers = None,
    load: Load = None,
) -> None:
    """Train what is missing; says first how long it will take."""
    plan = Plan(dataset or PLANETOID, model or MODELS, seeds, recipe,
                parse_settings(settings or [], Recipe), root)  # fmt: skip
    ours: list[RunSpec] = []
    theirs: list[RunSpec] = []
    reasons = {package: why_not(package) for package in PACKAGES}
    for each in plan.cells():
        for side in plan.sides(*each):
            if side.precision not in PACKAGES:
                ours += plan.specs(*each, side)
            elif reasons[side.precision] is None:
                theirs += plan.specs(*each, side)
    for package, reason in reasons.items():
        if reason is not None:
            typer.echo(f"{package} {reason}", err=True)
    with Store(store) as opened, Store(_of_packages(store or default_path())) as peers:
        _load(opened, peers, load)
        complete(list({spec.key: spec for spec in ours}.values()), opened, root, workers=workers)
        complete_peers(theirs, peers, root, workers)


def table(
    dataset: Datasets = None,
    model: Models = None,
    seeds: SeedCount = Plan.seeds,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    store: options.StoreFile = None,
    root: options.Root = None,
    load: Load = None,
    results: Results = RESULTS,
) -> None:
    """Write the table to files, and print it; trains nothing."""
    plan = Plan(dataset or PLANETOID, model or MODELS, seeds, recipe,
                parse_settings(settings or [], Recipe), root)  # fmt: skip
    with Store(store) as opened, Store(_of_packages(store or default_path())) as peers:
        _load(opened, peers, load)
        rows = table_rows(plan, opened, peers)
        markdown = to_markdown(rows, plan)
        keys = {
            spec.key
            for each in plan.cells()
            for side in plan.sides(*each)
            for spec in plan.specs(*each, side)
        }
        write_results(results, "peers", rows, markdown, opened, keys)
        export_records(peers, _of_packages(results / "peers.jsonl.gz"), keys)
    typer.echo(markdown)


app = command_line(__doc__, run, table)

if __name__ == "__main__":
    main(app)
