"""What pyproject.toml declares is what the package imports."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # It comes with pytest.

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normalized(re.match(r"[\w.-]+", each)[0]) for each in requirements}


def is_optional(node: ast.Try) -> bool:
    caught = {ast.unparse(handler.type) for handler in node.handlers if handler.type is not None}
    return bool(caught & {"ImportError", "ModuleNotFoundError"})


def imports(source: str) -> set[str]:
    """The top-level packages that a source file can't do without."""
    tree = ast.parse(source)
    optional = {
        id(node)
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try) and is_optional(attempt)
        for statement in attempt.body
        for node in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in optional:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).partition(".")[0])
    return found


def test_imports_are_found():
    source = """
import numpy.linalg, os
from torch import nn
from . import own
def f():
    import late
    try:
        import maybe
    except ImportError:
        import instead
"""
    assert imports(source) == {"numpy", "os", "torch", "late", "instead"}


def test_the_package_imports_what_it_declares():
    files = list((ROOT / "bitgnn").rglob("*.py"))
    assert files
    found = set().union(*(imports(path.read_text(encoding="utf-8")) for path in files))
    third_party = found - set(sys.stdlib_module_names) - {"bitgnn"}
    distributions = packages_distributions()
    imported = {normalized(distributions.get(each, [each])[0]) for each in third_party}
    extras = PROJECT["optional-dependencies"]
    declared = names(PROJECT["dependencies"])
    assert declared <= imported <= declared | names(extras["sampling"])


def test_every_dependency_has_a_lower_bound():
    for requirement in PROJECT["dependencies"]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), requirement
