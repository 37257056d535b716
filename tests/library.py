"""Tests with another native library than the installed one: one that a sanitizer looks on."""

import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

NAME = "bitgnn.kernels._native"


def use(path: str) -> None:
    """Has the package, which must not be imported yet, use a native library.

    Args:
        path (str): The library.
    """
    assert "bitgnn" not in sys.modules
    spec = spec_from_file_location(NAME, path, loader=ExtensionFileLoader(NAME, path))
    assert spec is not None and spec.loader is not None
    sys.modules[NAME] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
