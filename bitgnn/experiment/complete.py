from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitgnn.experiment.checks import warn
from bitgnn.experiment.estimate import announce
from bitgnn.experiment.progress import Progress
from bitgnn.experiment.record import run_in
from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.store import Store
from bitgnn.experiment.workers import RunError, number_of_workers, run_all


@dataclass(frozen=True)
class Failure:
    r"""A run that was given up.

    Args:
        spec (RunSpec): The run.
        reason (str): Why.
    """

    spec: RunSpec
    reason: str

    def __str__(self) -> str:
        return f"{self.spec} failed: {self.reason}"


def complete(
    specs: Sequence[RunSpec],
    store: Store,
    root: str | Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    progress: bool = True,
    failures: list[Failure] | None = None,
) -> list[dict[str, Any]]:
    r"""Trains the runs that a store lacks, each stored as it finishes, and returns the records of
    all of them, in the order of the runs.

    Args:
        specs (list[RunSpec]): The runs, each once.
        store (Store): The result store.
        root (str, optional): A folder to look for data in first. (default: :obj:`None`)
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
        workers (int, optional): The number of processes, which changes no number. (default: one
            a core, on a GPU one)
        progress (bool, optional): Whether to say how long it will take and what
            :func:`bitgnn.check` finds, and to show progress, on standard error.
            (default: :obj:`True`)
        failures (list[Failure], optional): Receives the runs that were given up because the
            processes that trained them were killed. (default: :obj:`None`, an error once all
            others are stored)

    Raises:
        RunError: If a run fails.
        ValueError: If a run fails for what a user can mend, or :obj:`workers` is less than 1.
    """
    given_up: list[Failure] = []
    records = {spec.key: run_in(store, spec.key) for spec in specs}
    stored = [record for record in records.values() if record is not None]
    # One seed of everything before the next seed, so that a part is a smaller comparison; of
    # each seed first what the others learn from.
    missing = sorted(
        (spec for spec in specs if records[spec.key] is None),
        key=lambda spec: (spec.seed, spec.teacher is not None),
    )
    workers = number_of_workers(workers, device, len(missing))
    if progress and missing:
        announce(missing, store, workers)
        warn(missing, root)
    shown = Progress(specs, stored, progress)

    def fail(spec: RunSpec, reason: str) -> None:
        given_up.append(Failure(spec, reason))
        shown.failed(spec, reason)

    with (
        shown,
        closing(run_all(missing, root, device, workers, shown.epoch, fail)) as runs,
    ):
        for record in runs:
            store.put(record)
            records[record["key"]] = record
            shown.done(record)
    if failures is not None:
        failures += given_up
    elif given_up:
        raise RunError("\n".join(map(str, given_up)))
    return [record for record in records.values() if record is not None]
