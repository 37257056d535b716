"""Processes in which sides run: copies of one that has imported everything, a one for each setting
of the memory allocator, which is read when a process starts."""

import atexit
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from bitgnn.experiment.speed.case import Case
from bitgnn.experiment.speed.sides import ALLOCATORS, Side

TURN = 0.05  # seconds that a turn lasts at least
WARM = 3.0  # seconds of a call that is too long for another one, untimed, before it
PAUSE = 0.005  # between turns, for threads of the one before to fall asleep
PATIENCE = 120  # seconds to wait for a process to start


class Failed(Exception):
    """A side that cannot run a model."""


def turn_seconds(seconds: float) -> float:
    """Returns how long a turn takes, about, where one call takes so long."""
    return max(2 * TURN, seconds * (2 if seconds < WARM else 1))


class _Origin:
    """A process that makes copies of itself."""

    def __init__(self, environment: tuple[tuple[str, str], ...]) -> None:
        folder = tempfile.TemporaryDirectory(prefix="bitgnn-")
        atexit.register(folder.cleanup)
        path = str(Path(folder.name) / "socket")
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(path)
        self.door.listen()
        self.door.settimeout(PATIENCE)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "bitgnn.experiment.speed.worker", path],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **dict(environment)},
        )
        atexit.register(self.process.kill)

    def copy(self) -> socket.socket:
        """Returns a line to a copy."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()
            return self.door.accept()[0]
        except (BrokenPipeError, TimeoutError):
            status = self.process.poll()
            raise Failed(f"no process starts for this comparison (status {status})") from None


# One for each setting of the allocator: what it has imported serves all sides with that setting.
_origin = cache(_Origin)


class Process:
    r"""The process of a side, with the model built.

    Args:
        case (Case): The model and the graph.
        side (Side): How it is run.
        threads (int): The number of threads.
        root (str, optional): Where data sets lie. (default: :obj:`None`)

    Raises:
        Failed: If this side cannot run the model.
    """

    def __init__(self, case: Case, side: Side, threads: int, root: str | None = None) -> None:
        self.side = side
        environment = {**ALLOCATORS[side.allocator], "OMP_NUM_THREADS": str(threads)}
        line = _origin(tuple(environment.items())).copy()
        self.line = line.makefile("rw")
        line.close()
        self.pid = json.loads(self.line.readline())["pid"]
        try:
            self.ask("build", case=asdict(case), side=asdict(side), threads=threads, root=root)
        except Failed:
            self.close()
            raise

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """Has it do something, and returns what it answers."""
        try:
            print(json.dumps({"do": do, **order}), file=self.line, flush=True)
            answer = self.line.readline()
        except (OSError, ValueError):  # The line is cut, or closed.
            answer = ""
        if not answer:
            raise Failed("the process ended, perhaps for want of memory")
        found: dict[str, Any] = json.loads(answer)
        if "error" in found:
            raise Failed(found["error"])
        return found

    def turn(self, seconds: float) -> float:
        """Returns the median time of the calls of a turn, where one call takes about so long. An
        untimed one comes first: what the turn before has left in the caches is not its own."""
        time.sleep(PAUSE)
        count = max(1, min(200, round(TURN / seconds)))
        return statistics.median(self.ask("run", count=count, warm=seconds < WARM)["seconds"])

    def close(self) -> None:
        """Ends it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(OSError):
            self.line.close()
