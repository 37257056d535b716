import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as Linux shows them")
def test_kills_lose_nothing():
    r"""A few of the kills of `make kill`, in a process of their own, since it forks."""
    line = "-m tests.kill --kills 4 --only train pack"
    found = subprocess.run(
        [sys.executable, *line.split()],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    print(found.stdout)  # With the seed, for a test that fails.
    assert found.returncode == 0, found.stderr
    assert "4 kills in" in found.stdout
