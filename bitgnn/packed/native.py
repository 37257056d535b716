r"""Packed models on the native engine (:obj:`csrc/engine.h`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.kernels import native as kernels
from bitgnn.kernels.native_products import (
    GIVEN,
    INT8,
    INT16,
    LINE,
    NUMBERS,
    OWN,
    SPARSE,
    WANTED,
    pack_codes,
    pack_numbers,
)
from bitgnn.packed import reference
from bitgnn.packed.graph import PreparedGraph, PreparedHeteroGraph
from bitgnn.packed.outputs import Outputs
from bitgnn.packed.plan import (
    ACTS,
    Call,
    Segment,
    Stage,
    Term,
    View,
    attention_vectors,
    plan,
)
from bitgnn.packed.program import Edges, Program, Step, types
from bitgnn.packed.validate import widths as infer_widths

Graph = PreparedGraph | PreparedHeteroGraph
REDUCTIONS = {"sum": 0, "mean": 1, "max": 2}
SIZES = {NUMBERS: 4, INT8: 1, INT16: 2}


def applies(x: Tensor) -> bool:
    """Whether native kernels take features."""
    numbers = x if x.layout == torch.strided else x.values()
    return kernels.applies(numbers) and numbers.dtype == torch.float32


class NativeProgram:
    r"""A program on the native engine. What that one cannot do, torch does in between.

    Args:
        program (Program): The program.
        width (int or dict): The number of features; of each type of nodes, if there are several.
        exact (bool, optional): If set to :obj:`True`, no number is rounded that the trained model
            does not round. (default: :obj:`False`)
        sparse (bool, optional): Whether the features are a sparse matrix (CSR).
            (default: :obj:`False`)

    Raises:
        ValueError: If the model takes another number of features.
    """

    def __init__(
        self,
        program: Program,
        width: int | Mapping[str, int],
        exact: bool = False,
        sparse: bool = False,
    ) -> None:
        self.program = program
        widths = infer_widths(program, width)
        self.width = widths[-1]
        self.items = [
            item if isinstance(item, Call) else _Engine(program, item, widths, exact, sparse)
            for item in plan(program, exact, sparse)
        ]

    def __call__(
        self, x: Tensor | dict[str, Tensor], graph: Graph | None, out: Tensor | None = None
    ) -> Any:
        """Returns the output, which is written to `out` if it is given."""
        values: dict[int, Any] = {}
        if isinstance(x, Tensor):
            values[0] = x if x.layout == torch.sparse_csr else x.contiguous()
            rows = {"": x.size(0)}
        else:
            for value, step in enumerate(self.program.steps, start=1):
                if step.op == "pick":
                    values[value] = x[step.attrs["nodes"]].contiguous()
            rows = {nodes: each.size(0) for nodes, each in x.items()}
        last = len(self.program.steps)
        places = {} if out is None else {last: out}
        for item in self.items:
            if isinstance(item, Call):
                values[item.value] = self._call(item, values, graph)
            else:
                item.run(values, graph, rows, places)
        return values[last] if out is None or values[last] is out else out.copy_(values[last])

    def _call(self, call: Call, values: dict[int, Any], graph: Graph | None) -> Any:
        read: list[Any] = []
        for value, source in zip(call.step.inputs, call.reads, strict=True):
            number = values[source]
            number = number if number.layout == torch.strided else number.to_dense()
            step = self.program.steps[value - 1] if value != source else None
            read.append(number if step is None else reference.one(step, graph, number))
        made = reference.one(call.step, graph, *read)
        return made.contiguous() if isinstance(made, Tensor) else made


class _Engine:
    """The native engine of a segment."""

    def __init__(
        self, program: Program, segment: Segment, widths: list[int], exact: bool, sparse: bool
    ) -> None:
        native = kernels.library()
        self.native, self.engine = native, native.Engine()
        self.program, self.segment, self.exact = program, segment, exact
        self.widths, self.nodes = widths, types(program.steps)
        self.types = sorted(set(self.nodes))
        self.edges: list[Edges] = []
        self.outputs = Outputs()
        self.codes: dict[int, Tensor] = {}  # of each weight; layers may share one
        self.views: dict[View, int] = {}
        self.scores: dict[int, int] = {}
        for value in segment.given:
            form = SPARSE if sparse and value == 0 else NUMBERS
            self.views[View(value, form)] = self._add_value(form, value, GIVEN)
        for value in segment.wanted:
            self.views[View(value)] = self._add_value(NUMBERS, value, WANTED)
        for stages in segment.passes:
            handed = {_handed(stages, place, segment) for place in range(len(stages))} - {None}
            made = [self._stage(stage, handed) for stage in stages]
            self.engine.add_pass(made, self.types.index(self.nodes[stages[0].value]))

    def run(
        self,
        values: dict[int, Any],
        graph: Graph | None,
        rows: Mapping[str, int],
        places: dict[int, Tensor],
    ) -> None:
        """Computes what the segment wants, of what it is given; some values have their place."""
        outputs = {
            value: places[value]
            if value in places
            else self.outputs.empty(rows[self.nodes[value]], self.widths[value])
            for value in self.segment.wanted
        }
        given = [span for value in self.segment.given for span in _spans(values[value])]
        edges = [] if graph is None else [graph.native(each) for each in self.edges]
        wanted = [kernels.span(output) for output in outputs.values()]
        counts = [rows.get(nodes, 0) for nodes in self.types]
        self.engine.run(given, edges, wanted, counts, torch.get_num_threads())
        values.update(outputs)

    def _add_value(self, form: int, value: int, place: int, width: int | None = None) -> int:
        width = self.widths[value] if width is None else width
        return self.engine.add_value(form, width, place, self.types.index(self.nodes[value]))

    def _stage(self, stage: Stage, handed: set[View | None]) -> Any:
        made = self.native.Stage()
        made.terms = [self._term(term, handed) for term in stage.terms]
        made.width = self.widths[stage.value]
        if stage.factor is not None:
            made.factor = stage.factor.expand(made.width).contiguous()
        if stage.bias is not None:
            made.bias = stage.bias
        if stage.act is not None:
            made.act = ACTS[stage.act.attrs["kind"]]
            made.slope = stage.act.attrs.get("alpha", stage.act.attrs.get("negative_slope", 0.0))
        if stage.other is not None:
            made.other = self.views[stage.other]
        if stage.value in self.segment.wanted:
            made.numbers = self.views[View(stage.value)]
        for view in stage.makes:
            self._make(made, view, view in handed)
        return made

    def _make(self, made: Any, view: View, handed: bool) -> None:
        if view.attend is not None:
            self._score(made, view)
        if view in self.views:
            return
        if handed:
            made.hands_on, made.form = True, view.form
        else:
            self.views[view] = self._add_value(view.form, view.value, OWN)
            if view.form == NUMBERS:
                made.numbers = self.views[view]
            else:
                made.integers = self.views[view]
        if view.quantize is not None:
            made.high, made.top, made.eps = _range(view.quantize)
        if view.fold is not None:
            made.node = self._place(view.fold)

    def _place(self, edges: Edges) -> int:
        if edges not in self.edges:
            self.edges.append(edges)
        return self.edges.index(edges)

    def _score(self, made: Any, view: View) -> None:
        assert view.attend is not None
        step = self.program.steps[view.attend]
        before = None
        if step.inputs[0] != view.value:  # The linear layer comes after the sum.
            before = self.program.steps[step.inputs[0] - 1]
        made.attends = step.attrs["heads"]
        made.vectors = attention_vectors(step, before)
        made.rounded = before is not None
        self.scores[view.attend] = self._add_value(NUMBERS, view.value, OWN, 2 * made.attends)
        made.scores = self.scores[view.attend]

    def _term(self, term: Term, handed: set[View | None]) -> Any:
        made = self.native.Term()
        if term.view not in handed:
            made.value = self.views[term.view]
        made.hold = term.hold
        if term.quantize is not None:
            made.high, made.top, made.eps = _range(term.quantize)
        if term.aggregate is not None:
            self._aggregate(made, term, term.aggregate)
        if term.weight is not None:
            self._weight(made, term.weight, term.view.form == SPARSE)
        return made

    def _aggregate(self, made: Any, term: Term, step: Step) -> None:
        assert step.edges is not None
        made.aggregates, made.edges = True, self._place(step.edges)
        made.exact = self.exact
        if step.op == "attend":
            assert term.view.attend is not None
            made.heads, made.slope = step.attrs["heads"], step.attrs["slope"]
            made.mean = not step.attrs["concat"]
            made.scores = self.scores[term.view.attend]
        else:
            made.reduce = REDUCTIONS[step.attrs["reduce"]]

    def _weight(self, made: Any, step: Step, sparse: bool) -> None:
        weight = step.tensors["weight"]
        n = weight.size(0)
        made.n, made.k = weight.shape
        ternary = step.attrs["bits"] is not None
        if ternary:
            made.scale = step.tensors["scale"].expand(n).contiguous()
        if sparse:
            made.by_row = F.pad(weight.t(), (0, -n % LINE)).contiguous()
            return
        if id(weight) not in self.codes:
            self.codes[id(weight)] = pack_codes(weight) if ternary else pack_numbers(weight)
        if ternary:
            made.codes = self.codes[id(weight)]
        else:
            made.numbers = self.codes[id(weight)]


def _spans(value: Tensor) -> list[tuple[int, int]]:
    """Where the engine finds a value, or the three parts of a sparse matrix."""
    if value.layout == torch.strided:
        return [kernels.span(value)]
    return [
        kernels.span(part) for part in (value.crow_indices(), value.col_indices(), value.values())
    ]


def _handed(stages: Sequence[Stage], place: int, segment: Segment) -> View | None:
    """The view that a stage hands on to the next of its pass, and nobody else reads."""
    stage = stages[place]
    if len(stage.makes) != 1 or stage.value in segment.wanted or place + 1 == len(stages):
        return None
    (view,) = stage.makes
    readers = [
        (reader, over_edges)
        for each in segment.passes
        for reader in each
        for read, over_edges in reader.views()
        if read == view
    ]
    if view.attend is not None or stages[place + 1].other == view:
        return None
    alone = all(reader is stages[place + 1] and not over for reader, over in readers)
    return view if alone else None


def _range(quantize: tuple[int, bool, float]) -> tuple[float, float, float]:
    bits, full_range, eps = quantize
    high = float(2 ** (bits - 1) - 1)
    return (high + 1, high, eps) if full_range else (high, high, eps)
