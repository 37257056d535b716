r"""Runs in parallel: one process a core, one thread a process.

A worker is a fresh interpreter in :func:`main` that reads one JSON line a run from its input and
answers with JSON lines. So a script needs no
:obj:`if __name__ == "__main__"`, nothing is pickled, and the pipe tells a worker that its parent is
gone, however that ended; on Linux the kernel ends it then, even if it is stopped.

A run whose worker is killed (by the kernel for want of memory, by a batch system, by a person) is
given to a new worker, :obj:`RETRIES` times. Any other failure would only be repeated.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import bitgnn
from bitgnn.experiment.agenda import Agenda, teacher_key
from bitgnn.experiment.lifeline import prelude
from bitgnn.experiment.run import execute
from bitgnn.experiment.spec import RunSpec

# Errors that a user can mend: told in one line. Others show where they come from.
USER_ERRORS = (ValueError, TypeError, OSError)

# What PyTorch and PyG say of what bitgnn uses on purpose, and no user can change.
OF_NO_USE = (
    "Sparse CSR tensor support is in beta state",
    "Sparse invariant checks are implicitly disabled",
    "Using 'NeighborSampler' without a 'pyg-lib' installation",
)

# How often a run is given to a new worker after its own was killed.
RETRIES = 2

PACKAGE = Path(bitgnn.__file__).parent
_format_warning = warnings.formatwarning

_WORKER = "from bitgnn.experiment.workers import main\nmain()"

OnEpoch = Callable[[RunSpec, int, float], None]
OnFailure = Callable[[RunSpec, str], None]
# A run and a message about it; None when a thread of the pool has ended.
Event = tuple[RunSpec, dict[str, Any]] | None


class RunError(RuntimeError):
    """A run failed for a reason that is no error of the user."""


class _ClosedError(Exception):
    """No process is started any more."""


def number_of_workers(wanted: int | None, device: str, num_runs: int) -> int:
    """Returns how many processes serve a number of runs, at most one each.

    Args:
        wanted (int or None): How many are asked for; one a core, on a GPU one, if :obj:`None`.
        device (str): Where runs take place.
        num_runs (int): The number of runs.

    Raises:
        ValueError: If less than 1 is asked for.
    """
    if wanted is not None and wanted < 1:
        raise ValueError(f"'workers' must be at least 1 (got {wanted})")
    affinity = getattr(os, "sched_getaffinity", None)  # not everywhere
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(wanted or (1 if device.startswith("cuda") else cores), num_runs))


def run_all(
    specs: Sequence[RunSpec],
    root: str | Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    on_epoch: OnEpoch | None = None,
    on_failure: OnFailure | None = None,
) -> Generator[dict[str, Any], None, None]:
    r"""Executes runs and yields their records as they finish.

    A run that is the teacher of another is kept for it. A run whose teacher trains at the moment
    waits for it, and those after it are started before it.

    After an error no further run is started, but those that are running end, and their records
    come, before it is raised.

    Args:
        specs (list[RunSpec]): What to run, started in this order.
        root (str, optional): A folder to look for data in first. (default: :obj:`None`)
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
        workers (int, optional): The number of processes, which does not change any number; with
            one, runs take place in this process. (default: one a core, on a GPU one)
        on_epoch (Callable, optional): Called after each epoch with the run, the number of the
            epoch and its validation metric. (default: :obj:`None`)
        on_failure (Callable, optional): Called with each run that fails in a worker, and the
            reason, as soon as that is known. With it, a run that is given up because its workers
            were killed is no error, and the others go on. (default: :obj:`None`)

    Raises:
        RunError: If a run fails.
        ValueError: If a run fails for what a user can mend, or :obj:`workers` is less than 1.
    """
    workers = number_of_workers(workers, device, len(specs))
    if workers > 1:
        with _Pool(specs, root, device, workers) as pool:
            yield from pool.records(on_epoch, on_failure)
        return
    kept = {teacher_key(spec) for spec in specs}
    for spec in specs:
        message = _attempt(spec, root, device, _bind(on_epoch, spec), spec.key in kept)
        if "record" not in message:
            raise _error(spec, message)
        yield message["record"]


class _Pool:
    """Worker processes, each driven by a thread that hands it one run after the other."""

    def __init__(
        self, specs: Sequence[RunSpec], root: str | Path | None, device: str, workers: int
    ) -> None:
        self.agenda = Agenda(specs)
        self.kept = {teacher_key(spec) for spec in specs}
        self.root, self.device = root, device
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.lock = threading.Lock()  # of the two that follow
        self.closed = False
        self.processes: set[subprocess.Popen[str]] = set()
        self.threads = [threading.Thread(target=self._drive, daemon=True) for _ in range(workers)]

    def records(
        self, on_epoch: OnEpoch | None, on_failure: OnFailure | None
    ) -> Iterator[dict[str, Any]]:
        for thread in self.threads:
            thread.start()
        working, error = len(self.threads), None
        while working:
            event = self.events.get()
            if event is None:
                working -= 1
                continue
            spec, message = event
            if "epoch" in message:
                if on_epoch is not None:
                    on_epoch(spec, message["epoch"], message["val"])
            elif "record" in message:
                yield message["record"]
            else:
                [problem] = message.values()
                if on_failure is not None:
                    on_failure(spec, problem)
                if "killed" not in message or on_failure is None:
                    self.agenda.stop()
                    error = error or _error(spec, message)
        if error is not None:
            raise error

    def _drive(self) -> None:
        process = None
        while (spec := self.agenda.take()) is not None:
            try:
                process, message = self._outcome(spec, process)
            except _ClosedError:
                break
            except Exception:
                process, message = None, {"error": traceback.format_exc()}
            if "record" not in message and "killed" not in message:
                self.agenda.stop()  # Before this thread itself takes the next one.
            self.events.put((spec, message))
            self.agenda.done(spec)
        self.events.put(None)

    def _outcome(
        self, spec: RunSpec, process: "subprocess.Popen[str] | None"
    ) -> "tuple[subprocess.Popen[str] | None, dict[str, Any]]":
        """Has a worker execute a run, and new ones if it is killed. Returns the worker, and what
        came of the run."""
        for _ in range(1 + RETRIES):
            process = process or self._start()
            message = self._ask(process, spec)
            if message is not None:
                return process, message
            status = process.wait()
            with self.lock:
                self.processes.discard(process)
            process = None
            if status >= 0:
                problem = f"its process ended with status {status}, see its output above"
                return None, {"error": problem}
        times = f"{1 + RETRIES} times in a row" if RETRIES else "once"
        return None, {"killed": f"its process was killed {times} (signal {-status})"}

    def _ask(self, process: "subprocess.Popen[str]", spec: RunSpec) -> dict[str, Any] | None:
        """Returns the last message of a worker about a run, :obj:`None` if it has ended before."""
        assert process.stdin is not None and process.stdout is not None
        run = {"spec": spec.to_dict(), "keep": spec.key in self.kept}
        with suppress(OSError):  # The pipe is broken.
            process.stdin.write(json.dumps(run) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                if not line.endswith("\n"):
                    break  # It was killed while it wrote.
                message: dict[str, Any] = json.loads(line)
                if "epoch" not in message:
                    return message
                self.events.put((spec, message))
        return None

    def _start(self) -> "subprocess.Popen[str]":
        with self.lock:
            if self.closed:
                raise _ClosedError
            process = _start(self.root, self.device)
            self.processes.add(process)
            return process

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.agenda.stop()
        with self.lock:
            self.closed = True
            for process in self.processes:
                process.kill()  # A worker holds nothing: what it finished is with the parent.
        for thread in self.threads:
            if thread.ident is not None:
                thread.join()
        for process in self.processes:
            process.wait()


def _start(root: str | Path | None, device: str) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    return subprocess.Popen(
        [sys.executable, "-c", prelude() + _WORKER, json.dumps([root and str(root), device])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        start_new_session=True,  # Ctrl-C is for the parent alone.
    )


def _attempt(
    spec: RunSpec,
    root: str | Path | None,
    device: str,
    on_epoch: Callable[[int, float], None] | None,
    keep: bool,
) -> dict[str, Any]:
    """Executes a run; what goes wrong becomes a message that can travel."""
    try:
        return {"record": execute(spec, root, device, on_epoch, keep)}
    except USER_ERRORS as error:
        return {"user_error": str(error)}
    except Exception:
        return {"error": traceback.format_exc()}


def _error(spec: RunSpec, message: dict[str, Any]) -> Exception:
    if "user_error" in message:
        return ValueError(f"{spec}: {message['user_error']}")
    return RunError(f"{spec} failed: {message.get('error', message.get('killed'))}")


def _bind(on_epoch: OnEpoch | None, spec: RunSpec) -> Callable[[int, float], None] | None:
    if on_epoch is None:
        return None
    return lambda epoch, val: on_epoch(spec, epoch, val)


def hush() -> None:
    """Silences warnings that are of no use to whoever reads a command line's output, and has those
    of bitgnn itself printed in one line."""
    for message in OF_NO_USE:
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    warnings.formatwarning = _one_line


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: Any = None
) -> str:
    if Path(filename).is_relative_to(PACKAGE):
        return f"bitgnn: {message}\n"
    return _format_warning(message, category, filename, lineno, line)


def main() -> None:
    """What a worker does: executes the runs that it reads until its parent is gone."""
    hush()
    root, device = json.loads(sys.argv[1])
    runs: queue.SimpleQueue[str] = queue.SimpleQueue()
    # Libraries may print: standard output belongs to the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def read() -> None:
        for line in sys.stdin:
            runs.put(line)
        os._exit(0)  # The parent is gone, in the midst of a run or not.

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    def on_epoch(epoch: int, val: float) -> None:
        answer({"epoch": epoch, "val": val})

    threading.Thread(target=read, daemon=True).start()
    while True:
        run = json.loads(runs.get())
        spec = RunSpec.from_dict(run["spec"])
        answer(_attempt(spec, root, device, on_epoch, run["keep"]))
