import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bitgnn.training import Recipe, memory
from bitgnn.training.memory import available_memory, check_memory, explained, needed_memory

WIDE = Recipe(hidden_channels=1000, num_layers=4)

# Small runs, one after the other in one process. Blocks of memory go back to the system when they
# are freed, as the large ones of a run that fills it do.
PEAKS = """
import json, sys
from pathlib import Path
import torch
from bitgnn.data import task
from bitgnn.training import Recipe
from bitgnn.training.build import build_model
from bitgnn.training.fit import fit

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

def run(name, quant, recipe):
    fit(build_model(name, t.num_features, t.num_classes, recipe, quant), t, t.split(0), recipe)

torch.set_num_threads(1)
t, peaks = task("Digits"), []
for name, quant, changes in json.loads(sys.argv[1]):
    run(name, quant, Recipe(epochs=2, hidden_channels=16))  # What is loaded at the first use.
    Path("/proc/self/clear_refs").write_text("5")  # The peak is the present from now on.
    before = status("VmRSS")
    run(name, quant, Recipe(epochs=2, **changes))
    peaks.append(status("VmHWM") - before)
print(json.dumps(peaks))
"""
WIDTHS = {"hidden_channels": 1200}
RUNS = [
    *((name, quant, WIDTHS) for name in ("gcn", "sage", "gat", "mlp") for quant in ("b158", None)),
    *(("mlp", quant, {"hidden_channels": 1000, "num_layers": 4}) for quant in ("b158", None)),
    ("gcn", None, {**WIDTHS, "norm": "batch_norm", "act": "elu", "dropout": 0.0}),
    ("gcn", None, {**WIDTHS, "dropout": 0.0}),
    ("gcn", None, {"hidden_channels": 800, "num_layers": 5, "dropout": 0.0}),
    ("gat", "b158", {**WIDTHS, "norm": "layer_norm"}),
]


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_the_estimate_is_near_the_peak():
    from bitgnn.data import task

    ended = subprocess.run(
        [sys.executable, "-c", PEAKS, json.dumps(RUNS)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    digits = task("Digits")
    for (name, quant, changes), peak in zip(RUNS, json.loads(ended.stdout), strict=True):
        needed = needed_memory(name, digits, Recipe(**changes), quant is not None)
        assert 0.7 * peak < needed < 1.3 * peak


@pytest.mark.parametrize(
    ("name", "recipe", "ternary"),
    [
        ("gcn", WIDE, True),
        ("gcn", WIDE.replace(width=2), True),
        ("gat", WIDE.replace(heads=2), True),
        ("mlp", WIDE.replace(batch="random"), False),
        ("mlp", WIDE.replace(num_layers=1), True),
    ],
)
def test_a_run_that_cannot_fit(name, recipe, ternary, tiny, monkeypatch):
    needed = needed_memory(name, tiny, recipe, ternary)
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    check_memory(name, tiny, recipe, ternary)
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.raises(ValueError, match=r"needs about .* GiB .* lower hidden_channels") as error:
        check_memory(name, tiny, recipe, ternary)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    check_memory(name, tiny, recipe, ternary)


def test_what_the_estimate_depends_on(tiny):
    def needed(name, ternary=True, **changes):
        return needed_memory(name, tiny, WIDE.replace(**changes), ternary)

    assert needed("gcn", width=2) == needed("gcn", hidden_channels=2000)
    assert needed("gcn", ternary=False, width=2) == needed("gcn", ternary=False)
    # hidden_channels is the width of all heads together.
    assert needed("gat", heads=2) < 1.1 * needed("gat", heads=1)
    assert needed("mlp", batch="random", num_layers=2) < needed("mlp", num_layers=2)
    assert needed_memory("sgc", tiny, WIDE, True) == 0


def test_a_million_channels_on_digits_are_refused(monkeypatch):
    from bitgnn.data import task

    monkeypatch.setattr(memory, "available_memory", lambda: 24 * 2**30)
    with pytest.raises(ValueError, match=r"hidden_channels=1000000 .* 24.0 GiB are available: low"):
        check_memory("gcn", task("Digits"), Recipe(hidden_channels=10**6, epochs=2), True)


def test_exhausted_memory_is_one_line():
    with (
        pytest.raises(
            ValueError, match=r"^Memory is exhausted \(DefaultCPUAll.*\): lower"
        ) as error,
        explained(),
    ):
        torch.empty(1 << 60)
    assert "\n" not in str(error.value)
    for raised in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory\nand more")):
        with pytest.raises(ValueError, match=r"^Memory is exhausted \(\w.*\): lower"), explained():
            raise raised


def test_other_errors_stay():
    with pytest.raises(RuntimeError, match="shape"), explained():
        raise RuntimeError("shape")


def test_available_memory():
    assert available_memory() > 1 << 28


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system that has 8,000 KiB left: writes a file of it."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    write("meminfo", "MemTotal:       24000 kB\nMemFree: 1000 kB\nMemAvailable:    8000 kB\n")
    write("own", "9:name=systemd:/\n4:memory:/a/b\n0::/a/b\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    return write


def test_what_is_available_is_less_than_what_there_is(system):
    assert available_memory() == 8000 * 1024
    system("meminfo", "MemTotal: 24000 kB\n")  # An old kernel says no more.
    assert available_memory() > 1 << 28


@pytest.mark.parametrize("place", ["a/b", "a", ""])
def test_control_groups_of_version_2(system, place):
    system(f"cgroup/{place}/memory.max", "5000000\n")
    system(f"cgroup/{place}/memory.current", "4000000\n")
    system(f"cgroup/{place}/memory.stat", "anon 1\ninactive_file 500000\n")
    assert available_memory() == 1_500_000
    system(f"cgroup/{place}/memory.max", "max\n")
    assert available_memory() == 8000 * 1024


@pytest.mark.parametrize("place", ["a/b", "a", ""])
def test_control_groups_of_version_1(system, place):
    system(f"cgroup/memory/{place}/memory.limit_in_bytes", "5000000\n")
    system(f"cgroup/memory/{place}/memory.usage_in_bytes", "4000000\n")
    system(f"cgroup/memory/{place}/memory.stat", "inactive_file 7\ntotal_inactive_file 500000\n")
    assert available_memory() == 1_500_000
    system(f"cgroup/memory/{place}/memory.usage_in_bytes", "6000000\n")
    assert available_memory() == 0
