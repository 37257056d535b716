import pytest
import torch

from bitgnn.packed import prepare, reference
from bitgnn.packed.program import Edges, Program, Step
from bitgnn.packed.simplify import simplify

GRAPH = prepare(torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 3, 3]]), 5)


def linear(value, bits=1.58, bias=False, rescale_bias=False, width=(6, 6)):
    generator = torch.Generator().manual_seed(value)
    weight = torch.randint(-1, 2, width, generator=generator)
    tensors = {"weight": weight.to(torch.int8), "scale": torch.tensor([0.3])}
    if bits is None:
        tensors = {"weight": torch.randn(width, generator=generator)}
    if bias:
        tensors["bias"] = torch.randn(width[0], generator=generator)
    attrs = {"bits": bits, "rescale_bias": rescale_bias}
    return Step("linear", (value,), attrs=attrs, tensors=tensors)


def affine(value, factor=True, bias=True):
    generator = torch.Generator().manual_seed(value + 50)
    tensors = {"factor": torch.rand(6, generator=generator) + 0.5} if factor else {}
    if bias:
        tensors["bias"] = torch.randn(6, generator=generator)
    return Step("affine", (value,), tensors=tensors)


QUANTIZE = Step("quantize", (0,), attrs={"bits": 8, "full_range": False, "eps": 1e-8})
RELU = {"kind": "relu"}


def total(value, reduce="sum"):
    return Step("aggregate", (value,), attrs={"reduce": reduce}, edges=Edges("gcn", True))


# Steps, and how many of them are left: what can be folded is.
CASES = {
    "a layer": ([QUANTIZE, linear(1), affine(2)], 2),
    "a layer with a bias": ([QUANTIZE, linear(1, bias=True), affine(2)], 2),
    "a 32-bit layer": ([linear(0, None, True), affine(1)], 1),
    "two in a row": ([QUANTIZE, linear(1), affine(2), affine(3)], 2),
    "a bias after a factor": ([linear(0, None), affine(1, bias=False), affine(2, False)], 1),
    # The bias of a sum over edges is not one of what is summed up.
    "a sum over edges": ([QUANTIZE, linear(1), total(2), affine(3)], 4),
    "a factor over edges": ([QUANTIZE, linear(1), total(2), affine(3, bias=False)], 3),
    "a maximum over edges": ([QUANTIZE, linear(1), total(2, "max"), affine(3)], 4),
    "a sum": ([linear(0, None), linear(0, None, True), Step("add", (1, 2)), affine(3)], 3),
    "a sum with the features": ([linear(0, None), Step("add", (1, 0)), affine(2)], 3),
    "the features": ([affine(0), linear(1, None)], 2),
    "someone else reads it": ([linear(0, None), affine(1), Step("add", (1, 2))], 3),
    "after an activation": ([linear(0, None), Step("act", (1,), attrs=RELU), affine(2)], 3),
    "a rescaled bias": ([QUANTIZE, linear(1, bias=True, rescale_bias=True), affine(2)], 3),
    "in the middle": ([linear(0, None), affine(1), Step("act", (2,), attrs=RELU), linear(3)], 3),
}
CASES["in the middle"][0][-1] = linear(3, None)


@pytest.mark.parametrize("name", CASES)
def test_fewer_steps_and_the_same_numbers(name):
    steps, left = CASES[name]
    x = torch.randn(5, 6)
    before = [{key: value.clone() for key, value in step.tensors.items()} for step in steps]
    found = simplify(steps)
    assert len(found) == left
    expected = reference.run(Program(tuple(steps)), x, GRAPH)
    torch.testing.assert_close(reference.run(Program(found), x, GRAPH), expected)
    for step, tensors in zip(steps, before, strict=True):  # What was given is left alone.
        assert all(torch.equal(step.tensors[key], value) for key, value in tensors.items())
    for step in found:
        if step.op == "linear" and step.attrs["bits"] == 1.58:
            assert set(step.tensors["weight"].unique().tolist()) <= {-1, 0, 1}


def test_sums_as_deep_as_a_program_is_long():
    count = 700
    steps = [linear(0, bits=None) for _ in range(count)]
    steps.append(Step("add", (1, 2)))
    steps += [Step("add", (count + place, place + 2)) for place in range(1, count - 1)]
    steps.append(affine(len(steps)))
    folded = simplify(steps)
    assert len(folded) == len(steps) - 1
    x = torch.randn(5, 6)
    found, expected = (reference.run(Program(each), x, None) for each in (folded, tuple(steps)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
