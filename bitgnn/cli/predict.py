import csv
import io
from pathlib import Path
from typing import Annotated

import typer

from bitgnn.cli import options
from bitgnn.data import task
from bitgnn.experiment.format import metric_name
from bitgnn.files import check_writable, write_whole
from bitgnn.packed import load
from bitgnn.packed.runs import inputs, run_of

File = Annotated[Path, typer.Argument(metavar="MODEL", help="What `bitgnn pack` wrote.")]
Dataset = Annotated[
    str | None,
    typer.Option("--dataset", metavar="NAME", help="Else the one that it was trained on."),
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Round nothing that training did not; slower.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write node and class, or labels, as CSV."),
]


def predict(
    model: File,
    dataset: Dataset = None,
    split: options.Split = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Of the split.")] = None,
    exact: Exact = False,
    output: Output = None,
    root: options.Root = None,
) -> None:
    """Run a packed model on a data set.

    \b
    Examples:
      bitgnn predict cora-gcn.safetensors
      bitgnn predict cora-gcn.safetensors --dataset Cora -o classes.csv
    """
    if output is not None:
        check_writable(output)
    packed = load(model)
    run = run_of(packed) or {}
    name = dataset or run.get("dataset")
    if name is None:
        raise ValueError(f"'{model}' does not say what it was trained on: pass --dataset")
    own = name == run.get("dataset")
    t = task(name, root, split or (run["split_kind"] if own else None))
    out = packed(*inputs(packed, t), exact=exact)
    if output is not None:
        lines = io.StringIO()
        rows = csv.writer(lines, lineterminator="\n")
        if t.multilabel:
            rows.writerow(["node", *(f"label {each}" for each in range(t.num_classes))])
            rows.writerows([node, *labels] for node, labels in enumerate((out > 0).int().tolist()))
        else:
            rows.writerow(["node", "class"])
            rows.writerows(enumerate(out.argmax(dim=-1).tolist()))
        write_whole(output, lines.getvalue().encode())
        print(f"{output}: {len(out)} nodes")
    chosen = t.split(run.get("seed", 0) if seed is None else seed)
    print(f"Test {metric_name(t.metric)} {t.evaluate(out, chosen.test):.2f} %")
    same = own and t.checksum == run["checksum"] and split in (None, run["split_kind"])
    if same and seed in (None, run["seed"]):
        print(f"In training it had {run['test']:.2f} %")
