"""What a ternary training epoch costs next to PyG's 32-bit one.

Full-batch epochs (forward, backward, optimizer step) of the same model on Cora, CiteSeer and
PubMed, in turns: PyG in 32 bits, bitgnn with absmean and absmedian, and the same model with the
layer of the PyPI package `bitlinear` put in by hand (`pip install bitlinear==2.4.6`; the column
stays empty without it). Each cell is a median of paired ratios to the 32-bit epoch of the same
round. GCN and GraphSAGE run with edge_index, the usual way, and with a sparse matrix in CSR form,
PyG's faster way.

    python benchmarks/train_speed.py --root data

writes `results/train_speed.json` and `results/train_speed.md` beside this file.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
import torch_geometric
from rich.console import Console
from rich.table import Table
from torch_geometric.utils import to_torch_csr_tensor

import bitgnn
from bitgnn import QuantConfig, task
from bitgnn.files import write_whole
from bitgnn.kernels import native
from bitgnn.nn import BitGAT, BitGCN, BitGraphSAGE, BitMLP, BitSGC

RESULTS = Path(__file__).parent / "results"
SIDES = ("32-bit", "absmean", "absmedian", "bitlinear")


def build(model: str, num_features: int, num_classes: int, quant: QuantConfig | None):
    """A model of two layers, hidden size 64; all is cached that PyG can cache."""
    if model == "gcn":
        return BitGCN(num_features, 64, 2, num_classes, dropout=0.5, cached=True, quant=quant)
    if model == "sage":
        return BitGraphSAGE(num_features, 64, 2, num_classes, dropout=0.5, quant=quant)
    if model == "gat":
        return BitGAT(num_features, 64, 2, num_classes, dropout=0.5, heads=8, quant=quant)
    if model == "sgc":
        return BitSGC(num_features, num_classes, K=2, cached=True, quant=quant)
    return BitMLP([num_features, 64, num_classes], dropout=0.5, norm=None, quant=quant)


def put_bitlinear(model: torch.nn.Module) -> torch.nn.Module:
    """Puts the layer of the package `bitlinear` where PyG has its own linear."""
    from bitlinear import BitLinear

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch_geometric.nn.Linear):
                bias = child.bias is not None
                twin = BitLinear(
                    child.in_channels, child.out_channels, bias, weight_measure="AbsMean"
                )
                setattr(parent, name, twin)
    return model


def epoch_of(model: torch.nn.Module, data, edges, mask: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inputs = (data.x,) if isinstance(model, BitMLP) else (data.x, edges)
    model.train()

    def epoch() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(*inputs)[mask], data.y[mask]).backward()
        optimizer.step()

    return epoch


def measure(model: str, form: str, data, mask: torch.Tensor, num_classes: int, rounds: int) -> dict:
    edges = data.edge_index
    if form == "CSR":
        edges = to_torch_csr_tensor(edges.flip(0), size=data.num_nodes)
    configs = {
        "32-bit": None,
        "absmean": QuantConfig(),
        "absmedian": QuantConfig(weight_measure="absmedian"),
    }
    epochs = {}
    for side in SIDES:
        torch.manual_seed(0)
        if side == "bitlinear":
            try:
                network = put_bitlinear(build(model, data.num_features, num_classes, None))
            except ImportError:
                continue
        else:
            network = build(model, data.num_features, num_classes, configs[side])
        epochs[side] = epoch_of(network, data, edges, mask)

    for epoch in epochs.values():
        for _ in range(3):
            epoch()
    seconds: dict[str, list[float]] = {side: [] for side in epochs}
    for i in range(rounds):
        order = list(epochs)
        for side in order[i % len(order) :] + order[: i % len(order)]:
            start = time.perf_counter()
            epochs[side]()
            seconds[side].append(time.perf_counter() - start)
    return {
        "ms": {side: 1e3 * statistics.median(times) for side, times in seconds.items()},
        "ratio": {
            side: statistics.median(
                t / base for t, base in zip(times, seconds["32-bit"], strict=True)
            )
            for side, times in seconds.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", help="where the data sets lie (default: $BITGNN_DATA)")
    parser.add_argument("--dataset", nargs="+", default=["Cora", "CiteSeer", "PubMed"])
    parser.add_argument("--model", nargs="+", default=["gcn", "sage", "gat", "sgc", "mlp"])
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    table = Table(title="training epoch, ratio to 32-bit (median of interleaved rounds)")
    for column in ("data set", "model", "edges"):
        table.add_column(column)
    for column in ("32-bit ms", *SIDES[1:]):
        table.add_column(column, justify="right")
    rows = []
    for dataset in args.dataset:
        t = task(dataset, root=args.root)
        for model, form in product(args.model, ("edge_index", "CSR")):
            if form == "CSR" and model not in ("gcn", "sage"):
                continue  # The others cannot, or never look at the edges again.
            mask = t.split(0).train
            result = measure(model, form, t.data, mask, t.num_classes, args.rounds)
            rows.append({"dataset": dataset, "model": model, "edges": form, **result})
            ratios = [
                f"{result['ratio'][s]:.2f}x" if s in result["ratio"] else "-" for s in SIDES[1:]
            ]
            table.add_row(dataset, model, form, f"{result['ms']['32-bit']:.1f}", *ratios)
    setting = {
        "threads": args.threads,
        "rounds": args.rounds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "bitgnn": bitgnn.__version__,
        "native kernels": native.status(),
        "configuration": "2 layers, hidden 64 (GAT: 8 heads of 8), dropout 0.5, Adam; "
        "normalisation and SGC's propagation cached on both sides; raw features",
    }
    console = Console()
    console.print(table)
    console.print(setting)
    text = json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n"
    write_whole(RESULTS / "train_speed.json", text.encode())
    write_whole(RESULTS / "train_speed.md", to_markdown(rows, setting).encode())


def to_markdown(rows: list[dict], setting: dict) -> str:
    lines = [
        "# What a ternary training epoch costs",
        "",
        "One full-batch epoch (forward, backward, optimizer step) as a ratio to the 32-bit epoch "
        "of the same model in PyG: medians of rounds in which all sides take turns. `bitlinear` is "
        "the same model with the layer of that package.",
        "",
        "| data set | model | edges | 32-bit, ms | absmean | absmedian | bitlinear |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        ratios = [f"{row['ratio'][s]:.2f}" if s in row["ratio"] else "-" for s in SIDES[1:]]
        names = [row["dataset"], row["model"], row["edges"], f"{row['ms']['32-bit']:.1f}"]
        lines.append(f"| {' | '.join(names + ratios)} |")
    lines += ["", "Setting: " + ", ".join(f"{k} {v}" for k, v in setting.items()) + ".", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
