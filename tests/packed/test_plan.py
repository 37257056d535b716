import torch
from torch_geometric.nn import HeteroConv

from bitgnn import QuantConfig
from bitgnn.nn import BitGAT, BitGATConv, BitGCN, BitGCNConv, BitGraphSAGE, BitMLP, BitSAGEConv
from bitgnn.packed.plan import (
    INT8,
    INT16,
    MOST_STAGES,
    NUMBERS,
    SPARSE,
    Call,
    Segment,
    attention_vectors,
    plan,
)
from bitgnn.packed.program import types
from bitgnn.packed.trace import trace
from bitgnn.packed.trace_hetero import trace_hetero


def only_segment(model, exact=False):
    (segment,) = plan(trace(model), exact)
    assert isinstance(segment, Segment)
    return segment


def stages_of(model, exact=False):
    return [stage for stages in only_segment(model, exact).passes for stage in stages]


def test_an_mlp_is_one_pass():
    segment = only_segment(BitMLP([20, 30, 30, 5]))
    assert len(segment.passes) == 1
    assert segment.given == [0]
    assert len(segment.passes[0]) <= MOST_STAGES


def test_a_pass_ends_where_sums_over_edges_begin():
    # What a pass makes of a block of rows is not yet there for other rows.
    for model in (BitGCN(20, 32, 3, 5), BitGraphSAGE(20, 32, 3, 5), BitGAT(20, 32, 3, 5)):
        for stages in only_segment(model).passes:
            made = set()
            for stage in stages:
                over_edges = {view.value for view, over in stage.views() if over}
                assert not over_edges & made
                made.add(stage.value)


def layers(model, exact=False):
    return [term for stage in stages_of(model, exact) for term in stage.terms if term.aggregate]


def test_sums_move_to_the_narrow_side():
    (wide,) = layers(BitGCNConv(32, 512))
    assert wide.weight is not None and wide.view.form == INT8 and wide.hold == INT16
    (narrow,) = layers(BitGCNConv(512, 32))
    assert narrow.weight is None and narrow.view.form == INT16


def test_exact_rounds_nothing_that_training_did_not():
    for size in ((32, 512), (512, 32)):
        (term,) = layers(BitGCNConv(*size), exact=True)
        assert term.weight is None and term.view.form == NUMBERS
    for model in (BitGCN(20, 32, 3, 5), BitGAT(20, 32, 3, 5, heads=4), BitGraphSAGE(20, 32, 3, 5)):
        for stage in stages_of(model, exact=True):
            for term in stage.terms:
                assert INT16 not in (term.view.form, term.hold)


def test_32_bit_layers_are_not_rounded():
    for term in layers(BitGCN(20, 32, 3, 5, quant=None)):
        assert term.view.form == NUMBERS


def test_a_bias_keeps_its_layer_before_the_sum():
    model = BitGCNConv(8, 512)
    steps = list(trace(model).steps)
    steps[1] = steps[1].replace(tensors={**steps[1].tensors, "bias": torch.ones(512)})
    program = type(trace(model))(tuple(steps))
    (segment,) = plan(program)
    (term,) = (t for stages in segment.passes for s in stages for t in s.terms if t.aggregate)
    assert term.weight is None


def test_what_torch_computes_stands_between():
    items = plan(trace(BitGCN(20, 32, 3, 5, act="gelu")))
    assert [type(item) for item in items] == [Segment, Call, Segment, Call, Segment]
    assert [item.step.attrs["kind"] for item in items if isinstance(item, Call)] == ["gelu"] * 2
    four = plan(trace(BitMLP([20, 30, 5], quant=QuantConfig(weight_bits=4))))
    assert any(isinstance(item, Call) and item.step.op == "linear" for item in four)


def test_scores_of_attention():
    attend = trace(BitGATConv(6, 4, heads=3)).steps[2]
    h = torch.randn(5, 12)
    src, dst = (h * vector for vector in attention_vectors(attend, None))
    for found, name in ((src, "att_src"), (dst, "att_dst")):
        expected = (h.view(5, 3, 4) * attend.tensors[name].view(3, 4)).sum(-1)
        torch.testing.assert_close(found.view(5, 3, 4).sum(-1), expected)
    # Before the layer, the same scores are those of its input.
    linear, attend = trace(BitGATConv(6, 4)).steps[1:3]
    x = torch.randint(-127, 128, (5, 6)).float()
    h = x @ (linear.tensors["weight"].float() * linear.tensors["scale"]).t()
    expected = h @ attention_vectors(attend, None).t()
    found = x @ attention_vectors(attend, linear).t()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_sparse_features_are_spread_only_for_sums_over_edges():
    def views(model):
        (segment,) = plan(trace(model), sparse=True)
        stages = [stage for stages in segment.passes for stage in stages]
        assert segment.given == [0]
        return [(term.view, term.weight) for stage in stages for term in stage.terms]

    for model in (BitMLP([20, 30, 5]), BitGCN(40, 32, 2, 5), BitGAT(400, 32, 2, 5)):
        first = [weight for view, weight in views(model) if view.value == 0]
        assert len(first) == 1 and first[0] is not None
    forms = [(view.form, weight is None) for view, weight in views(BitGraphSAGE(20, 32, 2, 5))[:3]]
    # Rows for the sum, the sum itself, and the root branch.
    assert sorted(forms) == [(INT8, False), (SPARSE, False), (SPARSE, True)]


def test_types_of_nodes_take_turns():
    relations = [("a", str(k), "b") for k in range(4)] + [("b", str(k), "a") for k in range(4)]
    convs = {relation: BitSAGEConv((20, 20), 16) for relation in relations}
    program = trace_hetero(HeteroConv(convs).eval(), ["a", "b"], relations)
    segment, last = plan(program)
    # One call makes it all: also sums of eight products, of which a stage has room for two.
    assert isinstance(segment, Segment) and isinstance(last, Call) and last.step.op == "collect"
    nodes = types(program.steps)
    assert all(len({nodes[stage.value] for stage in stages}) == 1 for stages in segment.passes)
    assert {nodes[value] for value in segment.given} == {"a", "b"} == {
        nodes[value] for value in segment.wanted
    }  # fmt: skip
    sums = [stage for stages in segment.passes for stage in stages if stage.terms[0].weight]
    assert [len(stage.terms) for stage in sums] == [2] * 8
    # Rows that many types of edges read become integers once.
    views = [view for stages in segment.passes for stage in stages for view in stage.makes]
    assert len(views) == len(set(views))
