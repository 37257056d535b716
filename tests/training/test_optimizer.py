import pytest
import torch

from bitgnn.training import Recipe, build_model
from bitgnn.training.latent import latent_weights
from bitgnn.training.optimizer import build_optimizer, build_scheduler


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


@pytest.mark.parametrize("kinds", [("adam", "adamw"), ("adamw", "adam"), ("adamw", "adamw")])
def test_decay_of_latent_weights_is_of_its_own_kind(kinds):
    r"""Against one optimizer of torch for each of the two groups."""
    kind, latent_kind = kinds
    recipe = Recipe(optimizer=kind, latent_optimizer=latent_kind, lr=0.1, weight_decay=0.3,
                    latent_weight_decay=0.2)  # fmt: skip
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(build_model("gat", 16, 3, recipe, "b158"))
    latent = latent_weights(models[1])
    others = [p for p in models[1].parameters() if all(p is not weight for weight in latent)]
    classes = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizers = [
        [build_optimizer(models[0], recipe)],
        [
            classes[kind](others, lr=0.1, weight_decay=0.3),
            classes[latent_kind](latent, lr=0.1, weight_decay=0.2),
        ],
    ]
    for step in range(3):
        for model, group in zip(models, optimizers, strict=True):
            torch.manual_seed(step)
            for param in model.parameters():
                param.grad = torch.randn_like(param)
            for optimizer in group:
                optimizer.step()
    for mine, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("decay", "factors"),
    [
        (None, [1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.75, 0.5, 0.25]),
        ("cosine", [1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
    ],
)
def test_learning_rates_of_all_groups_fall(decay, factors):
    model = build_model("gat", 16, 3, Recipe(), "b158")
    recipe = Recipe(lr=0.1, latent_lr=0.3, epochs=4, lr_decay=decay)
    optimizer = build_optimizer(model, recipe)
    scheduler = build_scheduler(optimizer, recipe)
    for factor in factors:
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.1 * factor, 0.3 * factor])
        optimizer.step()
        scheduler.step()
