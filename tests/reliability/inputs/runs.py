"""Bad inputs to runs: recipes, seeds, devices, roots, stores, checkpoints, outputs."""

import json
import sqlite3
from collections.abc import Callable
from itertools import count
from pathlib import Path

from bitgnn.data import task
from bitgnn.experiment import Store
from bitgnn.experiment.command import parse_seeds
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.run import check_device
from bitgnn.files import write_whole
from bitgnn.tensor_file import to_bytes
from bitgnn.training import Checkpoint, Recipe
from bitgnn.training.memory import check_memory
from bitgnn.training.text import TextRecipe
from tests.reliability.bad_input import BadInput, CommandError, command


def train(*words: object) -> Callable[[Path], None]:
    return lambda folder: command("train", "--dataset", "Digits", "--model", "mlp", *words)


def store(folder: Path, **changes: object) -> Path:
    """A store with one damaged record."""
    path = folder / "store.sqlite"
    Store(path).close()
    record = {"key": "0", **changes}
    db = sqlite3.connect(path)
    db.execute(
        "INSERT INTO runs VALUES ('0', 'Digits', 'random', 'mlp', 'fp32', 0, ?)",
        (json.dumps(record),),
    )
    db.commit()
    db.close()
    return path


def foreign(folder: Path) -> Path:
    """A database of another program."""
    path = folder / "photos.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE photos (name TEXT)")
    db.commit()
    db.close()
    return path


def checkpoint(folder: Path, content: bytes) -> None:
    path = folder / "run.safetensors"
    path.write_bytes(content)
    Checkpoint(path, "0" * 64, resume=True)._parse(content)


def report(path: Path) -> None:
    command("report", "--store", path, "--out", path.parent / "report")


