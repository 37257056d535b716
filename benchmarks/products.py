"""A ternary layer beside those of other packages, and a packed GCN beside the engine of one.

    python -m benchmarks.products

A linear layer takes 32-bit rows and gives 32-bit rows, with weights that are ready: bitgnn's
packed layer; torch in 32 bits, with a fresh output and into one that is there; torch's product of
8-bit integers (`torch._int_mm`), which is less work, since its rows are integers already and its
output is not rescaled; torchao with 8-bit activations and 8- or 2-bit weights; and the frozen layer
of the package `bitlinear`. Sides take turns in one process; what does not run here says why. GCN of
3 x 256 on an arxiv-shaped graph runs in 32 bits on DGL and on the engine of the package `tinygnn`
(`pip install tinygnn`). Writes `results/products.json` and `results/products.md`.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from benchmarks.study import RESULTS, Results, command_line, main, markdown_table
from bitgnn.experiment.passport import package_version
from bitgnn.experiment.speed import setting
from bitgnn.experiment.speed.case import Case
from bitgnn.experiment.speed.graphs import SHAPES, random_graph
from bitgnn.files import write_whole
from bitgnn.nn import BitLinear
from bitgnn.packed import pack, prepare
from bitgnn.quant import QuantConfig

Row = dict[str, Any]
Call = Callable[[], Any]
OURS = "bitgnn"
LAYERS = ((169_343, 256, 256), (169_343, 128, 256), (169_343, 256, 40), (2_708, 1_433, 64))
PACKAGES = ("torchao", "bitlinear", "tinygnn", "dgl")
ROUNDS, TURN = 11, 0.02  # a turn lasts so many seconds at least


def of_bitgnn(x: Tensor, linear: nn.Linear) -> Call:
    model = pack(nn.Sequential(BitLinear.from_linear(linear)).eval())
    return lambda: model(x)


def of_torch(x: Tensor, linear: nn.Linear) -> Call:
    return lambda: linear(x)


def of_torch_in_place(x: Tensor, linear: nn.Linear) -> Call:
    out, weight = x.new_empty(x.size(0), linear.out_features), linear.weight.t()
    return lambda: torch.mm(x, weight, out=out)


def of_int_mm(x: Tensor, linear: nn.Linear) -> Call:
    x_q = torch.randint(-127, 128, x.shape, dtype=torch.int8)
    weight = torch.randint(-1, 2, linear.weight.shape, dtype=torch.int8).t()
    out = torch.empty(x.size(0), linear.out_features, dtype=torch.int32)
    return lambda: torch._int_mm(x_q, weight, out=out)


def of_torchao(x: Tensor, linear: nn.Linear, bits: int) -> Call:
    from torchao import quantization

    model = nn.Sequential(linear)
    if bits == 8:
        config = quantization.Int8DynamicActivationInt8WeightConfig()
    else:
        config = quantization.Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int2)
    quantization.quantize_(model, config)
    return lambda: model(x)


def of_bitlinear(x: Tensor, linear: nn.Linear) -> Call:
    from bitlinear.bitlinear import BitLinear as Other
    from bitlinear.bitlinear import FrozenBitLinear

    other = Other(linear.in_features, linear.out_features, bias=False, weight_measure="AbsMean")
    other.weight.data = linear.weight.data
    frozen = FrozenBitLinear(other)
    return lambda: frozen(x)


SIDES: dict[str, Callable[[Tensor, nn.Linear], Call]] = {
    OURS: of_bitgnn,
    "torch, 32-bit": of_torch,
    "torch, 32-bit, out=": of_torch_in_place,
    "torch._int_mm, product alone": of_int_mm,
    "torchao, 8-bit": partial(of_torchao, bits=8),
    "torchao, 2-bit": partial(of_torchao, bits=2),
    "bitlinear, frozen": of_bitlinear,
}


def of_tinygnn(case: Case, x: Tensor, edge_index: Tensor, num_classes: int) -> Call:
    r"""Returns a GCN on the engine of `tinygnn`, with random weights.

    Args:
        case (Case): The model.
        x (torch.Tensor): The features.
        edge_index (torch.Tensor): The edges.
        num_classes (int): The number of classes.
    """
    import tinygnn

    ordered = edge_index[:, (edge_index[1] * x.size(0) + edge_index[0]).argsort()]
    crow = torch.zeros(x.size(0) + 1, dtype=torch.int32)
    crow[1:] = torch.bincount(ordered[1], minlength=x.size(0)).cumsum(0)
    ones = torch.ones(edge_index.size(1))
    graph = tinygnn.Tensor.sparse_csr(
        x.size(0), x.size(0), crow.tolist(), ordered[0].tolist(), ones.tolist()
    )
    graph = tinygnn.gcn_norm(tinygnn.add_self_loops(graph))
    widths = [x.size(1), *[case.hidden] * (case.layers - 1), num_classes]
    layers = []
    for place, (ins, outs) in enumerate(pairwise(widths), start=1):
        act = tinygnn.Activation.RELU if place < case.layers else tinygnn.Activation.NONE
        layers.append(tinygnn.GCNLayer(ins, outs, True, act))
        layers[-1].set_weight(tinygnn.Tensor.from_numpy(0.1 * torch.randn(ins, outs).numpy()))
        layers[-1].set_bias(tinygnn.Tensor.from_numpy(torch.zeros(1, outs).numpy()))
    features = tinygnn.Tensor.from_numpy(x.numpy())

    def call() -> Any:
        value = features
        for layer in layers:
            value = layer.forward(graph, value)
        return value

    return call


def of_dgl(case: Case, x: Tensor, edge_index: Tensor, num_classes: int) -> Call:
    r"""Returns a GCN of DGL's layers, with random weights.

    Args:
        case (Case): The model.
        x (torch.Tensor): The features.
        edge_index (torch.Tensor): The edges.
        num_classes (int): The number of classes.
    """
    import dgl
    from dgl.nn import GraphConv

    graph = dgl.add_self_loop(dgl.graph((edge_index[0], edge_index[1]), num_nodes=x.size(0)))
    graph.create_formats_()
    widths = [x.size(1), *[case.hidden] * (case.layers - 1), num_classes]
    layers = [GraphConv(ins, outs) for ins, outs in pairwise(widths)]

    def call() -> Tensor:
        value = x
        for place, layer in enumerate(layers, start=1):
            value = layer(graph, value)
            value = value.relu_() if place < len(layers) else value
        return value

    return call


def turns(sides: dict[str, Callable[[], Call]]) -> list[Row]:
    r"""Times sides in turns.

    Args:
        sides (dict): What builds the call of each; the first is the one that others are compared
            with.
    """
    calls: dict[str, Call] = {}
    rows: dict[str, Row] = {name: {"side": name} for name in sides}
    for name, build in sides.items():
        try:
            calls[name] = build()
            calls[name]()
        except Exception as error:  # whatever it is: the row says so
            calls.pop(name, None)
            said = (str(error) or type(error).__name__).splitlines()[0]
            rows[name]["why_not"] = f"{type(error).__name__}: {said}"[:120]
    times: dict[str, list[float]] = {name: [] for name in calls}
    for k in range(ROUNDS):
        names = list(calls)
        for name in names[k % len(names) :] + names[: k % len(names)]:
            times[name].append(_turn(calls[name]))
    first = times[next(iter(sides))]
    for name, found in times.items():
        ratio = statistics.median(time / ours for time, ours in zip(found, first, strict=True))
        rows[name] |= {"ms": 1e3 * statistics.median(found), "ratio": ratio}
    return list(rows.values())


def _turn(call: Call) -> float:
    seconds: list[float] = []
    while not seconds or sum(seconds) < TURN:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@torch.inference_mode()
def products(
    threads: Annotated[int | None, typer.Option(min=1, help="Else one a core.")] = None,
    results: Results = RESULTS,
) -> None:
    """Time layers and models, and print the table."""
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows: list[Row] = []
    for count, ins, outs in LAYERS:
        x, linear = torch.randn(count, ins), nn.Linear(ins, outs, bias=False)
        sides = {name: partial(build, x, _copy(linear)) for name, build in SIDES.items()}
        rows += [{"what": f"{count:,} x {ins} to {outs}", **row} for row in turns(sides)]
    rows += [{"what": "GCN 3 x 256, arxiv", **row} for row in turns(_models())]
    about = setting(threads, TURN)
    about |= {name: package_version(name) or "not installed" for name in PACKAGES}
    text = json.dumps({"setting": about, "rows": rows}, indent=1) + "\n"
    write_whole(results / "products.json", text.encode())
    write_whole(results / "products.md", to_markdown(rows, about).encode())
    typer.echo(to_markdown(rows, about))


def _copy(linear: nn.Linear) -> nn.Linear:
    twin = nn.Linear(linear.in_features, linear.out_features, bias=False)
    twin.load_state_dict(linear.state_dict())
    return twin.requires_grad_(False)


def _models() -> dict[str, Callable[[], Call]]:
    case, shape = Case("gcn", "arxiv", 3, 256), SHAPES["arxiv"]
    data, classes = random_graph(shape), shape.num_classes

    def packed(quant: QuantConfig | None) -> Call:
        model = pack(case.build(shape.num_features, classes, quant, twin=quant is not None))
        graph = prepare(data.edge_index, data.num_nodes)
        return lambda: model(data.x, graph)

    return {
        OURS: lambda: packed(QuantConfig()),
        "bitgnn, 32-bit": lambda: packed(None),
        "DGL, 32-bit": lambda: of_dgl(case, data.x, data.edge_index, classes),
        "tinygnn, 32-bit": lambda: of_tinygnn(case, data.x, data.edge_index, classes),
    }


def to_markdown(rows: Sequence[Row], about: Row) -> str:
    r"""Returns the table as text.

    Args:
        rows (list[dict]): What was measured.
        about (dict): Under which conditions.
    """
    cells = []
    for row in rows:
        found = [row.get("why_not", ""), "-"]
        if "ms" in row:
            found = [f"{row['ms']:.3g}", f"{row['ratio']:.2f}x"]
        cells.append([row["what"], row["side"], *found])
    return "\n".join(
        [
            "# Ternary layers beside those of other packages", "",
            "Rows of 32-bit numbers in and out, weights ready; all in turns in one process, "
            f"medians of {ROUNDS} rounds, and of ratios of the same round. `torch._int_mm` starts "
            "from integers and leaves integers.", "",
            markdown_table(["what", "side", "ms", "ratio to bitgnn"], cells, names=2), "",
            "Setting: " + ", ".join(f"{name} {value}" for name, value in about.items()) + ".", "",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main(command_line(__doc__, products))
