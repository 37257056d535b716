import pytest
import torch

from bitgnn import QuantConfig, pack
from bitgnn.nn import BitGAT, BitGATConv, BitGCN, BitGraphSAGE, BitMLP
from bitgnn.packed import reference
from bitgnn.packed.activations import ACTIVATIONS
from bitgnn.packed.plan import plan
from bitgnn.packed.program import Edges, Program, Step
from bitgnn.packed.trace import trace
from bitgnn.packed.validate import as_floats, infer, validate, widths
from bitgnn.packed.validate_ops import (
    MOST_COLUMNS,
    MOST_EDGES,
    MOST_HEADS,
    MOST_INPUTS,
    MOST_STEPS,
    MOST_WIDTH,
    OPS,
)


def program(*steps):
    return Program(tuple(steps))


def linear(read, n, k, **changes):
    step = Step(
        "linear", (read,), "lin",
        {"bits": 1.58, "rescale_bias": False},
        {
            "weight": torch.ones(n, k, dtype=torch.int8),
            "scale": torch.ones(1),
            "bias": torch.zeros(n),
        },
    )  # fmt: skip
    tensors = {name: changes.pop(name, value) for name, value in step.tensors.items()}
    given = {name: value for name, value in tensors.items() if value is not None}
    return step.replace(tensors=given, attrs={**step.attrs, **changes})


def quantize(read, **changes):
    attrs = {"bits": 8, "full_range": False, "eps": 1e-8}
    return Step("quantize", (read,), attrs={**attrs, **changes})


def aggregate(read, edges=None, **attrs):
    return Step("aggregate", (read,), attrs={"reduce": "sum", **attrs}, edges=edges or Edges())


def attend(read, heads=2, width=4, **attrs):
    tensors = {"att_src": torch.ones(width), "att_dst": torch.ones(width)}
    given = {"heads": heads, "concat": True, "slope": 0.2, **attrs}
    return Step("attend", (read,), "att", given, tensors, Edges())


def act(read, kind="relu", **parameters):
    return Step("act", (read,), attrs={"kind": kind, **parameters})


@pytest.mark.parametrize(
    "model",
    [
        BitGCN(8, 16, 3, 4, norm="batch_norm"),
        BitGCN(8, 16, 2, 4, jk="cat", norm="layer_norm", act="gelu"),
        BitGraphSAGE(8, 16, 2, 4, jk="max", act="elu"),
        BitGAT(8, 16, 2, 4, heads=4),
        BitGATConv(8, 2, heads=300),
        BitGATConv(8, 5, heads=2, concat=False, residual=True),
        BitMLP([8, 8, 4], quant=QuantConfig(weight_bits=4, granularity="channel")),
        BitMLP([8, 8, 4], quant=QuantConfig(layer_norm=True, rescale_bias=True)),
        BitMLP([8, 8, 4], quant=None),
    ],
)
def test_what_is_packed_is_valid(model):
    found = trace(model.eval())
    validate(found)
    # The widths of features follow from what reads them.
    assert infer(found.steps, {})[0] == 8
    assert widths(found, 8)[0] == 8


