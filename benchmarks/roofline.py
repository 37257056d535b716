"""What part of this machine's limits each native kernel reaches.

    python -m benchmarks.roofline

Compiles `limits.cpp` for the processor at hand, which measures how fast memory is read in order and
as rows in the order of a graph's sources, and how many multiply-adds there are a second. Then runs
kernels by themselves on an arxiv-shaped graph (rows of 256), each as a program of a few steps, and
says of each pass how long it takes beside the time that memory and arithmetic would need at their
limits; the longest of these is the limit of the pass. A thread does one after the other for a block
of rows, so that their sum is there, too. Writes `results/roofline.json` and
`results/roofline.md`.
"""

import ctypes
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.study import RESULTS, Results, command_line, main, markdown_table
from bitgnn.experiment.speed import setting
from bitgnn.experiment.speed.graphs import SHAPES, random_graph
from bitgnn.files import write_whole
from bitgnn.kernels import native
from bitgnn.kernels.native_products import INT8, INT16, LINE, NUMBERS
from bitgnn.packed.graph import PreparedGraph, prepare
from bitgnn.packed.native import SIZES, NativeProgram
from bitgnn.packed.plan import Segment, Stage, Term
from bitgnn.packed.program import Edges, Program, Step

Row = dict[str, Any]
WIDTH, REPEATS = 256, 11
GCN, GAT = Edges("gcn", self_loops=True), Edges(self_loops=True)
FORMS = {NUMBERS: "32-bit", INT8: "8-bit", INT16: "16-bit"}


@dataclass(frozen=True)
class Limits:
    """What a machine can do in a second: bytes read in order, bytes of rows of so many cache lines
    read in any order, multiply-adds of integers and of numbers."""

    read: float
    gather: dict[int, float]
    int8: float
    fp32: float

    def gathered(self, lines: int) -> float:
        """The bytes of rows of so many lines: of the nearest number of them that was measured."""
        return self.gather[min(self.gather, key=lambda known: abs(known - lines))]


def measure_limits(threads: int) -> Limits:
    r"""Returns the limits of this machine.

    Args:
        threads (int): The number of threads.

    Raises:
        ValueError: If there is no compiler, or the program cannot be compiled.
    """
    compiler = os.environ.get("CXX", "g++")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "limits")
        source = str(Path(__file__).with_name("limits.cpp"))
        flags = ["-O3", "-march=native", "-fopenmp"]
        try:
            subprocess.run([compiler, *flags, source, "-o", program], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"'{compiler}' does not compile {source} (set CXX): {error}") from None
        told = subprocess.run([program, str(threads)], check=True, capture_output=True).stdout
    found = json.loads(told)
    gather = {int(lines): rate for lines, rate in found.pop("gather").items()}
    return Limits(gather=gather, **found)


