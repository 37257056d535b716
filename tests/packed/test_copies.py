import copy
import pickle

import pytest
import torch
from torch_geometric.nn import to_hetero

from bitgnn.nn import BitGAT, BitGCN, BitGraphSAGE
from bitgnn.packed import pack, prepare

NODES = 40
COPIES = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.fixture
def graph():
    torch.manual_seed(12)
    return torch.randn(NODES, 8), torch.randint(NODES, (2, 120))


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("build", [BitGCN, BitGraphSAGE, BitGAT])
def test_models_and_graphs_at_any_time(graph, build, how):
    x, edges = graph
    packed = pack(build(8, 16, 2, 4).eval())
    packed.about["kept"] = "yes"
    weight = torch.rand(edges.size(1)) if build is BitGCN else None
    prepared = prepare(edges, NODES, weight)
    before = COPIES[how](packed), COPIES[how](prepared)
    expected = packed(x, prepared)
    packed(x, prepared, exact=True)
    after = COPIES[how](packed), COPIES[how](prepared)
    for model, same in (before, after):
        assert torch.equal(model(x, same), expected)
        assert torch.equal(packed(x, same), expected) and torch.equal(model(x, prepared), expected)
        assert repr(model) == repr(packed) and repr(same) == repr(prepared)
        assert model.about == packed.about
        kinds = {step.edges for step in packed.program.edge_steps}
        for kind in kinds:
            a, b = same.matrix(kind), prepared.matrix(kind)
            assert torch.equal(a.to_dense(), b.to_dense())


def test_graphs_of_several_types(graph):
    nodes, relations = ["a", "b"], [("a", "to", "b"), ("b", "to", "a")]
    model = to_hetero(BitGraphSAGE((-1, -1), 16, 2, 4), (nodes, relations)).eval()
    x = {"a": torch.randn(9, 8), "b": torch.randn(7, 6)}
    edges = {kind: torch.randint(7, (2, 20)) for kind in relations}
    model(x, edges)
    packed, prepared = pack(model), prepare(edges, {"a": 9, "b": 7})
    expected = packed(x, prepared)
    for how in COPIES.values():
        for found in (how(packed)(x, how(prepared)), packed(x, how(prepared))):
            assert all(torch.equal(found[kind], expected[kind]) for kind in nodes)


def test_a_copy_of_a_graph_that_was_tampered_with():
    graph = prepare(torch.tensor([[0, 1], [1, 2]]), 3)
    state = graph.__getstate__()
    for wrong in (-1, 3, 2**31 - 1):
        rows = copy.deepcopy(state["_rows"])
        rows.col[0] = wrong
        with pytest.raises(ValueError, match="'graph' is a sparse matrix of shape .3, 3. with 2"):
            graph.__setstate__(state | {"_rows": rows})
    for change in ({"num_sources": 1}, {"num_nodes": 4}, {"num_edges": 9}, {"has_weights": True}):
        with pytest.raises(ValueError, match="'graph' "):
            graph.__setstate__(state | change)
    for change in (
        {"memory": state["_rows"].memory.int()},
        {"memory": state["_rows"].memory[:3]},
        {"weighted": True},
        {"targets": 4},
        {"room": 50},
    ):
        with pytest.raises(ValueError, match="'graph' "):
            graph.__setstate__(state | {"_rows": state["_rows"]._replace(**change)})
