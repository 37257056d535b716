"""Sides in turns: each in a process of its own, one at a time, and ratios of the same round."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitgnn.experiment.speed.case import Case
from bitgnn.experiment.speed.processes import Failed, Process, turn_seconds
from bitgnn.experiment.speed.sides import Side, ours, sides_of

EDGE_INDEX = Side("edge_index")


@dataclass
class Heat:
    """What a side did by itself: milliseconds of a call, mebibytes above what was there before."""

    side: Side
    ms: float | None = None
    mib: float | None = None
    prepare_ms: float | None = None
    error: str | None = None


@dataclass
class Result:
    r"""What came of a race.

    Args:
        case (Case): The model and the graph.
        heats (list): What each side did by itself.
        finalists (list): PyG's fastest by themselves, the first of which is the fastest.
        ms (dict): Medians of the rounds, of those sides that took part in them.
        ratio (dict): How many times as long as the packed model they took: medians of ratios.
        rounds (int): The number of rounds.
    """

    case: Case
    heats: list[Heat]
    finalists: list[Side]
    ms: dict[str, float] = field(default_factory=dict)
    ratio: dict[str, float] = field(default_factory=dict)
    rounds: int = 0

    @property
    def fastest(self) -> Side:
        """PyG's fastest, in the rounds."""
        return min(self.finalists, key=lambda side: self.ms[side.name])

    def row(self) -> dict[str, Any]:
        """The result as a row for JSON."""
        edge, fast = EDGE_INDEX.name, self.fastest.name
        mine, full = (side.name for side in ours(self.case)[:2])
        peaks = {heat.side.name: heat.mib for heat in self.heats}
        lean = min(
            (
                heat.mib
                for heat in self.heats
                if heat.mib is not None and heat.side.is_pygs and heat.side.form != "compiled"
            ),
            default=None,
        )
        return {
            "model": self.case.name,
            "graph": self.case.graph,
            "ours_ms": self.ms[mine],
            "fastest_path": fast,
            "fastest_ms": self.ms[fast],
            "edge_index_ms": self.ms[edge],
            "vs_fastest": self.ratio[fast],
            "vs_edge_index": self.ratio[edge],
            "fp32_fused_ms": self.ms[full],
            "vs_fp32_fused": self.ratio[full],
            "prepare_ms": self.heats[0].prepare_ms,
            "peak_mib": peaks[mine],
            "fastest_peak_mib": peaks[fast],
            "leanest_peak_mib": lean,
            "edge_index_peak_mib": peaks[edge],
            "rounds": self.rounds,
            "heats": [
                {"path": heat.side.name, "ms": heat.ms, "mib": heat.mib, "error": heat.error}
                for heat in self.heats
            ],
        }


def race(
    case: Case,
    threads: int,
    root: str | Path | None = None,
    compiled: bool = True,
    seconds: float = 60.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    r"""Times PyG's ways to run a model one by one, and then the fastest of them, the fastest with
    another allocator, the usual one (:obj:`edge_index`) and the packed model in turns. Beside other
    processes an allocator may be slower than by itself, if there are no huge pages left, say.

    Args:
        case (Case): The model and the graph.
        threads (int): The number of threads.
        root (str or Path, optional): Where data sets lie. (default: :obj:`None`)
        compiled (bool, optional): Whether :func:`torch.compile` is among PyG's ways.
            (default: :obj:`True`)
        seconds (float, optional): How long the turns may take; there are 5 rounds at least, and 41
            at most. (default: :obj:`60`)
        tell (callable, optional): Is told what is going on. (default: nobody)

    Raises:
        Failed: If the packed model, or PyG with :obj:`edge_index`, cannot run.
    """
    where = None if root is None else str(root)
    heats = []
    mine, full, *others = ours(case)
    for side in (mine, full, *others, *sides_of(case, compiled)):
        tell(f"{case.name} on {case.graph}: {side.name}")
        heats.append(_heat(case, side, threads, where))
        if heats[-1].error is not None and side in (mine, full, EDGE_INDEX):
            raise Failed(f"{case.name} on {case.graph}, {side.name}: {heats[-1].error}")
    alone = {heat.side: heat.ms for heat in heats if heat.ms is not None}
    result = Result(case, heats, _finalists(alone))
    sides = [mine, full, EDGE_INDEX, *result.finalists]
    _rounds(result, sides, alone, threads, where, seconds, tell)
    return result


def _finalists(alone: dict[Side, float]) -> list[Side]:
    """PyG's fastest way, and the fastest with another allocator."""
    first, *others = sorted((side for side in alone if side.is_pygs), key=lambda side: alone[side])
    return [first, *[side for side in others if side.allocator != first.allocator][:1]]


def _heat(case: Case, side: Side, threads: int, root: str | None) -> Heat:
    try:
        process = Process(case, side, threads, root)
    except Failed as error:
        return Heat(side, error=str(error))
    try:
        first = process.ask("first")
        once = process.ask("run", count=1, warm=False)["seconds"][0]
        ms = 1e3 * statistics.median(process.turn(once) for _ in range(3))
        return Heat(side, ms, first["mib"], first["prepare_ms"])
    except Failed as error:
        return Heat(side, error=str(error))
    finally:
        process.close()


def _rounds(
    result: Result,
    sides: Sequence[Side],
    alone: dict[Side, float],
    threads: int,
    root: str | None,
    seconds: float,
    tell: Callable[[str], None],
) -> None:
    sides = list(dict.fromkeys(sides))
    processes: list[Process] = []
    times: dict[Side, list[float]] = {side: [] for side in sides}
    try:
        for side in sides:
            processes.append(Process(result.case, side, threads, root))
            processes[-1].ask("first")
        each = sum(turn_seconds(alone[side] / 1e3) for side in sides)
        result.rounds = max(5, min(41, round(seconds / each)))
        for k in range(result.rounds):
            tell(f"{result.case.name} on {result.case.graph}: round {k + 1} of {result.rounds}")
            first = k % len(processes)
            for process in processes[first:] + processes[:first]:
                times[process.side].append(process.turn(alone[process.side] / 1e3))
    finally:
        for process in processes:
            process.close()
    for side in sides:
        result.ms[side.name] = 1e3 * statistics.median(times[side])
        result.ratio[side.name] = statistics.median(
            theirs / mine for theirs, mine in zip(times[side], times[sides[0]], strict=True)
        )
