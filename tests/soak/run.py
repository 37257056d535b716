"""Packed inference on changing graphs from several threads, for as long as is wanted.

    python -m tests.soak.run --minutes 30

Threads draw one of some tasks (a seed, from which a graph and features are made anew each time),
a model and a way to call it, and compare the output with that of one thread. Memory is looked at
all the time: after a warm-up it must not grow.
"""

import argparse
import random
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bitgnn.nn import BitGAT, BitGCN, BitGraphSAGE, BitMLP, BitSGC
from bitgnn.packed import PackedModel, PreparedGraph, pack, prepare

THREADS, TASKS, FEATURES, CLASSES = 4, 24, 48, 40
WARM_UP = 0.2  # the share of the time after which memory counts
MOST_GROWTH = 16 * 2**20  # bytes: what allocators of four threads keep or give back


@dataclass
class Task:
    """A graph, its features and the outputs of one thread, by model."""

    seed: int
    expected: list[Tensor] = field(default_factory=list)

    def make(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns new tensors: features with many zeros, edges and their weights."""
        draw = torch.Generator().manual_seed(self.seed)
        nodes = int(torch.randint(1, 12_000, (), generator=draw))
        count = int(torch.randint(0, 8 * nodes, (), generator=draw))
        x = torch.rand(nodes, FEATURES, generator=draw) - 0.7
        edges = torch.randint(nodes, (2, count), generator=draw)
        return x.relu_(), edges, torch.rand(count, generator=draw)


def models() -> list[PackedModel]:
    """The models; the first one reads weights of edges."""
    torch.manual_seed(12)
    built = (
        BitGCN(FEATURES, 64, 3, CLASSES, norm="batch_norm"),
        BitGraphSAGE(FEATURES, 64, 2, CLASSES),
        BitGAT(FEATURES, 64, 2, CLASSES, heads=4),
        BitSGC(FEATURES, CLASSES, K=2),
        BitMLP([FEATURES, 64, CLASSES]),
    )
    return [pack(model.eval()) for model in built]


def call(packed: list[PackedModel], which: int, task: Task, ways: random.Random) -> Tensor:
    """The output of a model for a task, in one of the ways to call it."""
    x, edges, weight = task.make()
    graph: Tensor | PreparedGraph | None = edges
    weights = weight if which == 0 else None
    if which == len(packed) - 1:
        graph = None
    elif ways.random() < 0.5:
        graph, weights = prepare(edges, x.size(0), weights), None
    x = x.to_sparse_csr() if ways.random() < 0.5 else x
    out = torch.empty(x.size(0), CLASSES) if ways.random() < 0.2 else None
    return packed[which](x, graph, weights, out=out)


@dataclass
class Report:
    """What was seen."""

    calls: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)  # seconds, bytes

    def growth(self) -> int:
        """The bytes between the most of the first half after the warm-up and of the second."""
        end = self.memory[-1][0]
        after = [(at, size) for at, size in self.memory if at >= WARM_UP * end]
        half = (1 + WARM_UP) / 2 * end
        first = [size for at, size in after if at < half] or [after[0][1]]
        last = [size for at, size in after if at >= half]
        return max(last) - max(first)

    def __str__(self) -> str:
        sizes = [size / 2**20 for _, size in self.memory]
        return (
            f"{self.calls} calls in {self.memory[-1][0] / 60:.1f} minutes from {THREADS} threads, "
            f"{len(self.wrong)} of them wrong; memory {sizes[0]:.0f} MiB at the start, at most "
            f"{max(sizes):.0f}, {sizes[-1]:.0f} at the end, growth after the warm-up "
            f"{self.growth() / 2**20:+.1f} MiB"
        )


def soak(goes_on: Callable[[int, float], bool], every: float = 1.0) -> Report:
    r"""Runs threads until it is enough.

    Args:
        goes_on (callable): Whether to go on after a number of calls and of seconds.
        every (float, optional): The seconds between two looks at memory. (default: :obj:`1.0`)
    """
    report, lock, tasks = Report(), threading.Lock(), [Task(seed) for seed in range(TASKS)]
    serial = models()
    for task in tasks:
        ways = random.Random(task.seed)
        task.expected = [call(serial, which, task, ways) for which in range(len(serial))]
    packed, start = models(), time.monotonic()
    report.memory.append((0.0, _memory()))

    def work(number: int) -> None:
        ways = random.Random(number)
        while goes_on(report.calls, time.monotonic() - start) and not report.wrong:
            task, which = ways.choice(tasks), ways.randrange(len(packed))
            try:
                fault = torch.equal(call(packed, which, task, ways), task.expected[which])
                told = None if fault else "another output"
            except Exception as error:
                told = repr(error)
            with lock:
                report.calls += 1
                if told is not None:
                    report.wrong.append(f"model {which}, seed {task.seed}: {told}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(every)
        time.sleep(0 if threads[0].is_alive() else every)
        report.memory.append((time.monotonic() - start, _memory()))
    return report


def _memory() -> int:
    """The bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    seconds = 60 * parser.parse_args().minutes
    report = soak(lambda calls, passed: passed < seconds, every=5.0)
    print(report)
    print("MiB by minute:", *(f"{at / 60:.0f}:{size / 2**20:.0f}" for at, size in _sparse(report)))
    if report.wrong or report.growth() > MOST_GROWTH:
        raise SystemExit("\n".join(report.wrong) or "memory grows")


def _sparse(report: Report) -> list[tuple[float, int]]:
    step = max(len(report.memory) // 15, 1)
    return report.memory[::step]


if __name__ == "__main__":
    main()
