"""A command that is killed at random moments, started again, and in the end not killed."""

import json
import random
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitgnn.tensor_file import from_bytes
from tests.kill.commands import COMMANDS, STORE, begin, without_measured
from tests.kill.files import check_whole, temporary
from tests.kill.process import HOWS, Child, none_left

IN_A_ROW = 6


@dataclass
class Reference:
    r"""What commands come to that nobody kills, how long they take, and where they left it."""

    results: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)

    def add(self, name: str, folder: Path) -> None:
        """Runs a command, and what it needs."""
        needs = COMMANDS[name].needs
        for each in (needs, name):
            if each is None or each in self.results:
                continue
            place = folder / each
            begin(each, place, self.folders)
            started = time.monotonic()
            child = Child(COMMANDS[each].run, place)
            assert child.wait() and child.status == 0, (place / "output.txt").read_text()
            self.seconds[each] = time.monotonic() - started
            self.results[each] = COMMANDS[each].result(place)
            self.folders[each] = place


def run_chain(
    name: str, folder: Path, reference: Reference, chance: random.Random, kills: int
) -> Counter[tuple[str, str]]:
    r"""Kills a command at random moments, starts it again each time, and checks after each kill and
    at the end what it has left.

    Args:
        name (str): The command.
        folder (pathlib.Path): A folder, which is made.
        reference (Reference): What it comes to otherwise.
        chance (random.Random): Draws moments and ways.
        kills (int): How many kills at most; fewer if it ends before.

    Returns:
        How many kills there were, by command and way.
    """
    command = COMMANDS[name]
    begin(name, folder, reference.folders)
    counts: Counter[tuple[str, str]] = Counter()
    hows = [how for how, needs_workers in HOWS.items() if command.workers or not needs_workers]
    child = None
    while counts.total() < kills:
        how = chance.choice(hows)
        before = stored(folder)
        child = child or Child(command.run, folder)
        if child.wait(chance.uniform(0, 1.1 * reference.seconds[name])):
            break
        if not child.kill(how, chance):
            continue
        counts[name, how] += 1
        if how == "worker, SIGKILL":
            # The command goes on by itself. A run may lose two workers, and not three.
            assert child.wait() and child.status == 0, output(folder, how)
            break
        assert none_left(folder), f"a process is left: {how}"
        check_whole(folder)
        assert before.items() <= stored(folder).items(), f"a stored run has changed: {how}"
        child = None
    before, ended = stored(folder), checkpoints(folder)
    if child is None:
        child = Child(command.run, folder)
        child.wait()
    else:
        before = {}
    check_end(name, folder, reference, child, before, ended)
    return counts


def check_end(
    name: str,
    folder: Path,
    reference: Reference,
    child: Child,
    before: dict[str, Any],
    seconds: dict[str, float],
) -> None:
    assert child.wait() and child.status == 0, output(folder, name)
    assert none_left(folder), "a process is left after the end"
    check_whole(folder)
    assert not temporary(folder), f"{temporary(folder)} is left after the end"
    assert COMMANDS[name].result(folder) == reference.results[name], "the results differ"
    after = stored(folder)
    assert before.items() <= after.items(), "a stored run has changed"
    if (folder / STORE).exists():
        assert numbers(after) == numbers(stored(reference.folders[COMMANDS[name].needs or name]))
    if name == "compare" and before:
        said = f"{len(after) - len(before)} runs trained now, {len(before)} taken from the store"
        assert said in output(folder), f"{said!r} is not in the output"
    for key, spent in seconds.items():  # A run that begins anew would not have spent it.
        assert checkpoints(folder)[key] >= spent, "a run began anew"


def stored(folder: Path) -> dict[str, Any]:
    """The records of a store, as text."""
    path = folder / STORE
    if not path.exists():
        return {}
    try:
        database = sqlite3.connect(path)
        return dict(database.execute("SELECT key, record FROM runs").fetchall())
    except sqlite3.OperationalError as error:  # It was killed before it made the table.
        if "no such table" not in str(error):
            raise
        return {}
    finally:
        database.close()


def numbers(records: dict[str, str]) -> dict[str, Any]:
    return {key: without_measured(json.loads(text)) for key, text in records.items()}


def checkpoints(folder: Path) -> dict[str, float]:
    """The seconds that each run has taken, as its checkpoint says."""
    found = {}
    for path in folder.glob("runs/*.safetensors"):
        about = json.loads(from_bytes(path.read_bytes())[1]["bitgnn"])
        found[path.name] = about["seconds"]
    return found


def output(folder: Path, why: str = "") -> str:
    return f"{why}\n{(folder / 'output.txt').read_text()}"