BAD_STEPS = {
    "an unknown operator": (Step("save", (0,)), r"Step 0 \('save'\): 'save' is an operator which"),
    "no name of an operator": (Step(["act"], (0,)), "operator"),
    "a function that is no activation": (act(0, "save", f="x"), "'kind' must be one of 'relu'"),
    "a method that is no activation": (act(0, "__class__"), "'kind' must be one of"),
    "a kind that is no name": (act(0, ["relu"]), "'kind' must be one of"),
    "a parameter of another activation": (act(0, "relu", alpha=1.0), "'alpha' is no field of it"),
    "a parameter is missing": (act(0, "elu"), "'alpha' is missing"),
    "a parameter that is no number": (act(0, "elu", alpha="1"), "'alpha' must be a number"),
    "NaN": (act(0, "elu", alpha=float("nan")), "'alpha' must be a number"),
    "infinity": (act(0, "leaky_relu", negative_slope=float("inf")), "'negative_slope' must be"),
    "a dimension": (act(0, "softmax", dim=7), "'dim' must be one of"),
    "a float for a dimension": (act(0, "softmax", dim=-1.0), "'dim' must be one of .*got -1.0"),
    "a float for bits": (quantize(0, bits=8.0), "'bits' must be one of .*got 8.0"),
    "a float for bits of weights": (linear(0, 3, 4, bits=2.0), "'bits' must be one of .*got 2.0"),
    "an integer that no float holds": (
        act(0, "elu", alpha=2**53 + 1),
        "'alpha' must be a number .*got 9007199254740993",
    ),
    "an integer that only looks like a float": (
        act(0, "leaky_relu", negative_slope=10**30),
        "'negative_slope' must be a number",
    ),
    "a slope that no float holds": (attend(0, slope=10**30), "'slope' must be a number"),
    "a weight of self-loops that no float holds": (
        aggregate(0, Edges(fill=10**30)),
        "'edges.fill' must be a number",
    ),
    "a boolean for an integer": (quantize(0, bits=True), "'bits' must be one of"),
    "an integer for a boolean": (quantize(0, full_range=1), "'full_range' must be true or false"),
    "many bits": (quantize(0, bits=2**31), "'bits' must be one of 2, 3, 4, 5, 6, 7, 8"),
    "more bits than a machine has": (quantize(0, bits=2**64), "'bits' must be one of"),
    "a huge integer": (quantize(0, bits=10**5000), "got int of great size"),
    "an eps of 0": (quantize(0, eps=0.0), "'eps' must be a number from 1e-30"),
    "an eps of 1": (
        quantize(0, eps=1),
        "'eps' must be a number from 1e-30 to below 1 that a float holds .got 1",
    ),
    "a name that is no text": (Step("unit", (0,), name=3), "'name' must be a string"),
    "a value that is not there yet": (Step("unit", (1,)), "'inputs' must be a list"),
    "itself": (Step("add", (0, 1)), "'inputs' must be a list"),
    "a negative value": (Step("unit", (-1,)), "'inputs' must be a list"),
    "a boolean for a value": (Step("unit", (False,)), "'inputs' must be a list"),
    "too few values": (Step("add", (0,)), "'inputs' must be a list"),
    "too many values": (Step("unit", (0, 0)), "'inputs' must be a list"),
    "no value": (Step("cat", ()), "'inputs' must be a list"),
    "an unknown tensor": (Step("unit", (0,), tensors={"x": torch.ones(1)}), "it has no tensor 'x'"),
    "a tensor is missing": (linear(0, 3, 4, weight=None), "'weight' is missing"),
    "a weight of one dimension": (linear(0, 3, 4, weight=torch.ones(3)), "'weight' must be of"),
    "an empty weight": (linear(0, 0, 4), "not empty"),
    "a weight of another type": (
        linear(0, 3, 4, weight=torch.ones(3, 4)),
        "'weight' is torch.float32, which 'bits' 1.58 does not allow",
    ),
    "a weight in 16 bits": (linear(0, 3, 4, weight=torch.ones(3, 4).half()), "'weight' must be of"),
    "weights beyond their bits": (
        linear(0, 3, 4, weight=torch.full((3, 4), 2, dtype=torch.int8)),
        "'weight' has integers from -1 to 1",
    ),
    "integers without a scale": (linear(0, 3, 4, scale=None), "'scale' belongs to integer"),
    "a short scale": (linear(0, 3, 4, scale=torch.ones(2)), "'scale' has 2 numbers, but needs 3"),
    "a scale of 16 bits": (linear(0, 3, 4, scale=torch.ones(3).half()), "'scale' must be of type"),
    "a scale of integers": (linear(0, 3, 4, scale=torch.ones(3).int()), "'scale' must be of type"),
    "a short bias": (linear(0, 3, 4, bias=torch.ones(1)), "'bias' has 1 numbers, but needs 3"),
    "a scale that is not a number": (
        linear(0, 3, 4, scale=torch.tensor([1.0, torch.nan, 1.0])),
        "'scale' has numbers that are not finite .got nan.",
    ),
    "an infinite bias": (
        linear(0, 3, 4, bias=torch.tensor([1.0, 1.0, -torch.inf])),
        "'bias' has numbers that are not finite .got -inf.",
    ),
    "a bias of 64 bits": (linear(0, 3, 4, bias=torch.ones(3).double()), "'bias' must be of type"),
    "heads that do not divide columns": (attend(0, heads=3), "'heads' must divide the 4 columns"),
    "more heads than columns": (attend(0, heads=8), "'heads' must divide the 4 columns"),
    "no heads": (attend(0, heads=0), "'heads' must be an integer from 1"),
    "many heads": (attend(0, heads=2**31), f"'heads' must be an integer from 1 to {MOST_HEADS}"),
    "a reduction": (aggregate(0, reduce="min"), "'reduce' must be one of"),
    "edges are missing": (aggregate(0).replace(edges=None), "'edges' is missing"),
    "edges where none are read": (Step("unit", (0,), edges=Edges()), "it reads no 'edges'"),
    "a weight of self-loops": (aggregate(0, Edges(fill=float("nan"))), "'edges.fill' must be"),
    "a norm": (aggregate(0, Edges(norm="x")), "'edges.norm' must be one of"),
    "a type of edges": (aggregate(0, Edges(relation=("a", "b", "c"))), "'edges.relation' is a"),
    "weights of attention": (
        attend(0).replace(edges=Edges(weighted=True)),
        "'edges' of an attention have neither",
    ),
    "neither a factor nor a bias": (Step("affine", (0,)), "it needs 'factor' or 'bias'"),
    "an output of types": (Step("collect", (0,), attrs={"nodes": ["a"]}), "it makes the output"),
    "integer rows as output": (quantize(0), "The last step makes integer rows"),
}


