"""What is timed: a model on a graph."""

from dataclasses import dataclass
from typing import Any

import torch_geometric.nn as pyg
from torch import nn

from bitgnn.nn import BitGAT, BitGCN, BitGraphSAGE, BitMLP, BitSGC
from bitgnn.quant import QuantConfig

MODELS = {
    "gcn": (pyg.GCN, BitGCN),
    "sage": (pyg.GraphSAGE, BitGraphSAGE),
    "gat": (pyg.GAT, BitGAT),
    "sgc": (pyg.SGConv, BitSGC),
    "mlp": (pyg.MLP, BitMLP),
}


@dataclass(frozen=True)
class Case:
    r"""A model on a graph.

    Args:
        model (str): One of :obj:`MODELS`.
        graph (str): A data set or one of :obj:`bitgnn.experiment.speed.graphs.SHAPES`.
        layers (int, optional): The number of layers; of SGC, the hops. (default: :obj:`2`)
        hidden (int, optional): The hidden width. (default: :obj:`64`)
        heads (int, optional): The heads of GAT. (default: :obj:`1`)
        train (bool, optional): Whether a call is a training step on all nodes, instead of
            inference. (default: :obj:`False`)

    Raises:
        ValueError: If there is no such model.
    """

    model: str
    graph: str
    layers: int = 2
    hidden: int = 64
    heads: int = 1
    train: bool = False

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"Unknown model '{self.model}' (known: {', '.join(MODELS)})")

    @property
    def fresh(self) -> bool:
        """Whether each call gets a graph that was not seen before."""
        return self.graph == "request"

    @property
    def name(self) -> str:
        """How a table calls the model."""
        heads = f", {self.heads} head{'s' * (self.heads > 1)}" if self.model == "gat" else ""
        train = ", training step" if self.train else ""
        return f"{self.model} {self.layers} x {self.hidden}{heads}{train}"

    def build(self, ins: int, outs: int, quant: QuantConfig | None, twin: bool) -> nn.Module:
        r"""Returns the model, ready for what is timed, with random weights. Both sides cache what
        PyG can cache, unless each call gets another graph.

        Args:
            ins (int): The width of the features.
            outs (int): The number of classes.
            quant (QuantConfig, optional): How the twin is quantized; :obj:`None` for 32 bits.
            twin (bool): Whether it is bitgnn's model, or PyG's own.
        """
        make: Any = MODELS[self.model][twin]
        more: dict[str, Any] = {"quant": quant} if twin else {}
        if self.model in ("gcn", "sgc"):
            more["cached"] = not self.fresh
        if self.model == "sgc":
            return make(ins, outs, K=self.layers, **more).train(self.train)
        if self.model == "mlp":
            channels = [ins, *[self.hidden] * (self.layers - 1), outs]
            return make(channels, norm=None, dropout=0.0, **more).train(self.train)
        if self.model == "gat":
            more["heads"] = self.heads
        return make(ins, self.hidden, self.layers, outs, **more).train(self.train)
