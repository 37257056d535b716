import copy

import pytest
import torch
from torch_geometric import typing as pyg

from bitgnn.training import Recipe, Teacher, build_model, fit
from bitgnn.training.batches import Parts, Rows, WholeGraph, build_batches
from bitgnn.training.distributed import Group
from bitgnn.training.inputs import model_inputs

FAST = Recipe(hidden_channels=16, epochs=20, dropout=0.2, lr=0.02)
needs_sparse = pytest.mark.skipif(not pyg.WITH_TORCH_SPARSE, reason="needs torch-sparse")
SAMPLED = [
    pytest.param({"batch": "random", "num_parts": 3}, id="random"),
    pytest.param(
        {"batch": "neighbor", "batch_size": 8, "num_neighbors": (3,)},
        id="neighbor",
        marks=needs_sparse,
    ),
    pytest.param({"batch": "saint", "batch_size": 8}, id="saint", marks=needs_sparse),
]


def batches_of(t, recipe, name="sage", **kwargs):
    model = build_model(name, t.num_features, t.num_classes, recipe, "b158")
    return model, build_batches(model, t, t.split(0), recipe, **kwargs)


@pytest.mark.parametrize("quant", [None, "b158"])
@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "sgc", "mlp"])
@pytest.mark.parametrize("changes", SAMPLED)
def test_every_model_learns_in_batches(name, quant, changes, tiny):
    recipe = FAST.replace(dropout=0.0, epochs=40, **changes)
    torch.manual_seed(0)
    model = build_model(name, tiny.num_features, tiny.num_classes, recipe, quant)
    result = fit(model, tiny, tiny.split(0), recipe)
    assert result.val > 70.0  # Chance is 33.
    out = model.eval()(*model_inputs(model, tiny, recipe))
    assert tiny.evaluate(out, tiny.split(0).test) == pytest.approx(result.test)


def test_whole_graph(tiny):
    _, batches = batches_of(tiny, FAST)
    assert isinstance(batches, WholeGraph)
    (first,), (second,) = batches.epoch(1), batches.epoch(2)
    assert first.nodes is None
    assert first.x is second.x  # Layers compute what never changes only once.


def test_random_parts_are_a_partition(tiny):
    _, batches = batches_of(tiny, FAST.replace(batch="random", num_parts=4))
    nodes = [torch.cat([batch.nodes for batch in batches.epoch(number)]) for number in (1, 2, 1)]
    assert all(each.sort().values.equal(torch.arange(60)) for each in nodes)
    assert nodes[0].equal(nodes[2])
    assert not nodes[0].equal(nodes[1])


def test_a_part_has_the_edges_among_its_nodes(tiny):
    _, batches = batches_of(tiny, FAST.replace(batch="random", num_parts=2))
    edges = set(map(tuple, tiny.data.edge_index.t().tolist()))
    for batch in batches.epoch(1):
        nodes = batch.nodes.tolist()
        dense = batch.graph[0].to_dense()  # rows are targets
        found = {(nodes[j], nodes[i]) for i, j in dense.nonzero().tolist()}
        assert found == {(i, j) for i, j in edges if i in nodes and j in nodes}


@needs_sparse
@pytest.mark.parametrize("quant", [None, "b158"])
@pytest.mark.parametrize("name", ["sage", "gat"])
def test_outputs_do_not_depend_on_the_batch(name, quant, tiny):
    r"""With all neighbors a node's output is that of the whole graph: row scales are per node."""
    recipe = FAST.replace(batch="neighbor", batch_size=7, num_neighbors=(-1,))
    model = build_model(name, tiny.num_features, tiny.num_classes, recipe, quant).eval()
    expected = model(*model_inputs(model, tiny, recipe))
    seen = 0
    for batch in build_batches(model, tiny, tiny.split(0), recipe).epoch(1):
        out = batch.outputs(model(batch.x, *batch.graph))
        torch.testing.assert_close(out, expected[batch.nodes], atol=1e-5, rtol=1e-5)
        seen += batch.nodes.numel()
    assert seen == int(tiny.split(0).train.sum())


