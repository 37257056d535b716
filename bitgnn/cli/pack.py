import json
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from bitgnn.cli import options
from bitgnn.experiment import Store
from bitgnn.experiment.format import memory
from bitgnn.experiment.progress import Progress
from bitgnn.experiment.record import check_record, runs_in
from bitgnn.experiment.run import train_run
from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.store import default_path
from bitgnn.files import check_writable
from bitgnn.packed.runs import pack_run

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="What `bitgnn train --json FILE` wrote; or the key of a run in the store, or how it "
        "begins.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The packed model.")]


def pack(
    run: Run,
    output: Output = Path("model.safetensors"),
    store: options.StoreFile = None,
    root: options.Root = None,
) -> None:
    """Train a finished run once more, to the same numbers, and pack its model into a file.

    \b
    Examples:
      bitgnn pack run.json -o cora-gcn.safetensors   (of `bitgnn train ... --json run.json`)
      bitgnn pack 3f2a9c --store results.sqlite
    """
    check_writable(output)
    record = find_run(run, store)
    spec = RunSpec(**record["spec"])
    with Progress([spec]) as progress:
        model, again = train_run(
            spec, root, on_epoch=lambda epoch, val: progress.epoch(spec, epoch, val)
        )
    if again["diverged"]:
        raise ValueError(f"Run '{spec.key[:12]}' diverged: there is no model to pack")
    packed = pack_run(model, again)
    packed.save(output)
    if again["test"] != record["test"]:
        print(
            f"Test {record['test']:.2f} % as recorded, {again['test']:.2f} % here: other hardware "
            "or versions add in another order"
        )
    size, full = output.stat().st_size, 4 * _count(model)
    print(f"{output}: {memory(size)}, in 32 bits {memory(full)} ({full / size:.1f} times)")
    if packed.in_32_bits:
        print(f"In 32 bits: {', '.join(packed.in_32_bits)}")


def find_run(run: str, store: Path | None) -> dict[str, Any]:
    """Finds the record that is meant by a file or the beginning of a key.

    Args:
        run (str): The file, or the beginning.
        store (Path, optional): The result store.
    """
    if Path(run).is_file():
        try:
            record = json.loads(Path(run).read_text(encoding="utf-8"))
            check_record(record)
            RunSpec(**record["spec"])
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"'{run}' is no run ({error}): pass what `bitgnn train --json` writes, or a key"
            ) from None
        return dict(record)
    where = Path(store or default_path())
    if not where.is_file():
        raise ValueError(
            f"There is no file '{run}', and no result store '{where}' to look for a run in: "
            "`bitgnn train --json FILE` writes one"
        )
    with Store(where, readonly=True) as opened:
        found = [each for each in runs_in(opened) if each["key"].startswith(run)]
    if len(found) != 1:
        how_many = f"{len(found)} runs" if found else "No run"
        raise ValueError(
            f"{how_many} in '{where}' with a key that begins with '{run}': `bitgnn compare "
            "--json` lists keys, and `bitgnn train --json` writes a run that can be packed"
        )
    return found[0]


def _count(model: nn.Module) -> int:
    return sum(value.numel() for value in model.state_dict().values())