def file_for_a_folder(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "result"


def loop(folder: Path) -> Path:
    path = folder / "loop"
    path.symlink_to(path.name)
    return path


def nested(folder: Path) -> Path:
    path = folder / "run.json"
    path.write_text("[" * 100_000)
    return path


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


CHECKPOINT = to_bytes({}, {"bitgnn": json.dumps({"format": 2})})

BAD_INPUTS = [
    BadInput("Recipe(hidden_channels=)", "99999999999",
             lambda folder: Recipe(hidden_channels=99999999999),
             ValueError, "must be at most 1,000,000 (got 99999999999)"),
    BadInput("Recipe(num_layers=)", "1e8 layers", lambda folder: Recipe(num_layers=10**8),
             ValueError, "must be at most 1,000 (got 100000000)"),
    BadInput("TextRecipe(hidden_channels=)", "99999999999",
             lambda folder: TextRecipe(hidden_channels=99999999999),
             ValueError, "must be at most 1,000,000 (got 99999999999)"),
    BadInput("Recipe(lr=)", "1e38, which overflows in Adam", lambda folder: Recipe(lr=1e38),
             ValueError, "must be at most 1e+30 (got 1e+38)"),
    BadInput("a training run", "a model larger than memory",
             lambda folder: check_memory("mlp", task("Digits"),
                                         Recipe(hidden_channels=10**6, num_layers=9), True),
             ValueError, "lower hidden_channels"),
    BadInput("bitgnn train --set", "hidden_channels=99999999999",
             train("--set", "hidden_channels=99999999999"),
             CommandError, "must be at most 1,000,000"),
    BadInput("bitgnn train --set", "lr=1e38", train("--set", "lr=1e38"),
             CommandError, "must be at most 1e+30"),
    BadInput("bitgnn train --device", "meta", train("--device", "meta"),
             CommandError, "use device 'cpu'"),
    BadInput("bitgnn train --root", "a folder that does not exist", train("--root", "/no/folder"),
             CommandError, "The root '/no/folder' is no folder"),
    BadInput("bitgnn train --json", "a file in what is no folder",
             lambda folder: train("--json", file_for_a_folder(folder))(folder),
             CommandError, "Cannot write 'file/result'"),
    BadInput("bitgnn train --json", "a device", train("--json", "/dev/null"),
             CommandError, "'/dev/null' is a device, and only regular files are written"),
    BadInput("bitgnn train --checkpoint", "a folder in what is no folder",
             lambda folder: train("--checkpoint", file_for_a_folder(folder))(folder),
             CommandError, "Cannot write"),
    BadInput("bitgnn train --seed", "2^70", train("--seed", 2**70),
             CommandError, "must be below 2^62"),
    BadInput("bitgnn compare --out", "a folder in what is no folder",
             lambda folder: command("compare", "--dataset", "Digits", "--model", "mlp",
                                    "--store", folder / "s", "--out", file_for_a_folder(folder)),
             CommandError, "Cannot write 'file/result'"),
    BadInput("bitgnn compare --store", "a file in what is no folder",
             lambda folder: command("compare", "--dataset", "Digits", "--model", "mlp",
                                    "--store", file_for_a_folder(folder)),
             CommandError, "Cannot use 'file/result' as result store"),
    BadInput("bitgnn compare --seeds", "1000000000",
             lambda folder: command("compare", "--dataset", "Digits", "--model", "mlp",
                                    "--seeds", 10**9, "--store", folder / "s"),
             CommandError, "'seeds' must be at most 100,000 seeds"),
    BadInput("compare(seeds=)", "a range without end",
             lambda folder: parse_seeds(count()), ValueError, "at most 100,000 seeds"),
    BadInput("compare()", "more than 100,000 runs",
             lambda folder: build_specs("Digits", ["mlp", "gcn"], 90_000, precision="fp32"),
             ValueError, "at most 100,000 runs"),
    BadInput("compare(device=)", "meta", lambda folder: check_device("meta"),
             ValueError, "Device 'meta' cannot be used here"),
    BadInput("task(root=)", "a folder that does not exist",
             lambda folder: task("Digits", root=folder / "lost"),
             ValueError, "The root 'lost' is no folder"),
    BadInput("bitgnn report --store", "no file",
             lambda folder: report(folder / "lost.sqlite"),
             CommandError, "There is no result store 'lost.sqlite'"),
    BadInput("bitgnn report --store", "a database of another program",
             lambda folder: report(foreign(folder)),
             CommandError, "'photos.sqlite' is a database of another program"),
    BadInput("bitgnn report --store", "a store with a record that lacks fields",
             lambda folder: report(store(folder)),
             CommandError, "'store.sqlite' holds a damaged record, '0' (it lacks 'spec')"),
    BadInput("bitgnn pack RUN", "the key of a record that lacks fields",
             lambda folder: command("pack", "0", "--store", store(folder, spec={}),
                                    "-o", folder / "m"),
             CommandError, "'store.sqlite' holds a damaged record, '0' (it lacks 'metric')"),
    BadInput("bitgnn pack RUN", "a file of lists in lists",
             lambda folder: command("pack", nested(folder), "-o", folder / "m"),
             CommandError, "'run.json' is no run (maximum recursion depth"),
    BadInput("bitgnn pack -o", "a pipe or a device",
             lambda folder: command("pack", "0", "-o", "/dev/null"),
             CommandError, "'/dev/null' is a device"),
    BadInput("bitgnn pack -o", "a symbolic link to itself",
             lambda folder: command("pack", "0", "-o", loop(folder)),
             CommandError, "Cannot write 'loop': a symbolic link leads back to itself; name"),
    BadInput("write_whole", "a folder in place of a file",
             lambda folder: write_whole(folder, b""), ValueError, "is a folder"),
    BadInput("Checkpoint(resume=True)", "a file with a flipped bit",
             lambda folder: checkpoint(folder, flipped(CHECKPOINT)),
             ValueError, "is damaged or no checkpoint of bitgnn"),
    BadInput("Checkpoint(resume=True)", "a file without fields",
             lambda folder: checkpoint(folder, CHECKPOINT),
             ValueError, "('key'): delete it to start over"),
]  # fmt: skip
