import pytest
import torch

from bitgnn.experiment.speed.case import MODELS, Case
from bitgnn.experiment.speed.graphs import Shape, random_graph
from bitgnn.experiment.speed.sides import ALLOCATORS, PACKED, Side, build, ours, sides_of
from bitgnn.kernels import native

DATA = random_graph(Shape(40, 300, 6, 3))


def test_every_way_is_there_with_every_allocator():
    for model in MODELS:
        sides = sides_of(Case(model, "Cora"))
        forms = {side.form for side in sides}
        graph = set() if model == "mlp" else {"CSR", "SparseTensor"}
        assert forms == {"edge_index", "sparse x", "compiled"} | graph
        for form in forms:
            found = {side.allocator for side in sides if side.form == form and side.scatter}
            assert found == set(ALLOCATORS)
    assert "sparse x" not in {side.form for side in sides_of(Case("gcn", "arxiv"))}
    assert "compiled" not in {side.form for side in sides_of(Case("gcn", "Cora"), False)}
    assert any(not side.scatter for side in sides_of(Case("gat", "arxiv")))


def test_names():
    assert Side("CSR").name == "CSR"
    assert Side("CSR", "retained", False).name == "CSR, retained, no torch-scatter"


@pytest.mark.parametrize("graph", ["arxiv", "request"])
@pytest.mark.parametrize("model", ["gcn", "sage", "gat", "mlp"])
def test_all_ways_of_pyg_agree(model, graph):
    # In 32 bits packed models are PyG's, and so their oracle.
    case = Case(model, graph, 2, 8)
    with torch.inference_mode():
        expected = build(Side("edge_index"), case, DATA, 3).call()
        if model != "mlp":
            torch.testing.assert_close(build(Side("CSR"), case, DATA, 3).call(), expected)
        if native.enabled():
            found = build(Side("packed 32-bit"), case, DATA, 3).call()
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("form", PACKED)
def test_packed_ways(form):
    case = Case("gcn", "Cora", 2, 8)
    built = build(Side(form), case, DATA, 3)
    with torch.inference_mode():
        assert built.call().shape == (40, 3)
    if native.enabled():
        assert built.prepare is not None and built.prepare() is None


def test_training_steps_learn():
    case = Case("sage", "arxiv", 2, 16, train=True)
    sides = [*ours(case), *sides_of(case)]
    assert {side.form for side in ours(case)} == {"ternary", "bitgnn 32-bit"}
    assert "compiled" not in {side.form for side in sides}
    losses = {}
    for side in sides:
        if side.allocator == "retained" and side.form != "SparseTensor":
            step = build(side, case, DATA, 3).call
            losses[side.form] = [float(step()) for _ in range(30)]
    assert set(losses) == {"ternary", "bitgnn 32-bit", "edge_index", "CSR"}
    # The same model, initialized and taught alike; with ternary weights, another one.
    for form in ("bitgnn 32-bit", "CSR"):
        assert losses[form] == pytest.approx(losses["edge_index"], rel=1e-3)
    assert all(loss[-1] < 0.9 * loss[0] for loss in losses.values())


def test_training_steps_of_mlp():
    case = Case("mlp", "arxiv", 2, 16, train=True)
    for form in ("ternary", "edge_index"):
        step = build(Side(form), case, DATA, 3).call
        assert float(step()) > float([step() for _ in range(30)][-1])


def test_whose_ways_they_are():
    for case in (Case("gcn", "Cora"), Case("gcn", "arxiv", train=True)):
        assert not any(side.is_pygs for side in ours(case))
        assert all(side.is_pygs for side in sides_of(case))
