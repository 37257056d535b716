r"""What need not be computed at all: batch normalization and biases become part of the layer that
they follow."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bitgnn.packed.program import Step, readers


def simplify(steps: Sequence[Step]) -> tuple[Step, ...]:
    r"""Folds what is affine in each channel into what it follows, where nobody else reads that.

    A factor passes sums of edges and of values down to the linear layers, whose weight scales it
    becomes part of: :math:`\mathbf{a} \odot (\mathbf{x}_q \mathbf{W}_q^{\top}) \, s_x s_w` is a
    product with one scale :math:`a_j s_w` a channel. Weights stay ternary.

    Args:
        steps (list): The steps.
    """
    folded = _Folder(steps)
    for place, step in enumerate(steps):
        if step.op == "affine":
            folded.fold(place)
    return folded.result()


class _Folder:
    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps: list[Step | None] = list(steps)
        self.readers = readers(steps)
        self.same: dict[int, int] = {}  # What a value that is gone was equal to.

    def fold(self, place: int) -> None:
        """Folds an affine step, or of its factor and bias what can be folded."""
        step = self.steps[place]
        assert step is not None
        (value,) = step.inputs
        factor, bias = step.tensors.get("factor"), step.tensors.get("bias")
        if factor is not None and self._takes_factor(value):
            self._scale(value, factor)
            factor = None
        if bias is not None and factor is None:
            taker = self._takes_bias(value)
            if taker is not None:
                self._shift(taker, bias)
                bias = None
        if factor is None and bias is None:
            self.steps[place] = None
            self.same[place + 1] = value
            self.readers[self._resolved(value)] = self.readers[place + 1]
        else:
            tensors = {"factor": factor, "bias": bias}
            given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
            self.steps[place] = step.replace(tensors=given)

    def result(self) -> tuple[Step, ...]:
        """The steps that are left, with values numbered anew."""
        number, left = {0: 0}, []
        for place, step in enumerate(self.steps):
            if step is None:
                number[place + 1] = number[self._resolved(place + 1)]
                continue
            inputs = tuple(number[self._resolved(value)] for value in step.inputs)
            left.append(step.replace(inputs=inputs))
            number[place + 1] = len(left)
        return tuple(left)

    def _resolved(self, value: int) -> int:
        while value in self.same:
            value = self.same[value]
        return value

    def _maker(self, value: int) -> tuple[int, Step] | None:
        """The step that makes a value for one reader alone."""
        value = self._resolved(value)
        if value == 0 or len(self.readers[value]) != 1:
            return None
        step = self.steps[value - 1]
        assert step is not None
        return value - 1, step

    # Sums may be as deep as a program is long, deeper than Python recurses.

    def _takes_factor(self, value: int) -> bool:
        values = [value]
        while values:
            maker = self._maker(values.pop())
            if maker is None:
                return False
            _, step = maker
            if step.op == "add":
                values += step.inputs
            elif step.op == "aggregate" and step.attrs["reduce"] != "max":
                values.append(step.inputs[0])
            elif step.op != "affine" and not _is_scaled_linear(step):
                return False
        return True

    def _scale(self, value: int, factor: Tensor) -> None:
        values = [value]
        while values:
            maker = self._maker(values.pop())
            assert maker is not None
            place, step = maker
            if step.op in ("add", "aggregate"):
                values += step.inputs
                continue
            tensors: dict[str, Any] = dict(step.tensors)
            if "bias" in tensors:
                tensors["bias"] = tensors["bias"] * factor
            if step.op == "affine" and self._takes_factor(step.inputs[0]):
                values.append(step.inputs[0])
            elif step.op == "affine":
                tensors["factor"] = tensors.get("factor", 1.0) * factor
            elif "scale" in tensors:
                tensors["scale"] = tensors["scale"] * factor
            else:
                tensors["weight"] = tensors["weight"] * factor.unsqueeze(1)
            self.steps[place] = step.replace(tensors=tensors)

    def _takes_bias(self, value: int) -> int | None:
        """The place of the first step below a value that can take its bias."""
        values = [value]
        while values:
            maker = self._maker(values.pop())
            if maker is None:
                continue
            place, step = maker
            if step.op == "add":
                values += reversed(step.inputs)
            elif step.op == "affine" or _is_scaled_linear(step):
                return place
        return None

    def _shift(self, place: int, bias: Tensor) -> None:
        step = self.steps[place]
        assert step is not None
        tensors = dict(step.tensors)
        tensors["bias"] = tensors["bias"] + bias if "bias" in tensors else bias
        self.steps[place] = step.replace(tensors=tensors)


def _is_scaled_linear(step: Step) -> bool:
    return step.op == "linear" and not step.attrs["rescale_bias"]
