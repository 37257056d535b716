"""Inference over graphs that do not fit into one call."""

from bitgnn.nn.layerwise.inference import layerwise_inference

__all__ = ["layerwise_inference"]
