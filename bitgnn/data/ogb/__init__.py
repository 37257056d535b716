r"""The node-property sets of the `Open Graph Benchmark <https://arxiv.org/abs/2005.00687>`_."""

from bitgnn.data.ogb.source import SETS, OGBSource

__all__ = ["SETS", "OGBSource"]
