"""Fuzzes packed files: child processes read and call mutated ones. A child is killed when a file
takes too long or too much memory, and another one goes on after a file that ended a child.

    python -m tests.fuzz.run [--count 100000] [--first 0] [--workers 2]

It ends with the number of each outcome, and with status 1 unless every file ran or was refused
with a ValueError.
"""

import argparse
import os
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SECONDS, MEMORY = 5.0, 2**30  # of the processor for a file, and bytes more than at the start
GOOD = ("ran", "refused when read", "refused when called")
REPORTS = Path("build/fuzz")  # what children write to standard error
TICKS = os.sysconf("SC_CLK_TCK")


class Worker:
    """A child process, for every `step`-th file from `first` on."""

    def __init__(self, first: int, last: int, step: int) -> None:
        self.next, self.last, self.step = first, last, step
        self.found: Counter[str] = Counter()
        self.faults: list[tuple[int, str]] = []
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.fuzz.worker"]
        command += [str(each) for each in (self.next, self.last, self.step)]
        self.reports = REPORTS / f"{os.getpid()}-{self.next}.log"
        with self.reports.open("wb") as reports:
            self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=reports)
        assert self.child.stdout is not None
        self.lines = self.child.stdout
        self.seed: int | None = None  # the file that it works on

    def fileno(self) -> int:
        return self.lines.fileno()

    def read(self) -> None:
        """Reads a line, or notices that there is no more."""
        line = self.lines.readline().decode().strip()
        if not line:
            self._ended("crash")
            return
        seed, _, came = line.partition(" ")
        if came:
            self.found[came] += 1
            if came not in GOOD:
                self.faults.append((int(seed), came))
            self.seed, self.next = None, int(seed) + self.step
        else:
            self.seed = int(seed)
            self.cpu, self.memory = self._cpu(), self._memory()

    def watch(self) -> None:
        """Ends the child if the file that it works on takes too much."""
        if self.seed is None:
            return
        try:
            if self._cpu() - self.cpu > SECONDS:
                self._ended("hang")
            elif self._memory() - self.memory > MEMORY:
                self._ended("memory")
        except (OSError, IndexError):
            pass  # It has just ended by itself, which `read` notices.

    @property
    def done(self) -> bool:
        return self.next >= self.last

    def _ended(self, how: str) -> None:
        self.child.kill()
        status = self.child.wait()
        self.lines.close()
        if self.seed is None and self.done and status == 0:
            if not self.faults:
                self.reports.unlink(missing_ok=True)
            return
        seed = self.next if self.seed is None else self.seed
        self.found[how] += 1
        self.faults.append((seed, f"{how}, status {status}, see {self.reports}"))
        print(f"{seed}: {how}, see {self.reports}", flush=True)
        self.next = seed + self.step
        if not self.done:
            self._start()

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def _memory(self) -> int:
        pages = Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    last = given.first + given.count
    REPORTS.mkdir(parents=True, exist_ok=True)
    workers = [
        Worker(given.first + place, last, given.workers)
        for place in range(min(given.workers, given.count))
    ]
    shown = time.monotonic()
    while True:
        open_ones = [worker for worker in workers if not worker.lines.closed]
        if not open_ones:
            break
        for worker in select.select(open_ones, [], [], 0.2)[0]:
            worker.read()
        for worker in open_ones:
            if not worker.lines.closed:
                worker.watch()
        if time.monotonic() - shown > 60:
            shown = time.monotonic()
            print(sum((worker.found for worker in workers), Counter()), flush=True)
    found = sum((worker.found for worker in workers), Counter())
    for seed, how in sorted(fault for worker in workers for fault in worker.faults):
        print(f"{seed}: {how}")
    print(", ".join(f"{count} {outcome}" for outcome, count in found.most_common()))
    return int(bool(found.keys() - set(GOOD)))


if __name__ == "__main__":
    sys.exit(main())
