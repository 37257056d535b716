"""Tests with another native library than the installed one, such as a sanitized one: its path is
in BITGNN_TEST_LIBRARY, and this module is imported before the package (pytest -p tests.library)."""

import os
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

NAME = "bitgnn.kernels._native"


def _use(path: str) -> None:
    assert "bitgnn" not in sys.modules, "The package has its library already"
    spec = spec_from_file_location(NAME, path, loader=ExtensionFileLoader(NAME, path))
    assert spec is not None and spec.loader is not None
    sys.modules[NAME] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


if path := os.environ.get("BITGNN_TEST_LIBRARY"):
    _use(path)
