"""One side of a race, in a process of its own: it is told what to do by lines of JSON, and answers
with such lines."""

import json
import os
import signal
import socket
import sys
import time
from typing import IO, Any

import torch

from bitgnn.experiment.speed.case import Case
from bitgnn.experiment.speed.graphs import graph_of
from bitgnn.experiment.speed.memory import forget_peak, give_back, resident
from bitgnn.experiment.speed.sides import Side, build


class Worker:
    """Runs a model when it is told to."""

    def __init__(self, case: Case, side: Side, threads: int, root: str | None) -> None:
        torch.set_num_threads(threads)
        data, num_classes = graph_of(case.graph, root)
        self.call, self.prepare = build(side, case, data, num_classes)
        self.infers = not case.train

    def first(self) -> dict[str, Any]:
        """The first call: how much memory it takes beyond what was there before. And how long a
        graph takes to prepare."""
        give_back()
        before = resident("VmRSS")
        forget_peak()
        start = time.perf_counter()
        with torch.inference_mode(self.infers):
            out = self.call()
        seconds = time.perf_counter() - start
        peak = resident("VmHWM")
        mib = None if before is None or peak is None else peak - before
        if not bool(torch.isfinite(out).all()):
            raise ValueError("the output is not finite")
        prepare = None
        if self.prepare is not None:
            self.prepare()
            start = time.perf_counter()
            self.prepare()
            prepare = 1e3 * (time.perf_counter() - start)
        return {"seconds": seconds, "mib": mib, "prepare_ms": prepare}

    def run(self, count: int, warm: bool) -> dict[str, Any]:
        """Some calls; the first of them goes untimed if it is to warm up."""
        seconds = []
        with torch.inference_mode(self.infers):
            if warm:
                self.call()
            for _ in range(count):
                start = time.perf_counter()
                out = self.call()
                seconds.append(time.perf_counter() - start)
                del out
        return {"seconds": seconds}


def serve(line: IO[str]) -> None:
    """Does what it is told, until nobody tells it anything any more.

    Args:
        line (file): Where orders come from, and answers go.
    """
    print(json.dumps({"pid": os.getpid()}), file=line, flush=True)
    worker: Worker | None = None
    for text in line:
        order = json.loads(text)
        do = order.pop("do")
        try:
            if do == "build":
                case, side = Case(**order.pop("case")), Side(**order.pop("side"))
                worker = Worker(case, side, **order)
                answer: dict[str, Any] = {}
            else:
                answer = getattr(worker, do)(**order)
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first}"[:200]}
        print(json.dumps(answer), file=line, flush=True)


def main() -> None:
    """Makes a copy of this process for each line of standard input."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin.buffer:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch.compile waits for compilers.
            line = socket.socket(socket.AF_UNIX)
            line.connect(sys.argv[1])
            serve(line.makefile("rw"))
            os._exit(0)


if __name__ == "__main__":
    main()
