r"""Trained models, frozen: packed into few bytes, and run without the machinery of training."""

from bitgnn.packed.graph import PreparedGraph, prepare
from bitgnn.packed.model import PackedModel, load, pack

__all__ = ["PackedModel", "PreparedGraph", "load", "pack", "prepare"]
