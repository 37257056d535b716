"""A slice of `make fuzz`, the same files each time."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

COUNT = 2000


def test_mutated_files_run_or_are_refused():
    # In a process of its own: a file that ends it fails this test alone, and says its number.
    command = [sys.executable, "-m", "tests.fuzz.worker", "0", str(COUNT), "1"]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=600
    )
    found = dict.fromkeys(range(COUNT), "")
    for line in ended.stdout.splitlines():
        seed, _, outcome = line.partition(" ")
        found[int(seed)] = outcome
    counts = Counter(found.values())
    wrong = counts.keys() - {"ran", "refused when read", "refused when called"}
    assert ended.returncode == 0 and not wrong, (
        f"{counts}, first {[seed for seed in found if found[seed] in wrong][:5]}\n"
        f"{ended.stderr[-2000:]}"
    )
    # Neither are all files refused, nor do mutations change nothing.
    assert counts["ran"] > COUNT / 20 and counts["refused when read"] > COUNT / 3
