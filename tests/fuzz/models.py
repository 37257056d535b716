"""The packed models whose files are mutated, small ones of every layer, and their inputs."""

from functools import cache

import torch
from torch import nn
from torch_geometric.nn import HeteroConv, to_hetero

from bitgnn import QuantConfig, pack
from bitgnn.nn import (
    BitGAT,
    BitGATConv,
    BitGCN,
    BitGraphSAGE,
    BitLinear,
    BitMLP,
    BitSAGEConv,
    BitSGC,
)

WIDTH, SIZES = 6, {"a": 21, "b": 9}
RELATIONS = [("a", "to", "b"), ("b", "to", "a"), ("a", "own", "a")]


class Activations(nn.Module):
    """A linear layer before each activation function."""

    def __init__(self):
        super().__init__()
        self.lins = nn.ModuleList(BitLinear(WIDTH, WIDTH) for _ in range(9))
        self.acts = nn.ModuleList(
            [
                *(nn.ReLU(), nn.ELU(), nn.LeakyReLU(), nn.GELU(), nn.SiLU(), nn.Tanh()),
                *(nn.Sigmoid(), nn.Softmax(-1), nn.LogSoftmax(-1)),
            ]
        )

    def forward(self, x):
        for lin, act in zip(self.lins, self.acts, strict=True):
            x = act(lin(x))
        return x


class Shared(nn.Module):
    """A layer that is applied twice."""

    def __init__(self):
        super().__init__()
        self.lin, self.head = BitLinear(WIDTH, WIDTH), BitLinear(WIDTH, 3)

    def forward(self, x):
        return self.head(self.lin(torch.relu(self.lin(x))))


MODELS = {
    "gcn": lambda: BitGCN(WIDTH, 8, 2, 3, norm="batch_norm"),
    "gcn in 32 bits": lambda: BitGCN(WIDTH, 8, 2, 3, quant=None),
    "jumps": lambda: BitGCN(WIDTH, 8, 2, 3, jk="cat", norm="layer_norm", act="gelu"),
    "largest of jumps": lambda: BitGraphSAGE(WIDTH, 8, 2, 3, jk="max", aggr="max"),
    "sage": lambda: BitGraphSAGE(WIDTH, 8, 2, 3, act="elu"),
    "gat": lambda: BitGAT(WIDTH, 8, 2, 3, heads=4),
    "300 heads": lambda: BitGATConv(WIDTH, 2, heads=300),
    "mean of heads": lambda: BitGATConv(WIDTH, 20, heads=3, concat=False, residual=True),
    "sgc": lambda: BitSGC(WIDTH, 3, K=2),
    "mlp": lambda: BitMLP([WIDTH, 8, 8, 3], norm="batch_norm"),
    "4 bits": lambda: BitMLP([WIDTH, 8, 3], quant=QuantConfig(weight_bits=4, activation_bits=4)),
    "rescaled": lambda: BitMLP(
        [WIDTH, 8, 3],
        quant=QuantConfig(granularity="channel", layer_norm=True, rescale_bias=True),
    ),
    "wide": lambda: BitGCN(WIDTH, 90, 2, 70),
    "activations": Activations,
    "shared": Shared,
    "hetero": lambda: to_hetero(
        BitGraphSAGE((WIDTH, WIDTH), 8, 2, 3), (["a", "b"], RELATIONS), aggr="mean"
    ),
    "hetero convolutions": lambda: HeteroConv(
        {relation: BitSAGEConv((WIDTH, WIDTH), 3) for relation in RELATIONS}, aggr="sum"
    ),
}


@cache
def inputs():
    """Features and edges: of one type, and by type."""
    generator = torch.Generator().manual_seed(3)
    x = {kind: torch.randn(size, WIDTH, generator=generator) for kind, size in SIZES.items()}
    x["a"][:, 1:4] = 0  # A sparse matrix has few numbers.
    edges = {
        (source, name, target): torch.stack(
            [
                torch.randint(SIZES[source], (60,), generator=generator),
                torch.randint(SIZES[target], (60,), generator=generator),
            ]
        )
        for source, name, target in RELATIONS
    }
    return x, edges


@cache
def packed():
    """The packed models by name."""
    torch.manual_seed(3)
    found = {}
    for name, make in MODELS.items():
        model = make().eval()
        with torch.no_grad():
            if name.startswith("hetero"):
                model(*inputs())  # Sizes are known from then on.
            for parameter in model.parameters():
                parameter.normal_()
        found[name] = pack(model)
    return found
