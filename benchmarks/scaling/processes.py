"""Each measurement in a process of its own, whose memory is watched from outside."""

import multiprocessing
import os
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from benchmarks.scaling.graphs import write_graph
from benchmarks.scaling.jobs import Job, measure
from bitgnn.experiment.speed.graphs import Shape
from bitgnn.experiment.speed.memory import resident

BETWEEN = 0.005  # seconds between two looks
MIB_A_GIB = 1024


@cache
def _context() -> BaseContext:
    # Copies of a process that has imported everything, and has no threads yet. Threads that wait
    # sleep, so that what else the machine does disturbs less.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.scaling.jobs"])
    return context


def run(job: Job, limit: float) -> dict[str, Any]:
    r"""Measures something in a process of its own, and returns what it found, with the highest
    private memory, which no file backs, in mebibytes above that of the inputs: or why it did not
    run.

    Args:
        job (Job): What is measured.
        limit (float): The GiB of private memory above which the process is ended.
    """
    line, its_line = _context().Pipe()
    process = _context().Process(target=_measure, args=(job, its_line))
    process.start()
    its_line.close()
    before = peak = 0.0
    found: dict[str, Any] = {}
    while not found:
        now = resident("RssAnon", process.pid) or 0.0
        peak = max(peak, now - before)
        if peak > MIB_A_GIB * limit:
            found = {"why_not": f"took more than {limit:g} GiB"}
        elif line.poll(BETWEEN):
            try:
                told = line.recv()
            except EOFError:
                found = {"why_not": "the process ended, perhaps for want of memory"}
                break
            if isinstance(told, float):
                before, peak = told, 0.0
            else:
                found = told if "why_not" in told else {**told, "private_mib": peak}
    process.kill()
    process.join()
    return found


def _measure(job: Job, line: Connection) -> None:
    try:
        found = measure(job, lambda: line.send(resident("RssAnon") or 0.0))
    except Exception as error:  # whatever it is: the row says so
        said = (str(error) or type(error).__name__).splitlines()[0]
        found = {"why_not": f"{type(error).__name__}: {said}"[:120]}
    line.send(found)


def write(shape: Shape, folder: Path) -> None:
    r"""Writes a graph, in a process of its own.

    Args:
        shape (Shape): Its size.
        folder (Path): Where to.
    """
    process = _context().Process(target=write_graph, args=(shape, folder))
    process.start()
    process.join()
    if process.exitcode:
        raise OSError(f"No graph could be written to {folder} (status {process.exitcode})")
