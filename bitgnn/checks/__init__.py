r"""Finds what costs a ternary model accuracy before it is trained."""

from bitgnn.checks.check import check
from bitgnn.checks.finding import Finding

__all__ = ["Finding", "check"]
