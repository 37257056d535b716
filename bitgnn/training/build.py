from collections.abc import Callable
from typing import Any

from torch import nn
from torch_geometric.nn.models.basic_gnn import BasicGNN

from bitgnn.nn import BitGAT, BitGCN, BitGraphSAGE, BitMLP, BitSGC
from bitgnn.quant import Quant
from bitgnn.training.recipe import Recipe


def build_model(
    name: str,
    in_channels: int,
    out_channels: int,
    recipe: Recipe,
    quant: Quant = None,
) -> nn.Module:
    r"""Builds a node-classification model as a recipe describes it.

    What never changes over full-batch epochs is computed once, on both sides
    alike: the normalized adjacency matrix of GCN and the propagated features
    of SGC.

    Args:
        name (str): :obj:`"gcn"`, :obj:`"sage"`, :obj:`"gat"`, :obj:`"sgc"` or
            :obj:`"mlp"`.
        in_channels (int): Number of input features.
        out_channels (int): Number of classes.
        recipe (Recipe): The hyper-parameters.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision. (default: :obj:`None`)

    Raises:
        ValueError: If no model has that name.
    """
    return MODELS[check_model(name)](in_channels, out_channels, recipe, quant)


def check_model(name: str) -> str:
    """Returns the name of a model; raises if there is no such model."""
    if name not in MODELS:
        raise ValueError(f"No model is called {name!r}; there are {', '.join(MODELS)}")
    return name


def _gcn(in_channels: int, out_channels: int, recipe: Recipe, quant: Quant) -> nn.Module:
    return _gnn(BitGCN, in_channels, out_channels, recipe, cached=True, quant=quant)


def _sage(in_channels: int, out_channels: int, recipe: Recipe, quant: Quant) -> nn.Module:
    return _gnn(BitGraphSAGE, in_channels, out_channels, recipe, quant=quant)


def _gat(in_channels: int, out_channels: int, recipe: Recipe, quant: Quant) -> nn.Module:
    model = _gnn(BitGAT, in_channels, out_channels, recipe, heads=recipe.heads, quant=quant)
    for conv in model.convs:
        conv.dropout = recipe.attention_dropout  # PyG's GAT ties it to `dropout`.
    return model


def _gnn(
    kind: type[BasicGNN], in_channels: int, out_channels: int, recipe: Recipe, **kwargs: Any
) -> BasicGNN:
    return kind(
        in_channels,
        recipe.hidden_channels,
        recipe.num_layers,
        out_channels,
        dropout=recipe.dropout,
        act=recipe.act,
        norm=recipe.norm,
        **kwargs,
    )


def _sgc(in_channels: int, out_channels: int, recipe: Recipe, quant: Quant) -> nn.Module:
    # Features that are dropped anew in every epoch cannot be propagated once for all.
    cached = recipe.input_dropout == 0.0
    return BitSGC(in_channels, out_channels, K=recipe.K, cached=cached, quant=quant)


def _mlp(in_channels: int, out_channels: int, recipe: Recipe, quant: Quant) -> nn.Module:
    hidden = [recipe.hidden_channels] * (recipe.num_layers - 1)
    return BitMLP(
        [in_channels, *hidden, out_channels],
        dropout=recipe.dropout,
        act=recipe.act,
        norm=recipe.norm,
        quant=quant,
    )


MODELS: dict[str, Callable[[int, int, Recipe, Quant], nn.Module]] = {
    "gcn": _gcn,
    "sage": _sage,
    "gat": _gat,
    "sgc": _sgc,
    "mlp": _mlp,
}