@pytest.mark.parametrize("changes", SAMPLED[1:2])
def test_without_a_teacher_only_training_nodes_are_visited(changes, tiny):
    recipe = FAST.replace(**changes)
    train = tiny.split(0).train
    for teacher, expected in ((None, train.nonzero().view(-1)), ("same", torch.arange(60))):
        _, batches = batches_of(tiny, recipe.replace(teacher=teacher))
        nodes = torch.cat([batch.nodes for batch in batches.epoch(1)])
        assert nodes.sort().values.equal(expected)


def test_an_mlp_sees_rows(tiny):
    recipe = FAST.replace(batch="neighbor", batch_size=9, feature_norm="none")
    _, batches = batches_of(tiny, recipe, "mlp")
    assert isinstance(batches, Rows)
    for batch in batches.epoch(1):
        assert batch.graph == ()
        assert batch.x.equal(tiny.data.x[batch.nodes])
        assert tiny.split(0).train[batch.nodes].all()


def test_a_teacher_is_followed_in_batches(tiny):
    wrong = (tiny.data.y + 1) % 3
    recipe = FAST.replace(
        epochs=60, dropout=0.0, teacher="gat", teacher_weight=20.0, select="last", batch="random",
        batch_size=30,
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_model("mlp", 16, 3, recipe, "b158")
    fit(model, tiny, tiny.split(0), recipe, teacher=Teacher(10.0 * torch.eye(3)[wrong], {}))
    out = model.eval()(*model_inputs(model, tiny, recipe))
    assert float((out.argmax(dim=-1) == wrong).float().mean()) > 0.9


@pytest.mark.parametrize("changes", SAMPLED)
def test_same_seed_gives_same_curves(changes, tiny):
    def curves(seed):
        torch.manual_seed(seed)
        recipe = FAST.replace(epochs=4, **changes)
        model = build_model("sage", 16, 3, recipe, "b158")
        return fit(model, tiny, tiny.split(0), recipe, seed).curves

    assert curves(0) == curves(0) != curves(1)


@pytest.mark.parametrize("batch", ["neighbor", "saint"])
def test_what_is_missing_is_said(batch, tiny, monkeypatch):
    monkeypatch.setattr(pyg, "WITH_TORCH_SPARSE", False)
    monkeypatch.setattr(pyg, "WITH_PYG_LIB", False)
    with pytest.raises(ValueError, match=f"batch='{batch}' needs torch-sparse.*batch='random'"):
        batches_of(tiny, FAST.replace(batch=batch))


def test_clusters(tiny):
    recipe = FAST.replace(batch="cluster", num_parts=4, batch_size=2)
    try:
        _, batches = batches_of(tiny, recipe)
    except ValueError as error:
        assert "batch='cluster' needs METIS" in str(error)
        return
    assert isinstance(batches, Parts)
    nodes = torch.cat([batch.nodes for batch in batches.epoch(1)])
    assert nodes.sort().values.equal(torch.arange(60))


def test_processes_do_not_share_whole_graphs(tiny):
    with pytest.raises(ValueError, match="2 processes cannot share .* batch=random"):
        batches_of(tiny, FAST, group=Group(0, 2))


def test_nothing_is_cached_over_batches(tiny):
    recipe = FAST.replace(batch="random", num_parts=2, epochs=2)
    for name in ("gcn", "sgc"):
        model = build_model(name, 16, 3, recipe, "b158")
        fit(model, tiny, tiny.split(0), recipe)
        fresh = build_model(name, 16, 3, FAST, "b158")
        fresh.load_state_dict(copy.deepcopy(model.state_dict()))
        inputs = model_inputs(model, tiny, recipe)
        torch.testing.assert_close(model.eval()(*inputs), fresh.eval()(*inputs))
