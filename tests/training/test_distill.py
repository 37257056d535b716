import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.training import Recipe, Teacher, build_model
from bitgnn.training.distill import Objective, initialize
from bitgnn.training.latent import latent_weights


def reference_standardized(logits, standardize, least):
    if standardize is None:
        return logits
    rows = [row - row.mean() for row in logits]
    sizes = [float((row**2).mean()) for row in rows]
    if standardize == "graph":
        sizes = [sum(sizes) / len(sizes)] * len(rows)
    found = [row / max(size**0.5, least) for row, size in zip(rows, sizes, strict=True)]
    return torch.stack(found)


def reference_loss(out, y, train, teacher, weight, temperature, standardize=None):
    r"""The formula of :class:`Recipe`, node by node in double precision."""
    scored = zip(out[train].double(), y[train], strict=True)
    entropy = [-float(row.log_softmax(0)[c]) for row, c in scored]
    loss = sum(entropy) / len(entropy)
    pair = [
        reference_standardized(each.double(), standardize, least)
        for each, least in ((out, 1.0), (teacher, 1e-6))
    ]
    for mine, theirs in zip(*pair, strict=True):
        p, q = ((row / temperature).exp() for row in (theirs, mine))
        p, q = p / p.sum(), q / q.sum()
        loss += weight * temperature**2 * float((p * (p / q).log()).sum()) / len(out)
    return loss


@given(
    seed=st.integers(0, 99),
    num_nodes=st.integers(2, 9),
    classes=st.integers(1, 5),
    weight=st.sampled_from([0.25, 1.0, 20.0]),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
    standardize=st.sampled_from([None, "graph", "node"]),
    decay=st.sampled_from([None, "linear", "cosine"]),
    progress=st.sampled_from([0.0, 0.25, 0.995]),
)
def test_loss_is_the_formula(
    seed, num_nodes, classes, weight, temperature, standardize, decay, progress
):
    torch.manual_seed(seed)
    out, logits = 3 * torch.randn(2, num_nodes, classes)
    y, train = torch.randint(classes, (num_nodes,)), torch.arange(num_nodes) % 2 == 0
    recipe = Recipe(
        teacher="same", teacher_weight=weight, teacher_decay=decay, temperature=temperature,
        standardize=standardize,
    )  # fmt: skip
    loss = Objective(recipe, y, train, Teacher(logits, {}))(out, progress)
    left = {None: 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
    expected = reference_loss(out, y, train, logits, weight * left[decay], temperature, standardize)
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_student_like_its_teacher_has_nothing_more_to_learn():
    logits = torch.randn(6, 3, requires_grad=True)
    y, train = torch.arange(6) % 3, torch.arange(6) < 2
    plain = Objective(Recipe(), y, train)(logits)
    taught = Objective(Recipe(teacher="same"), y, train, Teacher(logits.detach(), {}))(logits)
    assert float(plain.detach()) == pytest.approx(float(taught.detach()))
    grads = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (plain, taught)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("standardize", ["graph", "node"])
def test_standardized_logits_have_no_scale(standardize):
    torch.manual_seed(0)
    logits, other = torch.randn(2, 6, 3)
    y, train = torch.arange(6) % 3, torch.arange(6) < 2
    recipe = Recipe(teacher="same", standardize=standardize)
    plain = Objective(Recipe(), y, train)

    def taught(out, teacher):
        return Objective(recipe, y, train, Teacher(teacher, {}))(out) - plain(out)

    assert float(taught(99 * logits + 5, logits)) == pytest.approx(0, abs=1e-5)
    first, second = taught(9 * other, logits), taught(99 * other, 0.1 * logits)
    assert float(first) == pytest.approx(float(second), rel=1e-4)
    assert float(taught(0.1 * logits, logits)) > 0.01  # Smaller than 1: to grow.


def test_over_the_graph_nodes_keep_how_sure_they_are():
    logits = torch.tensor([[4.0, 0.0], [0.5, 0.0]])
    y, train = torch.tensor([0, 0]), torch.tensor([True, False])
    other = torch.tensor([[9.0, 0.0], [9.0, 0.0]])  # The same order, but both as sure.
    found = {}
    for standardize in ("graph", "node"):
        recipe = Recipe(teacher="same", teacher_weight=100.0, standardize=standardize)
        found[standardize] = float(Objective(recipe, y, train, Teacher(logits, {}))(other))
    assert found["node"] == pytest.approx(float(Objective(Recipe(), y, train)(other)), abs=1e-4)
    assert found["graph"] > 1


@pytest.mark.parametrize("standardize", ["graph", "node"])
def test_logits_that_are_equal(standardize):
    out = torch.zeros(4, 3, requires_grad=True)
    recipe = Recipe(teacher="same", standardize=standardize)
    y, train = torch.tensor([0, 1, 2, 0]), torch.tensor([True, True, False, False])
    loss = Objective(recipe, y, train, Teacher(torch.zeros(4, 3), {}))(out)
    loss.backward()
    assert loss.isfinite() and out.grad.isfinite().all()


def test_nodes_outside_training_learn_from_the_teacher_alone():
    out = torch.zeros(4, 3, requires_grad=True)
    y, train = torch.tensor([0, 1, 2, 0]), torch.tensor([True, False, False, False])
    teacher = Teacher(torch.eye(4, 3), {})
    Objective(Recipe(), y, train)(out).backward()
    assert not out.grad[1:].any()
    Objective(Recipe(teacher="same"), y, train, teacher)(out).backward()
    assert out.grad[1:3].any(dim=1).all()
    # The last node: what the teacher says is uniform, and so is the student.
    assert out.grad[3].abs().max() < 1e-7


def test_a_teacher_of_weight_zero_is_not_in_the_loss():
    recipe = Recipe(teacher="same", teacher_weight=0.0, start="teacher")
    out, y, train = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.ones(4, dtype=torch.bool)
    nothing = torch.full((4, 3), torch.nan)
    assert torch.equal(
        Objective(recipe, y, train, Teacher(nothing, {}))(out), Objective(Recipe(), y, train)(out)
    )


@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "sgc", "mlp"])
def test_start_from_the_teacher(name):
    recipe = Recipe(teacher="same", start="teacher", hidden_channels=16, norm="batch_norm")
    model, student = (build_model(name, 8, 3, recipe, quant) for quant in (None, "b158"))
    teacher = Teacher(torch.zeros(5, 3), model.state_dict())
    initialize(student, recipe, teacher)
    for key, value in student.state_dict().items():
        assert torch.equal(value, teacher.state[key])
    parameters = {value.data_ptr() for value in model.state_dict().values()}
    assert not parameters & {value.data_ptr() for value in student.state_dict().values()}