def keep_pages() -> None:
    """Has the memory allocator (glibc's) keep what is freed: that the system clears new pages for
    an output is no part of a kernel."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        most_mapped, trim_threshold = -4, -1
        library.mallopt(most_mapped, 0)
        library.mallopt(trim_threshold, (1 << 31) - 1)


def programs() -> dict[str, Program]:
    """Returns programs that are a kernel, or little more."""
    generator = torch.Generator().manual_seed(0)
    ternary = torch.randint(-1, 2, (WIDTH, WIDTH), generator=generator).to(torch.int8)
    quantize = Step("quantize", (0,), attrs={"bits": 8, "full_range": False, "eps": 1e-8})
    scale = torch.full((1,), 0.05)

    def linear(read: int, bits: float | None) -> Step:
        tensors = {"weight": ternary, "scale": scale} if bits else {"weight": ternary.float()}
        return Step("linear", (read,), attrs={"bits": bits, "rescale_bias": False}, tensors=tensors)

    def attend(heads: int) -> Step:
        att = torch.randn(2, WIDTH, generator=generator)
        attrs = {"heads": heads, "concat": True, "slope": 0.2}
        return Step(
            "attend", (2,), attrs=attrs, tensors={"att_src": att[0], "att_dst": att[1]}, edges=GAT
        )

    def aggregate(read: int) -> Step:
        return Step("aggregate", (read,), attrs={"reduce": "sum"}, edges=GCN)

    return {
        "product": Program((quantize, linear(1, 1.58))),
        "product, 32-bit": Program((linear(0, None),)),
        "sum over edges": Program((quantize, aggregate(1))),
        "sum over edges, 32-bit": Program((aggregate(0),)),
        "layer of GCN": Program((quantize, linear(1, 1.58), aggregate(2))),
        "attention, 1 head": Program((quantize, linear(1, 1.58), attend(1))),
        "attention, 8 heads": Program((quantize, linear(1, 1.58), attend(8))),
    }


def passes_of(
    name: str, program: Program, x: torch.Tensor, graph: PreparedGraph, limits: Limits
) -> Iterator[Row]:
    r"""Times the passes of a program.

    Args:
        name (str): How a table calls it.
        program (Program): The program.
        x (torch.Tensor): The features.
        graph (PreparedGraph): The graph.
        limits (Limits): What the machine can do.
    """
    run = NativeProgram(program, x.size(1))
    run(x, graph)
    times: list[list[float]] = []
    for _ in range(REPEATS):
        run(x, graph)
        times.append([s for item in run.items for s in item.engine.seconds])  # type: ignore[union-attr]
    segments = [item.segment for item in run.items]  # type: ignore[union-attr]
    stages = [each for segment in segments for each in segment.passes]
    for place, (which, seconds) in enumerate(zip(stages, zip(*times, strict=True), strict=True)):
        parts = _parts(segments[0], which, x.size(0), graph, limits)
        ms, limit = 1e3 * statistics.median(seconds), max(parts.values())
        in_turn = sum(parts.values())
        kinds = ", ".join(_what(stage) for stage in which)
        yield {"kernel": name, "pass": place + 1, "does": kinds, "ms": ms, **parts} | {
            "limit_ms": limit, "share": limit / ms, "share_in_turn": in_turn / ms
        }  # fmt: skip


def _what(stage: Stage) -> str:
    words = []
    for term in stage.terms:
        if term.aggregate is not None:
            words.append(f"{term.aggregate.op} {FORMS[term.view.form]} rows")
        if term.weight is not None:
            words.append(f"multiply by {'ternary' if term.weight.attrs['bits'] else '32-bit'}")
    words += [f"write {FORMS[view.form]} rows" for view in stage.makes]
    return ", ".join(words)


def _parts(
    segment: Segment, stages: Sequence[Stage], rows: int, graph: PreparedGraph, limits: Limits
) -> dict[str, float]:
    """Milliseconds that memory and arithmetic need at their limits."""
    found = {"gather_ms": 0.0, "product_ms": 0.0, "stream_ms": 0.0}
    made = {view for stage in stages for view in stage.makes}
    for stage in stages:
        for term in stage.terms:
            _add_term(found, term, rows, graph, limits)
            if term.aggregate is None and term.view not in made:
                found["stream_ms"] += 1e3 * rows * WIDTH * SIZES[term.view.form] / limits.read
        size = sum(SIZES[view.form] for view in stage.makes)
        size += SIZES[NUMBERS] * (stage.value in segment.wanted)
        found["stream_ms"] += 1e3 * rows * WIDTH * size / limits.read
    return found


def _add_term(
    found: dict[str, float], term: Term, rows: int, graph: PreparedGraph, limits: Limits
) -> None:
    if term.aggregate is not None:
        assert term.aggregate.edges is not None
        edges = graph.num_edges + graph.num_nodes * term.aggregate.edges.self_loops
        lines = -(-WIDTH * SIZES[term.view.form] // LINE)
        found["gather_ms"] += 1e3 * edges * lines * LINE / limits.gathered(lines)
    if term.weight is not None:
        ternary = term.weight.attrs["bits"] is not None
        twice = 2 if term.hold == INT16 else 1  # 16 bits are two products of 8.
        peak = limits.int8 / twice if ternary else limits.fp32
        found["product_ms"] += 1e3 * rows * term.weight.tensors["weight"].numel() / peak


def roofline(
    threads: Annotated[int | None, typer.Option(min=1, help="Else one a core.")] = None,
    results: Results = RESULTS,
) -> None:
    """Measure limits and kernels, and print the table."""
    if not native.enabled():
        raise ValueError(f"There is nothing to measure: native kernels are {native.status()}")
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    keep_pages()
    limits = measure_limits(threads)
    data = random_graph(SHAPES["arxiv"])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(int(data.num_nodes), WIDTH, generator=generator)
    graph = prepare(data.edge_index, data.num_nodes)
    rows = [
        row
        for name, program in programs().items()
        for row in passes_of(name, program, x, graph, limits)
    ]
    about = setting(threads, 0.0) | {"limits": vars(limits), "repeats": REPEATS}
    text = json.dumps({"setting": about, "rows": rows}, indent=1) + "\n"
    write_whole(results / "roofline.json", text.encode())
    write_whole(results / "roofline.md", to_markdown(rows, limits, about).encode())
    typer.echo(to_markdown(rows, limits, about))


def to_markdown(rows: Sequence[Row], limits: Limits, about: dict[str, Any]) -> str:
    r"""Returns the table as text.

    Args:
        rows (list[dict]): What was measured.
        limits (Limits): What the machine can do.
        about (dict): Under which conditions.
    """
    names = {"ms": "ms", "gather_ms": "gather", "product_ms": "product", "stream_ms": "stream"}
    cells = [
        [row["kernel"], str(row["pass"]), row["does"]]
        + [f"{row[name]:.1f}" for name in names]
        + [f"{100 * row[share]:.0f} %" for share in ("share", "share_in_turn")]
        for row in rows
    ]
    table = markdown_table(
        ["kernel", "pass", "does", *names.values(), "of the limit", "of all three in turn"],
        cells,
        names=3,
    )
    gather = ", ".join(f"{lines}: {rate / 1e9:.0f}" for lines, rate in limits.gather.items())
    return "\n".join(
        [
            "# What part of the machine's limits kernels reach", "",
            f"Limits, measured in the same run: {limits.read / 1e9:.0f} GB/s read in order; rows "
            f"read in the order of sources, GB/s by cache lines a row, {gather}; "
            f"{limits.int8 / 1e12:.2f} tera multiply-adds a second of 8-bit integers, "
            f"{limits.fp32 / 1e12:.2f} of 32-bit numbers. Columns gather, product and stream are "
            "milliseconds at these limits, and the longest of them is the limit of the pass; a "
            "thread does one after the other.", "",
            table, "",
            f"{about['threads']} threads, {about['machine']}, kernels {about['kernels']}, medians "
            f"of {REPEATS}.", "",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main(command_line(__doc__, roofline))
