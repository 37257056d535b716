"""How far packed models are from the trained ones.

    python -m benchmarks.equality                    # an hour on one core
    python -m benchmarks.equality --dataset Cora --model gcn sage

Trains each model with the default recipe, packs it, and compares what both say of all nodes: the
difference (root of the mean square) as a part of the largest logit, and how many predictions are
equal; also with `exact=True`, which rounds nothing that training does not round. Beside it, what
the file weighs. Writes `results/equality.json` and `results/equality.md`, after each model.
"""

import json
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from benchmarks.study import RESULTS, Datasets, Models, Results, command_line, main, markdown_table
from bitgnn.cli import options
from bitgnn.data import task
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.passport import passport
from bitgnn.experiment.run import train_run
from bitgnn.files import write_whole
from bitgnn.kernels import native
from bitgnn.packed import PackedModel, load
from bitgnn.packed.runs import inputs, pack_run
from bitgnn.quant import QuantConfig
from bitgnn.training import Recipe
from bitgnn.training.inputs import model_inputs
from bitgnn.training.settings import parse_settings

Row = dict[str, Any]
DATASETS = ("Cora", "CiteSeer", "PubMed")
MODELS = ("gcn", "sage", "gat", "sgc", "mlp")
WAYS = tuple(product(("absmean", "absmedian"), ("tensor", "channel")))
# What is asked for: of the difference at most, of equal predictions at least.
BARS = {"packed": (1e-3, 99.9), "exact": (1e-4, 100.0)}
SMALLER, FROM = 18, 100_000  # files, of models with so many weights


def equality(
    dataset: Datasets = None,
    model: Models = None,
    settings: options.Settings = None,
    results: Results = RESULTS,
    root: options.Root = None,
) -> None:
    """Train, pack and compare, and print the table."""
    rows: list[Row] = []
    cases = list(product(dataset or DATASETS, model or MODELS, WAYS))
    for number, (name, kind, (measure, granularity)) in enumerate(cases):
        about = f"{name}, {kind}, {measure} a {granularity} ({number + 1} of {len(cases)})"
        with Console(stderr=True).status(about):
            (spec,) = build_specs(
                name, kind, [0], "default", measure, None, root,
                quant=QuantConfig(granularity=granularity),
                settings=parse_settings(settings or [], Recipe),
            )  # fmt: skip
            trained, record = train_run(spec, root)
            t = task(name, root)
            with torch.inference_mode():
                inputs = model_inputs(trained.eval(), t, Recipe.from_dict(spec.recipe))
                expected = trained(*inputs)
            found = compare(pack_run(trained, record), trained, expected, t)
        rows.append(
            {"dataset": name, "model": kind, "measure": measure, "granularity": granularity}
            | {"epochs": spec.recipe["epochs"], "key": spec.key}
            | found
        )
        text = json.dumps({"setting": passport(), "rows": rows}, indent=1) + "\n"
        write_whole(results / "equality.json", text.encode())
        write_whole(results / "equality.md", to_markdown(rows).encode())
    typer.echo(to_markdown(rows))


def compare(packed: PackedModel, trained: nn.Module, expected: Tensor, t: Any) -> Row:
    r"""Returns how far a packed model, written and read, is from the trained one.

    Args:
        packed (PackedModel): The packed model.
        trained (torch.nn.Module): The trained one.
        expected (torch.Tensor): What that one says of all nodes.
        t (Task): The data set.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        packed.save(file)
        size, packed = file.stat().st_size, load(file)
    x, graph = inputs(packed, t)
    row: Row = {"file_bytes": size}
    row["weights"] = sum(p.numel() for p in trained.parameters())
    row["state_bytes"] = sum(v.numel() * v.element_size() for v in trained.state_dict().values())
    for way in BARS:
        out = packed(x, graph, exact=way == "exact")
        rms = (out - expected).square().mean().sqrt() / expected.abs().max()
        agree = (out.argmax(dim=-1) == expected.argmax(dim=-1)).double().mean()
        row[way] = {"rms": float(rms), "agree": 100 * float(agree)}
    return row


def to_markdown(rows: Sequence[Row]) -> str:
    r"""Returns the table as text, with what is missed.

    Args:
        rows (list[dict]): What was measured.
    """
    lines, missed = [], []
    for row in rows:
        names = [row["dataset"], row["model"], row["measure"], row["granularity"]]
        cells = []
        for way, (most, least) in BARS.items():
            found = row[way]
            cells += [f"{found['rms']:.1e}", f"{found['agree']:.2f} %"]
            if found["rms"] > most or found["agree"] < least:
                missed.append(f"{', '.join(names)} ({way})")
        smaller = row["state_bytes"] / row["file_bytes"]
        if row["weights"] >= FROM and smaller < SMALLER:
            missed.append(f"{', '.join(names)} (file)")
        lines.append([*names, *cells, f"{row['file_bytes'] / 1024:.1f}", f"{smaller:.1f}"])
    header = ["data set", "model", "measure", "scale per", "rms", "equal", "rms, exact",
              "equal, exact", "file, KiB", "times smaller"]  # fmt: skip
    bars = [f"{way}: rms at most {most:g}, {least:g} %" for way, (most, least) in BARS.items()]
    asked = f"{'; '.join(bars)}; file {SMALLER} times smaller from {FROM:,} weights on"
    text = [
        "# How far packed models are from the trained ones", "",
        "Root of the mean squared difference as a part of the largest logit, and equal "
        "predictions, over all nodes; default recipe, one seed, "
        f"native kernels: {native.isa() or 'none'}. Files with all that is in them, against the "
        "`state_dict` in 32 bits.", "",
        markdown_table(header, lines, names=4), "",
        f"Asked for: {asked}. Missed: {'; '.join(missed) or 'none'}.", "",
    ]  # fmt: skip
    return "\n".join(text)


if __name__ == "__main__":
    main(command_line(__doc__, equality))
