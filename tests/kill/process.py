"""A command in a process of its own, and how it is killed."""

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil

PATIENCE = 300  # seconds for what takes a few; this machine may be busy

HOWS = {
    "process, SIGKILL": False,
    "process, SIGTERM": False,
    "process, SIGSTOP and SIGKILL": False,
    "worker, SIGKILL": True,
    "worker, SIGSTOP; process, SIGKILL": True,
    "workers and process, SIGKILL": True,
}  # with whether it needs workers


class Child:
    r"""A command in a forked process: a copy of this one, which has imported everything.

    Args:
        run (Callable): The command.
        folder (pathlib.Path): The folder that it runs in, with its cache and its output.
    """

    def __init__(self, run: Callable[[], None], folder: Path) -> None:
        self.folder = folder
        self.pid = os.fork()
        if self.pid == 0:
            _run(run, folder)
        self.status: int | None = None

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Waits until it has ended, or so many seconds; returns whether it has."""
        deadline = time.monotonic() + seconds
        while not self.ended() and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.ended()

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.pid).children():
            try:
                if "workers import main" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:  # It has just ended.
                pass
        return found

    def kill(self, how: str, chance: random.Random) -> bool:
        """Kills it in one of :obj:`HOWS`; returns whether there was what is to be killed."""
        if HOWS[how]:
            workers = self.workers()
            if not workers:
                return False
            chosen = chance.choice(workers).pid
            if how == "worker, SIGKILL":
                return _send(chosen, signal.SIGKILL)
            if how.startswith("worker, SIGSTOP"):
                _send(chosen, signal.SIGSTOP)
            else:
                for worker in workers:
                    _send(worker.pid, signal.SIGKILL)
        if how == "process, SIGSTOP and SIGKILL":
            os.kill(self.pid, signal.SIGSTOP)
        os.kill(self.pid, signal.SIGTERM if how == "process, SIGTERM" else signal.SIGKILL)
        assert self.wait(), f"it does not end: {how}"
        return True


def processes_in(folder: Path) -> list[psutil.Process]:
    """The processes whose current folder that is."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder):
                found.append(process)
        except psutil.Error:
            pass
    return found


def none_left(folder: Path, seconds: float = 10) -> bool:
    """Waits until no process is left in a folder; ends those that remain after some time."""
    deadline = time.monotonic() + seconds
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in left:
        process.kill()
    return not left


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _run(run: Callable[[], None], folder: Path) -> None:
    """What the forked process does; it never returns."""
    status = 1
    try:
        os.chdir(folder)
        os.environ["BITGNN_CACHE"] = str(folder / "cache")
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        run()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
