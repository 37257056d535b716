"""The commands that are killed, each with a small amount of work, and what they leave."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitgnn.cli import main
from bitgnn.experiment import Store
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.complete import complete
from bitgnn.experiment.run import open_task
from bitgnn.experiment.tune import Range, tune
from bitgnn.files import write_whole
from bitgnn.tensor_file import from_bytes

STORE = "store.sqlite"
# What differs between two runs of the same configuration.
MEASURED = ("seconds", "teacher_seconds", "passport")


@dataclass(frozen=True)
class Command:
    r"""A command that is killed.

    Args:
        run (Callable): Runs it in the current folder.
        result (Callable): What it has found, from the folder; equal however often it was killed.
        needs (str, optional): The command whose finished folder it begins with.
        workers (bool, optional): Whether it has worker processes.
    """

    run: Callable[[], None]
    result: Callable[[Path], Any]
    needs: str | None = None
    workers: bool = False


def import_all() -> None:
    """Imports and opens what commands use, so that they need not after each kill: what is of
    interest comes afterwards."""
    import optuna  # noqa: F401

    import bitgnn.experiment.report  # noqa: F401

    open_task("Digits")


def run_compare() -> None:
    line = "compare --dataset Digits --model mlp --precision fp32 absmean --recipe distill"
    line += f" --seeds 2 --set epochs=30 --workers 2 --store {STORE} --out report --json rows.json"
    main(line.split())


def run_tune() -> None:
    def specs_of(settings: dict[str, Any]) -> list[Any]:
        return build_specs(
            "Digits", "mlp", 2, "scratch", "absmean", settings={"epochs": 10, **settings}
        )

    with Store(STORE) as store:
        found = tune(
            specs_of,
            {"lr": Range(1e-3, 0.3, log=True), "dropout": Range(0.0, 0.9)},
            lambda specs: complete(specs, store, workers=2, progress=False),
            num_trials=3,
        )
    write_whole("tuned.json", json.dumps(found.to_dict()).encode())


def run_train() -> None:
    line = "train --dataset Digits --model gcn --recipe distill --set epochs=40 --json run.json"
    main(f"{line} --checkpoint runs --every-epochs 2 --resume".split())


def run_pack() -> None:
    main("pack run.json -o model.safetensors".split())


def run_report() -> None:
    main(f"report --store {STORE} --out report --json rows.json".split())


def rows(folder: Path) -> Any:
    return json.loads((folder / "rows.json").read_text())


def run_record(folder: Path) -> Any:
    return without_measured(json.loads((folder / "run.json").read_text()))


def without_measured(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in MEASURED}


def packed(folder: Path) -> Any:
    tensors, metadata = from_bytes((folder / "model.safetensors").read_bytes())
    return {name: value.tolist() for name, value in tensors.items()}, metadata["program"]


def pages(folder: Path) -> Any:
    return {path.name: path.read_bytes() for path in (folder / "report").iterdir()}, rows(folder)


COMMANDS = {
    "compare": Command(run_compare, rows, workers=True),
    "tune": Command(
        run_tune, lambda folder: json.loads((folder / "tuned.json").read_text()), workers=True
    ),
    "train": Command(run_train, run_record),
    "pack": Command(run_pack, packed, needs="train"),
    "report": Command(run_report, pages, needs="compare"),
}


def begin(name: str, folder: Path, finished: dict[str, Path]) -> None:
    """Makes the folder in which a command begins."""
    folder.mkdir(parents=True)
    needs = COMMANDS[name].needs
    if needs == "train":
        shutil.copy(finished["train"] / "run.json", folder)
    elif needs == "compare":
        shutil.copy(finished["compare"] / STORE, folder)
