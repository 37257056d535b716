from collections.abc import Sequence
from statistics import fmean

from rich.console import Console
from rich.text import Text

from bitgnn.experiment.progress import duration
from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.store import Store


def announce(
    specs: Sequence[RunSpec], store: Store, workers: int, console: Console | None = None
) -> None:
    r"""Says in one line how many runs there are to train and how long that will take.

    Args:
        specs (list[RunSpec]): The runs.
        store (Store): Where earlier runs are, from whose time that of the others is estimated.
        workers (int): The number of processes.
        console (rich.console.Console, optional): Where to. (default: standard error)
    """
    seconds = estimate_seconds(specs, store)
    time = (
        "how long that takes is known after the first of them"
        if seconds is None
        else f"about {duration(seconds / workers)} from the time of earlier runs"
    )
    processes = "1 process" if workers == 1 else f"{workers} processes"
    runs = "1 run" if len(specs) == 1 else f"{len(specs)} runs"
    line = f"{runs} to train on {processes}: {time}"
    (console or Console(stderr=True)).print(Text(line), soft_wrap=True)


def estimate_seconds(specs: Sequence[RunSpec], store: Store) -> float | None:
    r"""Returns the time of all runs one after the other, as stored runs of the same data set and
    model took it; :obj:`None` if there are no such runs of one of them.

    Args:
        specs (list[RunSpec]): The runs.
        store (Store): Where earlier runs are.
    """
    known = {
        cell: store.mean_seconds(*cell) for cell in {(spec.dataset, spec.model) for spec in specs}
    }
    if not all(known.values()):
        return None
    times = [(known[spec.dataset, spec.model], spec.precision) for spec in specs]
    return sum(by.get(precision, fmean(by.values())) for by, precision in times)
