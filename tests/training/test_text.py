import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bitgnn import QuantConfig
from bitgnn.data.text import TextTask, text_task
from bitgnn.training.distill import Teacher
from bitgnn.training.text import TextRecipe, build_text_model, classify, fit_text

FAST = TextRecipe(hidden_channels=32, lr=0.05, steps=40, batch_size=16)
TOPICS = ("ball goal team match", "vote law party state", "cell gene drug virus")


def make_task(num_documents=120, split_kind="held-out"):
    r"""Documents of three topics, each a few of its topic's words among words of no topic."""
    generator = torch.Generator().manual_seed(0)

    def draw(words, count):
        return [words[i] for i in torch.randint(len(words), (count,), generator=generator)]

    noise = [f"word{i}" for i in range(20)]
    documents = [
        " ".join(draw(TOPICS[i % 3].split(), 3) + draw(noise, 5)) for i in range(num_documents)
    ]
    y = torch.arange(num_documents) % 3
    trains = torch.arange(num_documents) < 2 * num_documents // 3
    return TextTask(
        "Tiny", tuple(documents), y, ("ball", "law", "cell"), trains, split_kind, "0", Path(".")
    )


@pytest.fixture(scope="module")
def tiny():
    return make_task()


def run(t, recipe=FAST, quant=None, ternary="all", seed=0, **kwargs):
    split = t.split(seed)
    x = t.features(split)
    torch.manual_seed(seed)
    model = build_text_model(x.size(1), t.num_classes, recipe, quant, ternary)
    return model, fit_text(model, t, split, x, recipe, seed, **kwargs)


@pytest.mark.parametrize(
    ("quant", "ternary"),
    [(None, "all"), ("b158", "output"), ("b158", "all")],
)
@pytest.mark.parametrize("measure", ["absmean", "absmedian"])
def test_every_side_learns(tiny, quant, ternary, measure):
    quant = quant and QuantConfig.preset(quant, weight_measure=measure)
    _, result = run(tiny, FAST, quant, ternary)
    assert result.test > 90.0  # Chance is 33.
    assert result.val > 70.0
    assert not result.diverged
    assert result.losses[-1] < 0.7 * result.losses[0]


def test_result_is_that_of_the_last_step(tiny):
    model, result = run(tiny, quant="b158")
    split = tiny.split(0)
    logits = classify(model, tiny.features(split))
    assert torch.equal(logits, result.logits) and not logits.requires_grad
    assert result.test == tiny.evaluate(logits, split.test)
    assert result.val == tiny.evaluate(logits, split.val)
    assert len(result.losses) == FAST.steps


def test_published_split_has_no_validation(tiny):
    _, result = run(make_task(split_kind="published"))
    assert math.isnan(result.val) and not result.diverged and result.test > 90.0


@pytest.mark.parametrize("quant", [None, "b158"])
def test_same_seed_gives_same_numbers(tiny, quant):
    first, second, other = (run(tiny, quant=quant, seed=seed) for seed in (0, 0, 1))
    assert first[1].losses == second[1].losses != other[1].losses
    for value, same in zip(first[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(value, same)


def test_test_and_validation_documents_have_no_part_in_training(tiny):
    other = make_task()
    held = ~other.split(0).train
    other.y[held] = (other.y[held] + 1) % 3
    assert run(tiny)[1].losses == run(other)[1].losses


def test_every_document_comes_once_a_pass(tiny):
    seen = []
    split = tiny.split(0)
    x = tiny.features(split)
    model = build_text_model(x.size(1), 3, FAST)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].to_dense()))
    fit_text(model, tiny, split, x, FAST.replace(steps=10))
    train = x.to_dense()[split.train]
    sizes = [len(batch) for batch in seen[:10]]
    assert len(train) == 72 and sizes == 2 * [16, 16, 16, 16, 8]

    def total(rows):
        return torch.cat(rows).sum(dim=0)

    torch.testing.assert_close(total(seen[:5]), train.sum(dim=0))
    torch.testing.assert_close(total(seen[5:10]), train.sum(dim=0))
    assert not torch.equal(seen[0], seen[5])