@pytest.mark.parametrize("start", ["scratch", "teacher"])
def test_latent_gain(start):
    teaching = {"teacher": "same", "start": "teacher"} if start == "teacher" else {}
    recipe = Recipe(latent_gain=3.0, **teaching)
    model, teacher = (build_model("gat", 8, 3, recipe, quant) for quant in ("b158", None))
    source = teacher if start == "teacher" else model
    before = {name: value.clone() for name, value in source.state_dict().items()}
    initialize(model, recipe, Teacher(torch.zeros(5, 3), before) if teaching else None)
    latent = {id(weight) for weight in latent_weights(model)}
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name] * (3.0 if id(value) in latent else 1.0))


def test_nothing_is_done_to_a_model_that_is_asked_nothing():
    model = build_model("gcn", 8, 3, Recipe(), "b158")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialize(model, Recipe())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_recipe_and_teacher_must_agree():
    model, teacher = build_model("gcn", 8, 3, Recipe(), "b158"), Teacher(torch.zeros(5, 3), {})
    with pytest.raises(ValueError, match="teacher='gat', but none was given: pass `teacher=`"):
        initialize(model, Recipe(teacher="gat"))
    with pytest.raises(ValueError, match="teacher=None, but one was given"):
        initialize(model, Recipe(), teacher)


def test_parameters_that_do_not_fit():
    recipe = Recipe(teacher="same", start="teacher")
    model, other = build_model("gcn", 8, 3, recipe), build_model("gcn", 9, 3, recipe)
    with pytest.raises(ValueError, match=r"(?s)same parameters as the model: .*size mismatch"):
        initialize(model, recipe, Teacher(torch.zeros(5, 3), other.state_dict()))


def reference_labels(out, y, train, teacher, weight, temperature):
    r"""Binary cross-entropy and divergence, label by label in double precision."""
    known = [(i, j) for i, j in (y >= 0).nonzero().tolist() if train[i]]
    p = out.double().sigmoid()
    entropy = [-math.log(p[i, j] if y[i, j] == 1 else 1 - p[i, j]) for i, j in known]
    loss = sum(entropy) / max(len(entropy), 1)
    q, p = ((each.double() / temperature).sigmoid() for each in (out, teacher))
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return loss + weight * temperature**2 * float(divergence.mean())


@given(
    seed=st.integers(0, 99),
    num_nodes=st.integers(1, 9),
    labels=st.integers(1, 4),
    weight=st.sampled_from([0.25, 20.0]),
    temperature=st.sampled_from([0.5, 4.0]),
    standardize=st.sampled_from([None, "graph"]),
)
def test_several_labels_a_node(seed, num_nodes, labels, weight, temperature, standardize):
    torch.manual_seed(seed)
    out, logits = 3 * torch.randn(2, num_nodes, labels)
    y, train = torch.randint(-1, 2, (num_nodes, labels)), torch.arange(num_nodes) % 2 == 0
    recipe = Recipe(
        teacher="same", teacher_weight=weight, temperature=temperature, standardize=standardize
    )
    loss = Objective(recipe, y, train, Teacher(logits, {}))(out)
    expected = reference_labels(out, y, train, logits, weight, temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(seed=st.integers(0, 99), num_nodes=st.integers(2, 12))
def test_loss_of_a_batch_is_that_of_its_nodes(seed, num_nodes):
    torch.manual_seed(seed)
    out, logits = 3 * torch.randn(2, num_nodes, 3)
    y, train = torch.randint(3, (num_nodes,)), torch.rand(num_nodes) < 0.5
    nodes = torch.randperm(num_nodes)[: num_nodes // 2]
    recipe = Recipe(teacher="same", teacher_weight=2.0)
    found = Objective(recipe, y, train, Teacher(logits, {}))(out[nodes], 0.0, nodes)
    if train[nodes].any():
        alone = Objective(recipe, y[nodes], train[nodes], Teacher(logits[nodes], {}))(out[nodes])
        assert float(found) == pytest.approx(float(alone), rel=1e-5)
    else:  # Only the teacher has something to say.
        labels = Objective(Recipe(), y, train)(out[nodes], 0.0, nodes)
        assert float(labels) == 0.0
        assert float(found) > 0.0
