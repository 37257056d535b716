"""Regenerates the node-classification table of arXiv 2411.05882 with the preset `reloaded`.

Their protocol: Planetoid public split, raw features, no dropout, AdamW (lr 0.01, weight decay
0.01), 100 full-batch epochs, test accuracy of the last one, no validation; SGC with K=2 and a
two-layer GCN of width 32. Their ternary layer: the preset `reloaded`, nn.Linear's initialisation
(PyG's glorot on the 32-bit side) and, in GCN, a bias inside the linear beside the convolution's.

    python benchmarks/paper_table.py --root data --seeds 30

writes `results/paper_table.json` and `results/paper_table.md` beside this file. A variant changes
one thing of the ternary side and writes beside them: `glorot` gives it PyG's initialisation,
`one-bias` takes GCN's inner bias away, and `package` puts in the layer of the authors' own package
(`pip install bitlinear==2.4.6`), which tells a difference of layers from one of runs.
"""

import argparse
import json
import math
import platform
import statistics
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch
import torch_geometric
from rich.console import Console
from rich.progress import track

import bitgnn
from bitgnn import QuantConfig, task
from bitgnn.files import write_whole
from bitgnn.nn import BitGCN, BitLinear, BitSGC
from bitgnn.training import fit, recipe_for

RESULTS = Path(__file__).parent / "results"
DATASETS, MODELS = ("Cora", "CiteSeer", "PubMed"), ("sgc", "gcn")
PRECISIONS = ("fp32", "absmean", "absmedian")
PAPER_RUNS = 10
# Mean and standard deviation over 10 runs, as published.
PAPER = {
    ("sgc", "fp32"): ((77.07, 0.24), (63.66, 0.28), (75.63, 0.13)),
    ("sgc", "absmean"): ((77.31, 0.62), (59.31, 2.93), (75.22, 0.53)),
    ("sgc", "absmedian"): ((77.46, 1.21), (61.31, 3.06), (74.42, 0.42)),
    ("gcn", "fp32"): ((78.57, 0.79), (63.76, 0.77), (76.02, 0.31)),
    ("gcn", "absmean"): ((76.03, 0.81), (65.83, 0.73), (73.51, 0.75)),
    ("gcn", "absmedian"): ((75.76, 0.51), (65.60, 1.05), (73.23, 0.63)),
}
VARIANTS = ("paper", "glorot", "one-bias", "package")


def build(model: str, precision: str, in_channels: int, out_channels: int, variant: str = "paper"):
    """A model as the papers' code builds it; a variant undoes one of its habits."""
    if model == "sgc":
        network = BitSGC(in_channels, out_channels, K=2, cached=True, quant=None)
        convs = [network.conv]
    else:
        network = BitGCN(in_channels, 32, 2, out_channels, cached=True, quant=None)
        convs = list(network.convs)
    if precision == "fp32":
        return network
    quant = QuantConfig.preset("reloaded", weight_measure=precision)
    for conv in convs:
        channels = conv.lin.in_channels, conv.lin.out_channels
        if variant == "package":
            from bitlinear import BitLinear as PackageLinear

            measure = {"absmean": "AbsMean", "absmedian": "AbsMedian"}[precision]
            conv.lin = PackageLinear(*channels, weight_measure=measure)
            continue
        conv.lin = BitLinear(
            *channels,
            bias=model == "sgc" or variant != "one-bias",
            weight_initializer="glorot" if variant == "glorot" else None,
            quant=quant,
        )
    return network


def run(cell: tuple[str, str, str, int, str, str | None]) -> float:
    """Trains one model on one thread and returns its last test accuracy, in percent."""
    dataset, model, precision, seed, variant, root = cell
    torch.set_num_threads(1)
    t = task(dataset, root=root, split="public")
    torch.manual_seed(seed)
    network = build(model, precision, t.num_features, t.num_classes, variant)
    recipe = recipe_for(model, dataset, "paper")
    return fit(network, t, t.split(seed), recipe, seed).test


def summarize(dataset: str, model: str, precision: str, accuracies: list[float]) -> dict:
    mean, sd = statistics.mean(accuracies), statistics.stdev(accuracies)
    paper_mean, paper_sd = PAPER[model, precision][DATASETS.index(dataset)]
    error = math.sqrt(sd**2 / len(accuracies) + paper_sd**2 / PAPER_RUNS)
    return {
        "dataset": dataset,
        "model": model,
        "precision": precision,
        "mean": mean,
        "sd": sd,
        "accuracies": accuracies,
        "paper_mean": paper_mean,
        "paper_sd": paper_sd,
        "standard_errors_apart": (mean - paper_mean) / error,
    }


def to_markdown(rows: list[dict], setting: dict) -> str:
    lines = [
        "# The table of arXiv 2411.05882, regenerated",
        "",
        f"Test accuracy in percent, mean ± sd over {setting['seeds']} seeds (theirs: {PAPER_RUNS} "
        "unseeded runs). *Apart*: the difference in standard errors of both means together; "
        "beyond 2 in bold.",
        "",
        "| model | precision | data set | here | paper | difference | apart |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        apart = f"{row['standard_errors_apart']:+.1f}"
        lines.append(
            f"| {row['model']} | {row['precision']} | {row['dataset']} "
            f"| {row['mean']:.2f} ± {row['sd']:.2f} "
            f"| {row['paper_mean']:.2f} ± {row['paper_sd']:.2f} "
            f"| {row['mean'] - row['paper_mean']:+.2f} "
            f"| {f'**{apart}**' if abs(row['standard_errors_apart']) > 2 else apart} |"
        )
    lines += ["", "Setting: " + ", ".join(f"{k} {v}" for k, v in setting.items()) + ".", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", help="where the data sets lie (default: $BITGNN_DATA)")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--variant", choices=VARIANTS, default="paper")
    parser.add_argument("--dataset", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=MODELS)
    args = parser.parse_args()

    precisions = PRECISIONS if args.variant == "paper" else PRECISIONS[1:]
    cells = list(product(args.model, precisions, args.dataset))
    runs = [
        (dataset, model, precision, seed, args.variant, args.root)
        for model, precision, dataset in cells
        for seed in range(args.seeds)
    ]
    for dataset in args.dataset:  # Opens each once, before several processes want it.
        task(dataset, root=args.root)
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        accuracies = list(track(pool.map(run, runs), total=len(runs), console=Console(stderr=True)))
    rows = [
        summarize(dataset, model, precision, accuracies[i * args.seeds : (i + 1) * args.seeds])
        for i, (model, precision, dataset) in enumerate(cells)
    ]
    setting = {
        "variant": args.variant,
        "seeds": args.seeds,
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "bitgnn": bitgnn.__version__,
        "machine": platform.machine(),
        "threads": "1 a run",
    }
    parts = [args.variant] if args.variant != "paper" else []
    parts += args.model if set(args.model) != set(MODELS) else []
    parts += args.dataset if set(args.dataset) != set(DATASETS) else []
    name = "_".join(["paper_table", *parts])
    text = json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n"
    write_whole(RESULTS / f"{name}.json", text.encode())
    write_whole(RESULTS / f"{name}.md", to_markdown(rows, setting).encode())
    Console().print(to_markdown(rows, setting), soft_wrap=True)


if __name__ == "__main__":
    main()
