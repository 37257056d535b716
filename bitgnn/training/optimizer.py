from torch import nn, optim

from bitgnn.training.latent import latent_weights
from bitgnn.training.recipe import Recipe

OPTIMIZERS: dict[str, type[optim.Adam]] = {"adam": optim.Adam, "adamw": optim.AdamW}


def build_optimizer(model: nn.Module, recipe: Recipe) -> optim.Optimizer:
    r"""Builds the optimizer of a recipe, with latent weights in a group of their own.

    Args:
        model (torch.nn.Module): The model.
        recipe (Recipe): The hyper-parameters.
    """
    latent = latent_weights(model)
    quantized = {id(weight) for weight in latent}
    others = [param for param in model.parameters() if id(param) not in quantized]
    groups: list[dict[str, object]] = [
        {"params": others, "lr": recipe.lr, "weight_decay": recipe.weight_decay},
    ]
    if latent:
        lr, decay = recipe.latent_lr, recipe.latent_weight_decay
        groups.append(
            {
                "params": latent,
                "lr": recipe.lr if lr is None else lr,
                "weight_decay": recipe.weight_decay if decay is None else decay,
            }
        )
    return OPTIMIZERS[recipe.optimizer]([group for group in groups if group["params"]])
