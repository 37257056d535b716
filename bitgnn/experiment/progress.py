import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bitgnn.experiment.spec import RunSpec

PLAIN_SECONDS = 10.0
Cell = tuple[str, str, str]
Identity = tuple[str, str, str, int]


class Progress:
    r"""Shows what runs, the accuracy so far and the time left, on standard error.

    On a terminal the picture is live; elsewhere a plain line comes every ten seconds.

    Args:
        specs (list[RunSpec]): All runs.
        stored (list[dict]): The records of those that are finished already.
        enabled (bool, optional): If set to :obj:`False`, shows nothing. (default: :obj:`True`)
        console (rich.console.Console, optional): Where to. (default: standard error)
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        stored: Sequence[dict[str, Any]] = (),
        enabled: bool = True,
        console: Console | None = None,
    ) -> None:
        self.console = console or Console(stderr=True)
        self.enabled = enabled and len(stored) < len(specs)
        self.totals: dict[Cell, int] = defaultdict(int)
        for spec in specs:
            self.totals[_cell(spec)] += 1
        self.scores: dict[Cell, list[float]] = defaultdict(list)
        self.diverged: dict[Cell, int] = defaultdict(int)
        self.running: dict[Identity, tuple[RunSpec, int, float]] = {}
        self.num_stored, self.finished = len(stored), 0
        self.num_runs = len(specs) - len(stored)
        for record in stored:
            self._score(record)
        self.started = time.monotonic()
        self.said = self.started
        self.live = Live(get_renderable=self.render, console=self.console, transient=True)

    def epoch(self, spec: RunSpec, epoch: int, val: float) -> None:
        """Notes that a run has come to an epoch."""
        self.running[_identity(spec)] = spec, epoch, val

    def done(self, record: dict[str, Any]) -> None:
        """Notes that a run has finished."""
        spec = RunSpec.from_dict(record["spec"])
        self.running.pop(_identity(spec), None)
        self.finished += 1
        self._score(record)
        if record["diverged"]:
            self._say(f"{spec} diverged after epoch {record['epochs']}: lower lr may help")
        if not self.console.is_terminal and self._line_is_due():
            self._say(self._line())

    def failed(self, spec: RunSpec, reason: str) -> None:
        """Notes that a run has failed, for a reason whose last line says most."""
        self.running.pop(_identity(spec), None)
        self._say(f"{spec} failed: {reason.strip().splitlines()[-1]}")

    def seconds_left(self) -> float | None:
        """Returns an estimate of the time left, once there is something to go by."""
        begun = sum(epoch / spec.recipe["epochs"] for spec, epoch, _ in list(self.running.values()))
        share = (self.finished + begun) / self.num_runs if self.num_runs else 1.0
        elapsed = time.monotonic() - self.started
        return elapsed * (1.0 - share) / share if share > 0 else None

    def render(self) -> Group:
        """Returns the live picture: the means so far, then what runs, then the time left."""
        precisions = list(dict.fromkeys(precision for _, _, precision in self.totals))
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("", "", *precisions):
            table.add_column(name, justify="left" if name == "" else "right")
        for dataset, model in dict.fromkeys((dataset, model) for dataset, model, _ in self.totals):
            table.add_row(
                dataset, model, *(self._mean((dataset, model, each)) for each in precisions)
            )
        lines = [
            Text(f"  {spec}  epoch {epoch}/{spec.recipe['epochs']}  val {val:.1f}", style="dim")
            for spec, epoch, val in list(self.running.values())
        ]
        return Group(table, *lines, Text(self._line(), style="bold"))

    def __enter__(self) -> "Progress":
        if self.enabled and self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def _score(self, record: dict[str, Any]) -> None:
        cell = _cell(RunSpec.from_dict(record["spec"]))
        if record["diverged"]:
            self.diverged[cell] += 1
        else:
            self.scores[cell].append(record["test"])

    def _mean(self, cell: Cell) -> str:
        scores = self.scores[cell]
        mean = f"{fmean(scores):.2f}" if scores else "–"
        lost = f" {self.diverged[cell]} diverged" if self.diverged[cell] else ""
        return f"{mean} ({len(scores)}/{self.totals[cell]}){lost}" if cell in self.totals else ""

    def _line(self) -> str:
        left = self.seconds_left()
        stored = f", {self.num_stored} from the store" if self.num_stored else ""
        wait = "" if not left else f", about {duration(left)} left"
        return f"{self.finished} of {self.num_runs} runs trained{stored}{wait}"

    def _line_is_due(self) -> bool:
        now = time.monotonic()
        due = now - self.said >= PLAIN_SECONDS or self.finished == self.num_runs
        self.said = now if due else self.said
        return due

    def _say(self, line: str) -> None:
        if self.enabled:
            self.console.print(Text(line), soft_wrap=True)


def _cell(spec: RunSpec) -> Cell:
    return spec.dataset, spec.model, spec.precision


def _identity(spec: RunSpec) -> Identity:
    return *_cell(spec), spec.seed


def duration(seconds: float) -> str:
    """A time as people say it: :obj:`"14 min"`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
