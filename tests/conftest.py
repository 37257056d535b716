import os
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