@pytest.mark.parametrize("bad", BAD_STEPS)
def test_steps_that_are_refused(bad):
    step, message = BAD_STEPS[bad]
    with pytest.raises(ValueError, match=message):
        validate(program(step))


TWO = [Step("pick", (0,), attrs={"nodes": nodes}) for nodes in ("a", "b")]
BETWEEN = Edges(relation=("a", "to", "b"))

BAD_PROGRAMS = {
    "a sum of two widths": (
        [linear(0, 4, 8), linear(0, 100_000, 8), Step("add", (1, 2))],
        r"Step 2 \('add'\): 'inputs' takes 4 columns \(got 100000\)",
    ),
    "a layer of another width": (
        [linear(0, 4, 8), linear(1, 2, 5)],
        r"Step 1 \('linear' of 'lin'\): 'weight' takes 5 columns \(got 4\)",
    ),
    "features of two widths": ([linear(0, 4, 8), linear(0, 4, 9)], "takes 9 columns .got 8"),
    "features of two widths, later": (
        [Step("unit", (0,)), linear(0, 4, 8), linear(1, 4, 9)],
        "takes 9 columns .got 8",
    ),
    "a width that follows later": (
        [Step("cat", (0, 0)), linear(0, 4, 8), linear(1, 4, 9)],
        r"Step 2 .*'weight' takes 9 columns \(got 16\)",
    ),
    "a short factor": (
        [linear(0, 4, 8), Step("affine", (1,), tensors={"factor": torch.ones(3)})],
        "'factor' takes 3 columns .got 4",
    ),
    "a bias of one number": (
        [linear(0, 4, 8), Step("affine", (1,), tensors={"bias": torch.ones(1)})],
        "'bias' takes 1 columns .got 4",
    ),
    "a short vector": (
        [linear(0, 8, 8), attend(1, width=4)],
        "'att_src' takes 4 columns .got 8",
    ),
    "integer rows that are added": ([quantize(0), Step("add", (0, 1))], "integer rows, which it"),
    "integer rows of attention": ([quantize(0), attend(1)], "integer rows, which it does not"),
    "integers of integers": ([quantize(0), quantize(1)], "integer rows, which it does not"),
    "features of all types": ([*TWO, Step("unit", (0,))], "values by type, which it does not"),
    "features of a value": ([TWO[0], Step("pick", (1,), attrs={"nodes": "b"})], "takes features"),
    "sums of nodes of two types": ([*TWO, Step("add", (1, 2))], "reads nodes of types"),
    "edges without a type": ([*TWO, aggregate(1)], "'edges.relation' is a type of edges"),
    "edges of other nodes": ([*TWO, aggregate(2, BETWEEN)], "reads nodes of types"),
    "a norm between two types": (
        [*TWO, aggregate(1, Edges(norm="gcn", relation=("a", "to", "b")))],
        "'edges.relation' joins nodes of two types",
    ),
    "attention between two types": (
        [*TWO, attend(1).replace(edges=BETWEEN)],
        "'edges.relation' joins nodes of two types",
    ),
    "a relation of two names": (
        [*TWO, aggregate(1, Edges(relation=("a", "b")))],
        "'edges.relation' must be a list",
    ),
    "outputs without names": (
        [*TWO, Step("collect", (1, 2), attrs={"nodes": ["a"]})],
        "'nodes' has a name for each input",
    ),
    "outputs of one name": (
        [*TWO, Step("collect", (1, 2), attrs={"nodes": ["a", "a"]})],
        "'nodes' must be a list",
    ),
    "what comes after the output": (
        [*TWO, Step("collect", (1, 2), attrs={"nodes": ["a", "b"]}), Step("unit", (1,))],
        "it makes the output",
    ),
    "wide values": (
        [linear(0, 2, 4)] + [Step("cat", (k, k)) for k in range(1, 41)],
        f"it makes rows of 1 to {MOST_WIDTH} columns",
    ),
    "many columns": (
        [linear(0, MOST_WIDTH, 1)] + [Step("unit", (k,)) for k in range(1, 20)],
        f"at most {MOST_COLUMNS} columns",
    ),
    "many steps": ([Step("unit", (k,)) for k in range(MOST_STEPS + 1)], f"at most {MOST_STEPS}"),
}


