from inspect import signature

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from bitgnn.training.decay import decayed
from bitgnn.training.latent import split_parameters
from bitgnn.training.recipe import Recipe

OPTIMIZERS: dict[str, type[optim.Adam]] = {"adam": optim.Adam, "adamw": optim.AdamW}


def build_optimizer(model: nn.Module, recipe: Recipe) -> optim.Optimizer:
    r"""Builds the optimizer of a recipe, with latent weights in a group of their own.

    Args:
        model (torch.nn.Module): The model.
        recipe (Recipe): The hyper-parameters.
    """
    latent, others = split_parameters(model)
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
                **_kind_of_decay(recipe),
            }
        )
    return OPTIMIZERS[recipe.optimizer]([group for group in groups if group["params"]])


def build_scheduler(optimizer: optim.Optimizer, recipe: Recipe) -> LambdaLR:
    r"""Builds what lowers the learning rates of all groups after each epoch.

    Args:
        optimizer (torch.optim.Optimizer): The optimizer.
        recipe (Recipe): The hyper-parameters.
    """

    def factor(epoch: int) -> float:
        return decayed(recipe.lr_decay, min(epoch / recipe.epochs, 1.0))

    return LambdaLR(optimizer, factor)


def _kind_of_decay(recipe: Recipe) -> dict[str, object]:
    if recipe.latent_optimizer in (None, recipe.optimizer):
        return {}
    # Since torch 2.7 AdamW is Adam with a switch that each group has for itself.
    if "decoupled_weight_decay" not in signature(optim.Adam).parameters:
        raise ValueError(
            f"latent_optimizer={recipe.latent_optimizer!r} beside optimizer={recipe.optimizer!r} "
            f"needs torch 2.7 or newer (this is {torch.__version__}): use one for both"
        )
    return {"decoupled_weight_decay": recipe.latent_optimizer == "adamw"}