def test_steps_are_those_of_adamw_with_linear_decay(tiny):
    recipe = FAST.replace(steps=3, embedding_dropout=0.0, dropout=0.0, batch_size=1000)
    split = tiny.split(0)
    x, train = tiny.features(split), split.train
    torch.manual_seed(0)
    models = [build_text_model(x.size(1), 3, recipe, "b158", "output") for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    result = fit_text(models[0], tiny, split, x, recipe)

    model, losses = models[1].train(), []
    groups = [
        {"params": [model.lin.weight], "weight_decay": 0.0},
        {"params": [model.embedding.weight, model.lin.bias], "weight_decay": 0.01},
    ]
    optimizer = torch.optim.AdamW(groups, foreach=False)
    for factor in (1, 2 / 3, 1 / 3):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        loss = F.cross_entropy(model(x.to_dense()[train]), tiny.y[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert result.losses == pytest.approx(losses, rel=1e-4)
    # Adam makes a step of rounding errors where a gradient is nearly 0.
    embeddings = [each.embedding.weight for each in models]
    torch.testing.assert_close(*embeddings, rtol=0.0, atol=0.05 * recipe.lr)


def test_loss_of_a_taught_model(tiny):
    recipe = FAST.replace(
        steps=1, dropout=0.0, embedding_dropout=0.0, batch_size=1000, teacher_weight=3.0,
        temperature=2.0,
    )  # fmt: skip
    split = tiny.split(0)
    x, train = tiny.features(split), split.train
    model = build_text_model(x.size(1), 3, recipe, "b158")
    soft = torch.randn(tiny.num_documents, 3, generator=torch.Generator().manual_seed(1))
    out = classify(model, x)
    p, q = (torch.softmax(each[train].double() / 2.0, dim=1) for each in (soft, out))
    divergence = (p * (p / q).log()).sum(dim=1).mean()
    expected = F.cross_entropy(out[train], tiny.y[train]) + 3.0 * 4.0 * divergence
    result = fit_text(model, tiny, split, x, recipe, teacher=Teacher(soft, {}))
    assert result.losses[0] == pytest.approx(float(expected), rel=1e-4)


def test_start_from_the_teacher(tiny):
    teacher_model, finished = run(tiny)
    teacher = Teacher(finished.logits, teacher_model.state_dict())
    before = {name: value.clone() for name, value in teacher.state.items()}
    recipe = FAST.replace(start="teacher", steps=1, lr=1e-9)
    model, _ = run(tiny, recipe, teacher=teacher)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])
    _, result = run(tiny, recipe.replace(lr=0.01, steps=40), "b158", teacher=teacher)
    assert result.test > 90.0
    for name, value in teacher.state.items():  # Trained is a copy.
        assert torch.equal(value, before[name])
    with pytest.raises(ValueError, match="same parameters as the model"):
        run(tiny, recipe.replace(hidden_channels=8), teacher=teacher)


def test_teacher_just_where_it_is_needed(tiny):
    teacher = Teacher(torch.zeros(tiny.num_documents, 3), {})
    with pytest.raises(ValueError, match=r"teacher_weight=1.0.* none was given"):
        run(tiny, FAST.replace(teacher_weight=1.0))
    with pytest.raises(ValueError, match=r"start='teacher', but none was given"):
        run(tiny, FAST.replace(start="teacher"))
    with pytest.raises(ValueError, match=r"teacher_weight=0.0 .* one was given"):
        run(tiny, FAST, teacher=teacher)


def test_divergence_ends_the_run(tiny):
    steps = []
    _, result = run(
        tiny, FAST.replace(lr=1e30), on_step=lambda step, loss: steps.append((step, loss))
    )
    assert result.diverged and len(result.losses) < FAST.steps
    assert [step for step, _ in steps] == list(range(1, len(result.losses) + 1))
    assert math.isnan(result.test)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("steps", 0, r"'steps' must be at least 1 \(got 0\)"),
        ("batch_size", 2.5, r"'batch_size' must be an integer \(got 2.5\)"),
        ("hidden_channels", True, "'hidden_channels' must be an integer"),
        ("dropout", 1.0, r"'dropout' must be in \[0, 1\)"),
        ("embedding_dropout", -0.1, r"'embedding_dropout' must be in \[0, 1\)"),
        ("lr", 0, r"'lr' must be above 0"),
        ("lr", float("inf"), r"'lr' must be above 0 \(got inf\)"),
        ("lr", "fast", r"'lr' must be a number \(got 'fast'\)"),
        ("temperature", 0.0, "'temperature' must be above 0"),
        ("weight_decay", -1, "'weight_decay' must be at least 0"),
        ("teacher_weight", -1, "'teacher_weight' must be at least 0"),
        ("start", "pretrained", "'start' must be 'scratch' or 'teacher'"),
    ],
)
def test_recipe_is_checked(field, value, error):
    with pytest.raises((TypeError, ValueError), match=error):
        TextRecipe(**{field: value})


def test_equal_recipes_are_equal():
    assert TextRecipe(lr=1).to_dict() == TextRecipe(lr=1.0).to_dict()
    assert str(TextRecipe(lr=1).to_dict()["lr"]) == "1.0"


def test_real_corpus(data_root):
    if not (data_root / "text_gcn").is_dir():
        pytest.skip(f"the corpora of TextGCN not found: put them into '{data_root / 'text_gcn'}'")
    t = text_task("R8", data_root)
    recipe = TextRecipe(hidden_channels=64, lr=0.05, steps=150)
    (_, full), (_, ternary) = (run(t, recipe, quant) for quant in (None, "b158"))
    assert full.test > 94.0 and ternary.test > 93.0  # The largest class is half of it.
