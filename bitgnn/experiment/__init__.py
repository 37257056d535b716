r"""Comparisons: runs, their store, statistics, cost, reports."""

from bitgnn.experiment.compare import Comparison, compare
from bitgnn.experiment.cost import Cost, cost
from bitgnn.experiment.exchange import export_records, import_records
from bitgnn.experiment.run import execute
from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.store import Store

__all__ = [
    "Comparison",
    "Cost",
    "RunSpec",
    "Store",
    "compare",
    "cost",
    "execute",
    "export_records",
    "import_records",
]
