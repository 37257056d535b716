import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("bitgnn", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("bitgnn")


def _find_data() -> Path | None:
    """The folder of real data sets: $BITGNN_DATA, or `shared/data` beside the checkout."""
    places = [os.environ.get("BITGNN_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    return next((Path(p) for p in places if p and (Path(p) / "Planetoid").is_dir()), None)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets; skips the test where there is none."""
    root = _find_data()
    if root is None:
        pytest.skip("real data not found: set BITGNN_DATA to a folder with Planetoid/Cora/raw")
    return root


def pytest_report_header() -> str:
    return f"real data: {_find_data() or 'none (set BITGNN_DATA), its tests are skipped'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def by_threads():
    """Calls a function with one, two and three threads; returns what it gave."""

    def call(numbers):
        before, found = torch.get_num_threads(), []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(numbers())
        finally:
            torch.set_num_threads(before)
        return found

    return call


SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
tests = __import__(sys.argv[2])
torch.save(tests.numbers(), sys.argv[3])
from bitgnn.kernels import native
print(native.status())
"""


@pytest.fixture
def on_processor(tmp_path):
    """Calls `numbers` of a test file as if this were another processor; skips if it cannot be."""

    def call(isa, test_file):
        path, file = Path(test_file), tmp_path / "numbers.pt"
        found = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, path.parent, path.stem, file],
            env={**os.environ, "BITGNN_ISA": isa},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        if found != isa:
            pytest.skip(f"This processor has no {isa}")
        return torch.load(file)

    return call


@pytest.fixture
def speed_row():
    """What came of a race between a packed model and PyG's."""
    return {
        "model": "gcn 3 x 256", "graph": "arxiv", "ours_ms": 88.4,
        "fastest_path": "CSR, retained", "fastest_ms": 458.0, "vs_fastest": 5.2,
        "edge_index_ms": 2526.0, "vs_edge_index": 28.6, "fp32_fused_ms": 316.0,
        "vs_fp32_fused": 2.6, "peak_mib": 92.4, "leanest_peak_mib": 856.0,
        "edge_index_peak_mib": 5522.0, "prepare_ms": None,
        "heats": [
            {"path": "packed", "ms": 88.0, "mib": 92.4, "error": None},
            {"path": "compiled", "ms": None, "mib": None, "error": "no compiler"},
        ],
    }  # fmt: skip
