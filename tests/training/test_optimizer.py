import torch

from bitgnn.training import Recipe, build_model
from bitgnn.training.latent import latent_weights
from bitgnn.training.optimizer import build_optimizer


def settings_of(optimizer):
    return {
        id(param): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for param in group["params"]
    }


def test_latent_weights_have_settings_of_their_own():
    model = build_model("gat", 16, 3, Recipe(), "b158")
    recipe = Recipe(lr=0.1, weight_decay=0.2, latent_lr=0.3, latent_weight_decay=0.4)
    settings = settings_of(build_optimizer(model, recipe))
    latent = {id(weight) for weight in latent_weights(model)}
    assert len(settings) == len(list(model.parameters()))
    for param in model.parameters():
        assert settings[id(param)] == ((0.3, 0.4) if id(param) in latent else (0.1, 0.2))


def test_latent_settings_follow_the_others_if_none():
    model = build_model("gcn", 16, 3, Recipe(), "b158")
    recipe = Recipe(lr=0.1, weight_decay=0.2, latent_weight_decay=None)
    assert set(settings_of(build_optimizer(model, recipe)).values()) == {(0.1, 0.2)}


def test_full_precision_knows_no_latent_settings():
    model = build_model("gcn", 16, 3, Recipe())
    recipe = Recipe(lr=0.1, weight_decay=0.2, latent_lr=0.3, latent_weight_decay=0.4)
    assert set(settings_of(build_optimizer(model, recipe)).values()) == {(0.1, 0.2)}


def test_kind_of_optimizer():
    model = build_model("mlp", 16, 3, Recipe())
    assert type(build_optimizer(model, Recipe())) is torch.optim.Adam
    assert type(build_optimizer(model, Recipe(optimizer="adamw"))) is torch.optim.AdamW