@pytest.mark.parametrize("bad", BAD_PROGRAMS)
def test_programs_that_are_refused(bad):
    steps, message = BAD_PROGRAMS[bad]
    with pytest.raises(ValueError, match=message):
        validate(program(*steps))


def test_widths_that_features_decide():
    # Twice the features, and as many as there are: nothing in the program says how many.
    free = program(Step("cat", (0, 0)), linear(1, 4, 10))
    validate(free)
    assert widths(free, 5) == [5, 10, 4]
    with pytest.raises(ValueError, match="'x' has 6 columns, of which 'lin' gets 12: it takes 10"):
        widths(free, 6)
    by_type = program(*TWO, linear(1, 4, 8), linear(2, 4, 6), Step("unit", (3,)))
    validate(by_type)
    assert infer(by_type.steps, {})[:3] == [("",), 8, 6]
    with pytest.raises(ValueError, match="'a': 8, 'b': 7.* gets 7: it takes 6"):
        widths(by_type, {"a": 8, "b": 7})


def test_a_program_may_be_as_long_as_the_limit():
    chains = {
        "act": lambda k: act(k, "tanh"),
        "add": lambda k: Step("add", (k, 0)),
        "affine": lambda k: Step("affine", (k,), tensors={"bias": torch.ones(4)}),
    }
    for make in chains.values():
        long = program(*(make(k) for k in range(MOST_STEPS)))
        validate(long)
        assert plan(long)  # No recursion, whose depth Python limits.


def test_one_table_of_operators_and_activations():
    assert all(hasattr(reference, f"_{op}") for op in OPS)
    for kind, activation in ACTIVATIONS.items():
        assert activation.parameters.keys() == activation.defaults.keys()
        validate(program(act(0, kind, **activation.defaults)))
        made = reference.one(act(0, kind, **activation.defaults), None, torch.randn(3, 4))
        assert made.shape == (3, 4)


def test_integers_that_floats_hold_become_floats():
    slopes = act(0, "elu", alpha=2**80), act(1, "leaky_relu", negative_slope=0)
    steps = *slopes, attend(2, slope=1), aggregate(3, Edges("gcn", True, 2))
    written = program(*steps, Step("layer_norm", (4,), attrs={"over": "row", "eps": 0}))
    validate(written)
    found = as_floats(written)
    numbers = [
        *(found.steps[0].attrs["alpha"], found.steps[1].attrs["negative_slope"]),
        *(found.steps[2].attrs["slope"], found.steps[3].edges.fill, found.steps[4].attrs["eps"]),
    ]
    assert numbers == [2.0**80, 0.0, 1.0, 2.0, 0.0] and {*map(type, numbers)} == {float}
    assert type(found.steps[2].attrs["heads"]) is int
    reference.run(Program(found.steps[:2]), torch.randn(3, 4), None)


def test_pack_refuses_what_load_would(monkeypatch):
    monkeypatch.setattr("bitgnn.packed.validate.MOST_STEPS", 3)
    with pytest.raises(ValueError, match="at most 3 steps"):
        pack(BitMLP([4, 4, 4]))


def fills(count, **changes):
    edges = [Edges("gcn", True, 1 + k / 1000, True, **changes) for k in range(count)]
    return [aggregate(k + len(changes), each) for k, each in enumerate(edges)]


def test_forms_of_edges_are_limited():
    # A prepared graph keeps a copy of its edges for each.
    validate(program(*fills(MOST_EDGES), *(aggregate(0, Edges("gcn", True, 1.0, True)),) * 9))
    with pytest.raises(ValueError, match=rf"Step {MOST_EDGES} \('aggregate'\): 'edges' must be"):
        validate(program(*fills(MOST_EDGES + 1)))


def test_forms_of_edges_are_limited_for_each_type():
    one, other = (("a", name, "a") for name in ("to", "by"))
    pick = Step("pick", (0,), attrs={"nodes": "a"})
    validate(program(pick, *fills(MOST_EDGES, relation=one), aggregate(1, Edges(relation=other))))
    with pytest.raises(ValueError, match="descriptions of the edges of type .'a', 'to', 'a'"):
        validate(program(pick, *fills(MOST_EDGES + 1, relation=one)))


def test_a_program_reads_a_limited_number_of_values():
    steps = [Step("maximum", (0,) * MOST_INPUTS, attrs={})]
    validate(Program(tuple(steps)))
    with pytest.raises(ValueError, match=f"read at most {MOST_INPUTS} values"):
        validate(Program((*steps, Step("unit", (1,), attrs={}))))
