r"""Kills compare, tune, train, pack and report at random moments, and checks what comes of it.

python -m tests.kill --kills 200
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # Before PyTorch is imported, which is then forked.

from tests.kill.chain import IN_A_ROW, Reference, run_chain
from tests.kill.commands import COMMANDS, import_all

# Those that do more are killed more often.
WEIGHTS = {"compare": 2, "tune": 1, "train": 3, "pack": 2, "report": 2}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many, of all commands together")
    parser.add_argument("--seed", type=int, help="of ways and moments (default: the time)")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    seed = time.time_ns() % 10**9 if options.seed is None else options.seed
    print(f"{options.kills} kills, --seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="bitgnn-kill-")).resolve()
    import_all()
    reference, counts = Reference(), Counter[tuple[str, str]]()
    number = 0
    while counts.total() < options.kills:
        # The command that is furthest behind its share.
        name = min(options.only, key=lambda name: _of(counts, name) / WEIGHTS[name])
        reference.add(name, folder / "reference")
        number += 1
        place = folder / f"{number}-{name}"
        kills = min(IN_A_ROW, options.kills - counts.total())
        try:
            counts += run_chain(name, place, reference, random.Random(f"{seed} {number}"), kills)
        except BaseException:
            print(f"Failed: --seed {seed}, number {number}, in {place}", flush=True)
            raise
        shutil.rmtree(place)
        if number % 10 == 0:
            _print(counts)
    shutil.rmtree(folder)
    _print(counts)
    print(f"{counts.total()} kills in {number} sequences; all results equal those of no kill")


def _print(counts: Counter[tuple[str, str]]) -> None:
    for (name, how), count in sorted(counts.items()):
        print(f"{name:8} {how:36} {count:4}")
    print(f"{'all':45} {counts.total():4}", flush=True)


def _of(counts: Counter[tuple[str, str]], name: str) -> int:
    return sum(count for (each, _), count in counts.items() if each == name)


if __name__ == "__main__":
    sys.exit(main())
