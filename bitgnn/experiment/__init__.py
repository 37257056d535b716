r"""Comparisons: runs, their store, statistics, cost, reports."""

from bitgnn.experiment.compare import Comparison, compare
from bitgnn.experiment.cost import Cost, cost
from bitgnn.experiment.run import RunSpec, execute
from bitgnn.experiment.store import Store

__all__ = ["Comparison", "Cost", "RunSpec", "Store", "compare", "cost", "execute"]
