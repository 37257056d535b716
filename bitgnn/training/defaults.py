from typing import Any

from bitgnn.data.registry import lookup
from bitgnn.training.build import check_model
from bitgnn.training.parts import recipe_changes
from bitgnn.training.recipe import Recipe

# Kipf & Welling, https://arxiv.org/abs/1609.02907, as in PyG's benchmark/citation/gcn.py: 2 layers,
# dropout 0.5, Adam with lr 0.01 and weight decay 5e-4, 200 epochs, row-normalized features. Hidden
# layers are 64 wide (16 there), as in Shchur et al., https://arxiv.org/abs/1811.05868, so that the
# models of a comparison have one width.
CITATION = Recipe()

MODELS: dict[str, dict[str, Any]] = {
    "gcn": {},
    # Shchur et al. train GraphSAGE (mean) like the other models.
    "sage": {},
    # Velickovic et al., https://arxiv.org/abs/1710.10903, as in PyG's examples/gat.py.
    "gat": {
        "heads": 8,
        "dropout": 0.6,
        "input_dropout": 0.6,
        "attention_dropout": 0.6,
        "act": "elu",
        "lr": 0.005,
    },
    # Wu et al., https://arxiv.org/abs/1902.07153, as in PyG's benchmark/citation/sgc.py.
    "sgc": {"K": 2, "lr": 0.1, "dropout": 0.0},
    # Kipf & Welling's MLP baseline: GCN's recipe without the graph.
    "mlp": {},
}

# Shchur et al., https://arxiv.org/abs/1811.05868, stop early on sets without a tuned protocol. Rows
# of length one, not of sum one: a sum over hundreds of words leaves each so small that 500 epochs
# are too few, for 32-bit models as for ternary ones (Computers).
GENERAL: dict[str, Any] = {"epochs": 500, "patience": 100, "feature_norm": "l2"}

FAMILIES: dict[str, dict[str, Any]] = {
    "Planetoid": {},
    # Dense features of any sign (word vectors, pixels) are not counts: their rows have no sum.
    "WikiCS": {**GENERAL, "feature_norm": "none"},
    "scikit-learn": {**GENERAL, "feature_norm": "none"},
    # Platonov et al., https://arxiv.org/abs/2302.11640: dropout 0.2, no weight decay. Lim et al.,
    # https://arxiv.org/abs/2110.14446, also train 500 epochs.
    "HeterophilousGraphDataset": {
        **GENERAL,
        "feature_norm": "none",
        "dropout": 0.2,
        "input_dropout": 0.0,
        "attention_dropout": 0.0,
        "weight_decay": 0.0,
    },
    "LINKXDataset": {**GENERAL, "feature_norm": "none", "weight_decay": 0.0},
}

# OGB's sets have recipes of their own: those of its examples (snap-stanford/ogb,
# examples/nodeproppred), which its leaderboard lists. Adam without weight decay, features as they
# are, and all epochs are trained.
LEADERBOARD = Recipe(
    hidden_channels=256, num_layers=3, K=3, heads=1, feature_norm="none", weight_decay=0.0
)

OGB: dict[str, dict[str, Any]] = {
    "ogbn-arxiv": {"epochs": 500, "norm": "batch_norm"},  # arxiv/gnn.py and mlp.py
    "ogbn-products": {"epochs": 300},  # products/gnn.py
    "ogbn-proteins": {"epochs": 1000, "dropout": 0.0},  # proteins/gnn.py
    "ogbn-mag": {"epochs": 100, "num_layers": 2},  # mag/gnn.py
    # OGB has no recipe for its models. PyG's examples/ogbn_train.py:
    "ogbn-papers100M": {
        "epochs": 50,
        "lr": 0.003,
        "batch": "neighbor",
        "batch_size": 1024,
        "num_neighbors": (10,),
    },
}

# OGB has no GAT either. PyG's examples/ogbn_train.py, but as many epochs as GCN: there they are of
# batches, and the learning rate falls when validation stands still.
_GAT: dict[str, Any] = {"dropout": 0.5, "lr": 0.003, "norm": None}

OGB_MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "ogbn-arxiv": {"gat": _GAT},
    "ogbn-products": {
        # PyG's examples/ogbn_products_gat.py, which has skip connections, too.
        "gat": {
            "hidden_channels": 512,
            "heads": 4,
            "act": "elu",
            "lr": 0.001,
            "epochs": 100,
            "batch": "neighbor",
            "batch_size": 512,
            "num_neighbors": (10, 10, 5),
        },
        "mlp": {"dropout": 0.0},  # products/mlp.py
    },
    "ogbn-proteins": {"gat": _GAT, "mlp": {"dropout": 0.5}},  # proteins/mlp.py
    "ogbn-mag": {
        "gat": _GAT,
        "mlp": {"epochs": 500, "num_layers": 3, "dropout": 0.0},  # mag/mlp.py
    },
    # papers100M/mlp.py; papers100M/sgc.py has three steps before it.
    "ogbn-papers100M": {
        "mlp": {
            "epochs": 30,
            "lr": 0.01,
            "dropout": 0.0,
            "norm": "batch_norm",
            "batch_size": 256,
        },
        "sgc": {"epochs": 30, "lr": 0.01},
    },
}

# arXiv 2411.05882: raw features, no dropout, AdamW with its default weight decay for all weights
# (latent ones too), 100 epochs, the last one counts.
PAPER = Recipe(
    hidden_channels=32,
    dropout=0.0,
    K=2,
    feature_norm="none",
    optimizer="adamw",
    lr=0.01,
    weight_decay=0.01,
    latent_weight_decay=None,
    epochs=100,
    select="last",
)


def recipe_for(model: str, dataset: str, name: str = "default") -> Recipe:
    r"""Returns the published hyper-parameters of a model on a data set, with what the parts of a
    recipe change.

    >>> recipe_for("gcn", "Cora", "continual+distill").teacher
    'same'

    Args:
        model (str): :obj:`"gcn"`, :obj:`"sage"`, :obj:`"gat"`, :obj:`"sgc"` or
            :obj:`"mlp"`.
        dataset (str): The name of the data set.
        name (str, optional): :obj:`"default"`; any of
            :obj:`bitgnn.training.parts.PARTS`, several joined by :obj:`"+"`;
            or :obj:`"paper"`, which stands alone, for the protocol of `arXiv
            2411.05882 <https://arxiv.org/abs/2411.05882>`_ (no selection, no
            dropout, raw features). (default: :obj:`"default"`)

    Raises:
        ValueError: If no model, data set or recipe has that name.
    """
    check_model(model)
    if name == "paper":
        return PAPER
    changes = recipe_changes(name)
    entry = lookup(dataset)
    if entry.family == "OGB":
        own = OGB_MODELS[entry.name].get(model, {})
        return LEADERBOARD.replace(**{**OGB[entry.name], **own, **changes})
    family = FAMILIES.get(entry.family, GENERAL)
    return CITATION.replace(**{**MODELS[model], **family, **changes})
