r"""Programs as stages: what the native engine computes for a block of rows at a time.

A stage adds up to two *terms*, each of which is the rows of a value, or their sums over edges,
times a weight if there is one; then come a bias, another value, and an activation function. Linear
maps and sums over edges change places where that moves fewer bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

import torch
from torch import Tensor

from bitgnn.kernels.native_products import INT8, INT16, LINE, NUMBERS, SPARSE
from bitgnn.packed.activations import ACTIVATIONS
from bitgnn.packed.program import Edges, Program, Step, readers, types

ACTS = {kind: act.native for kind, act in ACTIVATIONS.items() if act.native is not None}
MOST_TERMS, MOST_STAGES, MOST_HEADS = 2, 8, 256  # of the engine; torch computes what has more
MOST_DEPTH = 16  # of sums of sums, of which a stage has room for few summands anyway


@dataclass(frozen=True)
class View:
    r"""What is read of a value.

    Args:
        value (int): The value, in the program.
        form (int, optional): As numbers, as integers of 8 or 16 bits, or, of the features alone,
            as a sparse matrix. (default: :obj:`NUMBERS`)
        quantize (tuple, optional): The bits, range and eps of 8-bit integers.
            (default: :obj:`None`)
        attend (int, optional): The place of the attention step for which it is scored.
            (default: :obj:`None`)
        fold (Edges, optional): The edges whose normalization, a number a node, is part of what a
            row of integers counts for. (default: :obj:`None`)
    """

    value: int
    form: int = NUMBERS
    quantize: tuple[int, bool, float] | None = None
    attend: int | None = None
    fold: Edges | None = None


@dataclass(eq=False)
class Term:
    """A summand of a stage: the steps that it stands for."""

    view: View
    aggregate: Step | None = None
    hold: int = NUMBERS
    quantize: tuple[int, bool, float] | None = None
    weight: Step | None = None


@dataclass(eq=False)
class Stage:
    """What is computed at once for a row; `value` is the value in the program that it makes."""

    value: int
    terms: list[Term] = field(default_factory=list)
    factor: Tensor | None = None
    bias: Tensor | None = None
    other: View | None = None
    act: Step | None = None
    makes: list[View] = field(default_factory=list)

    def views(self) -> Iterator[tuple[View, bool]]:
        """The views that it reads, and whether it reads rows of other nodes."""
        for term in self.terms:
            yield term.view, term.aggregate is not None
        if self.other is not None:
            yield self.other, False

    @property
    def reads(self) -> list[int]:
        """The values that it reads."""
        return [view.value for view, _ in self.views()]


@dataclass(eq=False)
class Call:
    """A step that torch computes."""

    value: int
    step: Step
    reads: list[int]  # numbers of these values


@dataclass(eq=False)
class Segment:
    """Stages that one call runs, in passes; it reads values of others, writes what they want."""

    passes: list[list[Stage]]
    given: list[int]
    wanted: list[int]


def plan(program: Program, exact: bool = False, sparse: bool = False) -> list[Segment | Call]:
    r"""Returns what is to be done, in its order.

    Args:
        program (Program): The program.
        exact (bool, optional): If set to :obj:`True`, no number is rounded that the trained model
            does not round: sums over edges are in 32 bits. (default: :obj:`False`)
        sparse (bool, optional): Whether the features are a sparse matrix. (default: :obj:`False`)
    """
    items = _Stages(program.steps, exact, sparse).items()
    return list(_segments(items, len(program.steps), sparse, types(program.steps)))


class _DoesNotFit(Exception):
    """A value that no stage can make."""


class _Stages:
    """Finds, from the output backwards, the stages that make it."""

    def __init__(self, steps: Sequence[Step], exact: bool, sparse: bool) -> None:
        self.steps, self.exact, self.sparse = steps, exact, sparse
        self.readers = readers(steps)
        self.found: list[Stage | Call] = []
        # Features are there.
        self.made = {0, *(k for k, step in enumerate(steps, start=1) if step.op == "pick")}

    def items(self) -> list[Stage | Call]:
        """The stages and calls, each after what it reads."""
        # Depth first, without recursion: a program may have more steps than Python has frames.
        opened: dict[int, Stage | Call] = {}
        waiting = [len(self.steps)]
        while waiting:
            value = waiting[-1]
            if value in self.made:
                waiting.pop()
            elif value not in opened:
                opened[value] = item = self._item(value)
                waiting += reversed(item.reads)
            else:
                waiting.pop()
                self.found.append(opened[value])
                self.made.add(value)
        return self.found

    def _item(self, value: int) -> Stage | Call:
        try:
            return self._stage(value)
        except _DoesNotFit:
            step = self.steps[value - 1]
            return Call(value, step, [self._source(each)[1] for each in step.inputs])

    def _stage(self, value: int) -> Stage:
        stage, step = Stage(value), self.steps[value - 1]
        if step.op == "act" and step.attrs["kind"] in ACTS:
            stage.act = step
            value = step.inputs[0]
            step = self.steps[value - 1] if value > 0 else step
        if step.op == "affine" and "factor" in step.tensors and value > 0:
            stage.factor, stage.bias = step.tensors["factor"], step.tensors.get("bias")
            stage.terms = [Term(View(step.inputs[0]))]
        else:
            self._fill(stage, value, opens=stage.act is None or self._is_inner(value))
        if not stage.terms:
            assert stage.other is not None
            stage.terms, stage.other = [Term(stage.other)], None
        if any(term.view.value == stage.value for term in stage.terms):
            raise _DoesNotFit
        return stage

    def _fill(self, stage: Stage, value: int, opens: bool) -> None:
        """Adds a value to what a stage sums up; of a long sum, the last summand to all others."""
        step, bias = self.steps[value - 1] if value > 0 else None, stage.bias
        try:
            self._add(stage, value, opens)
        except _DoesNotFit:
            if step is None or step.op != "add" or not opens:
                raise
            others, last = step.inputs
            stage.terms, stage.bias, stage.other = [], bias, View(others)
            self._add(stage, last, self._is_inner(last))

    def _add(self, stage: Stage, value: int, opens: bool, depth: int = 0) -> None:
        """Adds a value to what a stage sums up; or what that one consists of, if it opens it."""
        step = self.steps[value - 1] if value > 0 else None
        if depth > MOST_DEPTH:
            raise _DoesNotFit
        if opens and step is not None:
            if step.op == "add":
                for each in step.inputs:
                    self._add(stage, each, self._is_inner(each), depth + 1)
                return
            if step.op == "affine" and "factor" not in step.tensors:
                stage.bias = _sum(stage.bias, step.tensors["bias"])
                (each,) = step.inputs
                self._add(stage, each, self._is_inner(each), depth + 1)
                return
            term = self._term(step)
            if term is not None and len(stage.terms) < MOST_TERMS:
                stage.bias = _sum(stage.bias, step.tensors.get("bias"))
                stage.terms.append(term)
                return
        if stage.other is None:
            stage.other = View(value)
        elif len(stage.terms) < MOST_TERMS:
            stage.terms.append(Term(View(value)))
        else:
            raise _DoesNotFit

    def _term(self, step: Step) -> Term | None:
        if step.op == "linear":
            return self._product(step)
        return self._sum_over_edges(step) if step.op in ("aggregate", "attend") else None

    def _product(self, step: Step) -> Term | None:
        if step.attrs["rescale_bias"] or step.attrs["bits"] not in (None, 1.58):
            return None
        (read,) = step.inputs
        how, source = self._source(read)
        if how is None and step.attrs["bits"] is not None:
            return None
        before = self.steps[source - 1] if source > 0 else None
        hold = INT8 if step.attrs["bits"] is not None else NUMBERS
        if (
            before is not None
            and before.op == "aggregate"
            and self._is_inner(source)
            and self._is_inner(read)
            and (how is None) == (hold == NUMBERS)
        ):
            return Term(self._gathered(before), before, hold, how, step)
        form = SPARSE if self.sparse and source == 0 else NUMBERS
        if how is None:
            return Term(View(read, form), hold=NUMBERS, weight=step)
        alone = form == SPARSE or len(self.readers[read]) == 1
        if alone and source == 0 and hold == INT8:
            return Term(View(source, form), hold=INT8, quantize=how, weight=step)
        return Term(View(source, INT8, how), weight=step)

    def _sum_over_edges(self, step: Step) -> Term | None:
        if step.attrs.get("heads", 1) > MOST_HEADS:
            return None
        (read,) = step.inputs
        before = self.steps[read - 1] if read > 0 else None
        attend = self.steps.index(step) if step.op == "attend" else None
        if before is not None and before.op == "linear" and self._is_inner(read):
            swapped = self._swapped(step, before, attend)
            if swapped is not None:
                return swapped
        return Term(self._gathered(step, attend), step)

    def _swapped(self, step: Step, linear: Step, attend: int | None) -> Term | None:
        """The sum before the product, if that is exact enough and moves fewer bytes."""
        if linear.attrs["rescale_bias"] or "bias" in linear.tensors:
            return None
        if step.attrs.get("reduce", "sum") != "sum" or step.attrs.get("heads", 1) != 1:
            return None
        n, k = linear.tensors["weight"].shape
        how, source = self._source(linear.inputs[0])
        if linear.attrs["bits"] is None and how is None:
            if k >= n or attend is not None:
                return None
            return Term(View(linear.inputs[0]), step, weight=linear)
        if self.exact or linear.attrs["bits"] != 1.58 or how is None:
            return None
        # Sums of an input are held in 16 bits, and multiplied twice; where that saves few bytes,
        # the product comes first.
        size = n if attend is not None else 2 * n
        if (_lines(k), k) >= (_lines(size), n):
            return None
        view = View(source, INT8, how, attend, _fold(step))
        return Term(view, step, hold=INT16, weight=linear)

    def _gathered(self, step: Step, attend: int | None = None) -> View:
        """What is read over edges."""
        (read,) = step.inputs
        how, source = self._source(read)
        if how is not None:
            return View(source, INT8, how, attend, _fold(step))
        if self.exact or read == 0 or not self._is_ternary(read):
            return View(read, NUMBERS, None, attend)
        return View(read, INT16, None, attend, _fold(step))

    def _is_ternary(self, value: int) -> bool:
        """Whether integers have a part in a value: one in 32 bits is not rounded."""
        step = self.steps[value - 1]
        return step.op == "linear" and step.attrs["bits"] is not None

    def _source(self, value: int) -> tuple[tuple[int, bool, float] | None, int]:
        """How a value is quantized, and from which one; itself, if it is not."""
        step = self.steps[value - 1] if value > 0 else None
        if step is None or step.op != "quantize":
            return None, value
        return (step.attrs["bits"], step.attrs["full_range"], step.attrs["eps"]), step.inputs[0]

    def _is_inner(self, value: int) -> bool:
        """Whether one step alone reads a value."""
        return value > 0 and len(self.readers[value]) == 1


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _fold(step: Step) -> Edges | None:
    """The edges of a sum whose weights, unless some are given, are products of two numbers, one of
    each node."""
    return step.edges if step.edges is not None and step.edges.norm == "gcn" else None


def _lines(size: int) -> int:
    return ceil(size / LINE)


def _segments(
    items: Sequence[Stage | Call], output: int, sparse: bool, nodes: Sequence[str]
) -> Iterator[Segment | Call]:
    runs: list[list[Stage] | Call] = []
    for item in items:
        if isinstance(item, Call):
            runs.append(item)
        elif runs and isinstance(runs[-1], list):
            runs[-1].append(item)
        else:
            runs.append([item])
    for place, run in enumerate(runs):
        if isinstance(run, Call):
            yield run
        else:
            rest = [[each] if isinstance(each, Call) else each for each in runs[place + 1 :]]
            later = {value for items in rest for item in items for value in item.reads}
            yield _segment(run, later | {output}, sparse, nodes)


def _segment(stages: list[Stage], later: set[int], sparse: bool, nodes: Sequence[str]) -> Segment:
    makers = {stage.value: stage for stage in stages}
    given: list[int] = []
    ordered: list[Stage] = []
    views: set[View] = set()
    for stage in stages:
        for view, _ in stage.views():
            maker = makers.get(view.value)
            if maker is None and view.value not in given:
                given.append(view.value)
            given_form = SPARSE if sparse and view.value == 0 else NUMBERS
            if view in views or (maker is None and view == View(view.value, given_form)):
                continue
            views.add(view)
            if maker is not None and _has_room(maker, view):
                maker.makes.append(view)
            else:
                # A stage of its own for what the maker has no room for, or is a caller's.
                if maker is not None and View(view.value) not in maker.makes:
                    maker.makes.append(View(view.value))
                form = given_form if maker is None else NUMBERS
                ordered.append(Stage(view.value, [Term(View(view.value, form))], makes=[view]))
        ordered.append(stage)
    wanted = [stage.value for stage in stages if stage.value in later]
    return Segment(list(_passes(ordered, nodes)), given, wanted)


def _has_room(stage: Stage, view: View) -> bool:
    """Whether a stage can write a view too: it writes numbers and one other form."""
    if view.form == NUMBERS and view.attend is None:
        return True
    return all(other.form == NUMBERS and other.attend is None for other in stage.makes)


def _passes(stages: Sequence[Stage], nodes: Sequence[str]) -> Iterator[list[Stage]]:
    """Stages that can take place block by block: of nodes of one type, and none sums over edges
    what the same pass makes."""
    current: list[Stage] = []
    made: set[int] = set()
    for stage in stages:
        meets = any(view.value in made for view, over_edges in stage.views() if over_edges)
        other = bool(current) and nodes[stage.value] != nodes[current[-1].value]
        if current and (meets or other or len(current) == MOST_STAGES):
            yield current
            current, made = [], set()
        current.append(stage)
        made.add(stage.value)
    if current:
        yield current


def attention_vectors(step: Step, weight: Step | None) -> Tensor:
    r"""Returns two vectors, of sources and of targets, whose inner products with a row, head by
    head of its channels, are its scores.

    Args:
        step (Step): The attention.
        weight (Step, optional): The linear layer that has not taken place in these rows, of an
            attention of one head. (default: :obj:`None`)
    """
    vectors = torch.stack([step.tensors[name].flatten() for name in ("att_src", "att_dst")])
    if weight is not None:
        scaled = weight.tensors["weight"].double() * weight.tensors["scale"].double().view(-1, 1)
        vectors = (vectors.double() @ scaled).float()
    return vectors.contiguous()
