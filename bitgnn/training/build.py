from collections.abc import Callable
from typing import Any

from torch import nn
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.nn.resolver import activation_resolver

from bitgnn.kernels import Dropout
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

    What never changes over epochs that see the whole graph is computed once,
    on both sides alike: the normalized adjacency matrix of GCN and the
    propagated features of SGC.

    Args:
        name (str): :obj:`"gcn"`, :obj:`"sage"`, :obj:`"gat"`, :obj:`"sgc"` or
            :obj:`"mlp"`.
        in_channels (int): Number of input features.
        out_channels (int): Number of classes.
        recipe (Recipe): The hyper-parameters. Its :obj:`width` and
            :obj:`keep` are for the ternary side alone.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision. (default: :obj:`None`)

    Raises:
        ValueError: If no model has that name, or its only layer is to be kept.
    """
    width = 1 if quant is None else recipe.width
    recipe = recipe.replace(hidden_channels=width * recipe.hidden_channels)
    build = MODELS[check_model(name)]
    model = build(in_channels, out_channels, recipe, quant)
    if quant is not None and recipe.keep is not None:
        layers = _layers(model)
        if len(layers) < 2:
            raise ValueError(
                f"keep={recipe.keep!r} leaves nothing to quantize in {name!r}, which has one "
                f"layer: use keep=None, or a model of more layers"
            )
        index = 0 if recipe.keep == "first" else -1
        full = _layers(build(in_channels, out_channels, recipe, None))[index]
        full.load_state_dict(layers[index].state_dict())  # drawn as without `keep`
        layers[index] = full
    return model


def check_model(name: str) -> str:
    """Returns the name of a model; raises if there is no such model."""
    if name not in MODELS:
        raise ValueError(f"No model is called {name!r}; there are {', '.join(MODELS)}")
    return name


def _layers(model: nn.Module) -> nn.ModuleList:
    if isinstance(model, BitSGC):
        return nn.ModuleList([model.conv])
    layers: nn.ModuleList = model.lins if isinstance(model, BitMLP) else model.convs  # type: ignore[assignment]
    return layers


def _gcn(in_channels: int, out_channels: int, recipe: Recipe, quant: Quant) -> nn.Module:
    cached = recipe.batch is None
    return _gnn(BitGCN, in_channels, out_channels, recipe, cached=cached, quant=quant)


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
    model = kind(
        in_channels,
        recipe.hidden_channels,
        recipe.num_layers,
        out_channels,
        act=recipe.act,
        norm=recipe.norm,
        **kwargs,
    )
    model.dropout = Dropout(recipe.dropout)
    return model


def _sgc(in_channels: int, out_channels: int, recipe: Recipe, quant: Quant) -> nn.Module:
    # Features that are dropped anew in every epoch cannot be propagated once for all.
    cached = recipe.input_dropout == 0.0 and recipe.batch is None
    return BitSGC(in_channels, out_channels, K=recipe.K, cached=cached, quant=quant)


def _mlp(in_channels: int, out_channels: int, recipe: Recipe, quant: Quant) -> nn.Module:
    hidden = [recipe.hidden_channels] * (recipe.num_layers - 1)
    return BitMLP(
        [in_channels, *hidden, out_channels],
        act=nn.Sequential(activation_resolver(recipe.act), Dropout(recipe.dropout)),
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
