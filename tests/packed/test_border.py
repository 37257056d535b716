"""What the native library refuses: sizes that do not fit, whoever hands them over. Under a
sanitizer (`make sanitize`), this also shows that nothing was read or written before."""

import pytest
import torch

from bitgnn.kernels import native
from bitgnn.kernels.native_products import (
    GIVEN,
    INT8,
    INT16,
    NUMBERS,
    OWN,
    SPARSE,
    WANTED,
    pack_codes,
    pack_numbers,
)
from bitgnn.packed.plan import ACTS, MOST_HEADS, MOST_STAGES

pytestmark = pytest.mark.skipif(not native.enabled(), reason="There are no native kernels")

N, K, ROWS = 20, 30, 7


class Layer:
    """The smallest program: a ternary layer, and what may be changed in it."""

    def __init__(self):
        self.library = native.library()
        self.engine = self.library.Engine()
        self.term, self.stage = self.library.Term(), self.library.Stage()
        self.term.n, self.term.k = N, K
        self.term.value = self.engine.add_value(NUMBERS, K, GIVEN, 0)
        self.term.hold, self.term.high, self.term.top, self.term.eps = INT8, 127.0, 127.0, 1e-8
        self.term.codes, self.term.scale = pack_codes(torch.ones(N, K)), torch.ones(N)
        self.stage.width = N
        self.stage.numbers = self.engine.add_value(NUMBERS, N, WANTED, 0)

    def add(self):
        self.stage.terms = [self.term]
        self.engine.add_pass([self.stage], 0)
        return self.engine

    def run(self, x, out, edges=(), rows=(ROWS,), threads=1):
        given, wanted = [native.span(x)], [native.span(out)]
        self.engine.run(given, list(edges), wanted, list(rows), threads)


def edges(rows=ROWS, sources=ROWS, noded=False):
    """A node's edge to itself, for each node."""
    crow, col = torch.arange(rows + 1), torch.arange(rows, dtype=torch.int32)
    rest = torch.cat([col, torch.ones(rows * noded).view(torch.int32), torch.zeros(2).int()])
    memory = torch.cat([crow, rest[: rest.numel() // 2 * 2].view(torch.int64)])
    span = native.span(memory)
    made = native.library().Edges(span, rows, rows, False, noded, 1, sources)
    return made, memory


def test_what_fits_runs():
    layer = Layer()
    layer.add()
    x, out = torch.ones(ROWS, K), torch.empty(ROWS, N)
    layer.run(x, out)
    torch.testing.assert_close(out, torch.full((ROWS, N), float(K)))


def test_arrays_live_as_long_as_the_engine():
    layer = Layer()
    layer.stage.bias = torch.full((N,), 5.0)  # Nobody else keeps it.
    layer.add()
    noise = [torch.full((N,), 9.0) for _ in range(1000)]
    out = torch.empty(ROWS, N)
    layer.run(torch.zeros(ROWS, K), out)
    assert len(noise) and torch.equal(out, torch.full((ROWS, N), 5.0))


def set_term(name, value):
    return lambda layer: setattr(layer.term, name, value)


def set_stage(name, value):
    return lambda layer: setattr(layer.stage, name, value)


def sums(**changes):
    """Makes the layer one of a sum over edges."""

    def change(layer):
        layer.term.aggregates, layer.term.edges = True, 0
        for name, value in changes.items():
            setattr(layer.term, name, value)

    return change


def add_value(name, form, width, place, nodes=0):
    """Adds a value, and has the stage or its term use it."""

    def change(layer):
        owner = layer.term if name in ("value",) else layer.stage
        setattr(owner, name, layer.engine.add_value(form, width, place, nodes))

    return change


BAD_PASSES = {
    "codes are too short": set_term("codes", torch.zeros(64, dtype=torch.uint8)),
    "codes are of another type": set_term("codes", torch.zeros(2 * 2 * 64)),
    "no weight at all": set_term("codes", torch.zeros(0, dtype=torch.uint8)),
    "two weights": set_term("numbers", pack_numbers(torch.ones(N, K))),
    "a scale is too short": set_term("scale", torch.ones(N - 1)),
    "a scale of 64 bits": set_term("scale", torch.ones(N, dtype=torch.float64)),
    "a scale of 16 bits": set_term("scale", torch.ones(2 * N, dtype=torch.float16)),
    "a scale of integers": set_term("scale", torch.ones(N, dtype=torch.int32)),
    "other rows of the weight": set_term("n", N + 1),
    "a negative number of rows": set_term("n", -1),
    "other columns of the weight": set_term("k", K + 1),
    "a huge weight": set_term("k", 2**62),
    "a value that is not there": set_term("value", 9),
    "a negative value": set_term("value", -7),
    "nothing is handed on": set_term("value", -1),
    "a value before it is made": add_value("value", NUMBERS, K, OWN),
    "a value of other nodes": add_value("value", NUMBERS, K, GIVEN, 1),
    "a sparse value": add_value("value", SPARSE, K, GIVEN),
    "rows that are no integers": set_term("hold", NUMBERS),
    "a range of no integers": set_term("high", 0.0),
    "a range of more than 8 bits": set_term("top", 200.0),
    "a range that is no number": set_term("top", float("nan")),
    "a bias is too short": set_stage("bias", torch.ones(N - 1)),
    "a bias is too long": set_stage("bias", torch.ones(100_000)),
    "a bias of 16 bits": set_stage("bias", torch.ones(N, dtype=torch.float16)),
    "a factor is too short": set_stage("factor", torch.ones(1)),
    "another width": set_stage("width", N + 1),
    "a huge width": set_stage("width", 2**40),
    "no such activation function": set_stage("act", 1 + max(ACTS.values())),
    "an output of another width": add_value("numbers", NUMBERS, N + 1, WANTED),
    "an output over the input": set_stage("numbers", 0),
    "integers in place of numbers": add_value("numbers", INT8, N, OWN),
    "numbers in place of integers": add_value("integers", NUMBERS, N, OWN),
    "integers without a range": add_value("integers", INT8, N, OWN),
    "another value of another width": add_value("other", NUMBERS, N + 1, GIVEN),
    "edges without a number": sums(edges=-1),
    "no such reduction": sums(reduce=3),
    "more heads than there may be": sums(heads=MOST_HEADS + 1),
    "heads that do not divide columns": sums(heads=7),
    "negative heads": sums(heads=-1),
    "heads without scores": sums(heads=2),
    "heads without edges": set_term("heads", 2),
    "scores without vectors": set_stage("attends", 2),
    "scores of too many heads": set_stage("attends", N + 1),
}


@pytest.mark.parametrize("bad", BAD_PASSES)
def test_passes_that_do_not_fit(bad):
    layer = Layer()
    BAD_PASSES[bad](layer)
    with pytest.raises(ValueError):
        layer.add()


def test_numbers_of_heads_and_stages_are_those_of_the_library():
    assert native.library().most_heads == MOST_HEADS
    layer = Layer()
    layer.stage.terms = [layer.term]
    for count in (0, MOST_STAGES + 1):
        with pytest.raises(ValueError, match=f"1 to {MOST_STAGES} stages"):
            layer.engine.add_pass([layer.stage] * count, 0)


@pytest.mark.parametrize(
    "value",
    [
        (NUMBERS, 0, OWN, 0),
        (NUMBERS, -1, OWN, 0),
        (NUMBERS, 2**62, OWN, 0),
        (NUMBERS, 4, OWN, -1),
        (NUMBERS, 4, 3, 0),
        (4, 4, OWN, 0),
        (SPARSE, 4, OWN, 0),
        (INT8, 4, GIVEN, 0),
        (INT16, 4, WANTED, 0),
    ],
)
def test_values_that_cannot_be(value):
    with pytest.raises(ValueError, match="bitgnn engine"):
        native.library().Engine().add_value(*value)


BAD_RUNS = {
    "features are too short": {"x": torch.ones(ROWS - 1, K)},
    "features of 64 bits": {"x": torch.ones(ROWS, K, dtype=torch.float64)},
    "features of 16 bits": {"x": torch.ones(ROWS, K, dtype=torch.float16)},
    "an output is too short": {"out": torch.ones(ROWS, N - 1)},
    "more rows": {"rows": (ROWS + 1,)},
    "negative rows": {"rows": (-1,)},
    "too many rows": {"rows": (2**40,)},
    "no rows": {"rows": ()},
    "no threads": {"threads": 0},
}


@pytest.mark.parametrize("bad", BAD_RUNS)
def test_runs_that_do_not_fit(bad):
    layer = Layer()
    layer.add()
    call = {"x": torch.ones(ROWS, K), "out": torch.empty(ROWS, N)} | BAD_RUNS[bad]
    with pytest.raises(ValueError, match="bitgnn engine"):
        layer.run(**call)


def test_no_null_pointers():
    layer, x, out = Layer(), torch.ones(ROWS, K), torch.ones(ROWS, N)
    layer.add()
    with pytest.raises(ValueError, match="no address"):
        layer.engine.run([(0, 4 * ROWS * K)], [], [native.span(out)], [ROWS], 1)
    for given in ([], [native.span(x)] * 2):
        with pytest.raises(ValueError, match=r"an array is missing|too many arrays"):
            layer.engine.run(given, [], [native.span(out)], [ROWS], 1)


def test_edges_that_do_not_fit():
    layer = Layer()
    sums()(layer)
    layer.add()
    x, out = torch.ones(ROWS, K), torch.empty(ROWS, N)
    good, kept = edges()
    layer.run(x, out, [good])
    assert torch.equal(out, torch.full((ROWS, N), float(K))) and kept.numel()
    (fewer, kept), (others, kept_too) = edges(rows=ROWS - 1), edges(sources=ROWS + 1)
    for bad in ([], [fewer], [others]):
        with pytest.raises(ValueError, match="bitgnn engine: edges"):
            layer.run(x, out, bad)
    assert kept.numel() and kept_too.numel()  # The library keeps no array of edges.
    made = native.library().Edges
    for crow in ([0, 2, 1], [1, 2, 3], [0, 1, 9], [0, 1, 3]):
        memory = torch.tensor([*crow, 0])
        with pytest.raises(ValueError, match="edges are no edges"):
            made(native.span(memory), 2, 2, False, False, 2, 2)
    memory = torch.tensor([0, 1, 2, 0])
    made(native.span(memory), 2, 2, False, False, 2, 2)
    for targets, room, weighted in ((3, 2, False), (2, 3, False), (2, 2, True), (-1, 2, False)):
        with pytest.raises(ValueError, match="too little memory|too many nodes"):
            made(native.span(memory), targets, room, weighted, False, 2, 2)
    with pytest.raises(ValueError, match="has no address"):
        made((0, memory.nbytes), 2, 2, False, False, 2, 2)


def test_sorting_checks_sizes():
    library, ends = native.library(), torch.tensor([0, 1, 1])
    memory = torch.empty(3 + 2, dtype=torch.int64)
    how = 2, 2, False, 0, 1.0

    def sort(source=ends, target=ends, weight=None, count=3, memory=memory, room=3, weighted=False):
        spans = map(native.span, (source, target, weight))
        layout = native.span(memory), room, weighted, False
        return library.sort_edges(*spans, count, *how, *layout)

    assert sort() == 2
    for bad in (
        {"count": 4}, {"source": ends[:2]}, {"target": ends[:2]}, {"weight": torch.ones(2)},
        {"memory": memory[:4]}, {"room": 5}, {"weighted": True}, {"room": -1},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="needed|too little memory|too many nodes"):
            sort(**bad)


def test_sparse_features_that_do_not_fit():
    def call(crow, col, values, rows=2):
        layer = Layer()
        layer.term.codes = torch.zeros(0, dtype=torch.uint8)
        engine, term = native.library().Engine(), native.library().Term()
        term.n, term.k, term.value = N, K, engine.add_value(SPARSE, K, GIVEN, 0)
        term.by_row = torch.ones(K, 64)
        stage = layer.stage
        stage.numbers = engine.add_value(NUMBERS, N, WANTED, 0)
        stage.terms = [term]
        engine.add_pass([stage], 0)
        out = torch.empty(rows, N)
        given = [torch.tensor(each) for each in (crow, col, values)]
        engine.run([*map(native.span, given)], [], [native.span(out)], [rows], 1)
        return out

    with pytest.raises(ValueError, match="bitgnn engine"):
        call([0, 1], [0], [1.0])
    for crow in ([0, 1, 3], [1, 1, 2], [0, 0, -1], [0, 1, 2**50]):
        with pytest.raises(ValueError, match="bitgnn engine"):
            call(crow, [0, 1], [1.0, 1.0])
    with pytest.raises(ValueError, match="bitgnn engine"):
        call([0, 1, 2], [0, 1], [1.0])


def kernel_calls():
    library, kept = native.library(), []
    f32 = library.f32

    def span(tensor):
        kept.append(tensor)  # as long as the calls below, which have its address
        return native.span(tensor)

    x, out = torch.ones(4, 5), torch.empty(4, 5)
    short, one, crow = torch.ones(4, 4), torch.ones(4, 1), torch.arange(5)
    col, null = torch.arange(4), (0, 0)
    good = [span(crow), span(col), 4, 4, 1, 5, *map(span, (x, one, one)), 0.2, null, 0.0]

    def attention(place, value):
        given = [*good, span(out), span(one), span(one.clone()), 1]
        return lambda: f32.attention(*given[:place], value, *given[place + 1 :]) and kept

    return {
        "rows to quantize": lambda: f32.quantize_rows(
            span(short), null, 4, 5, 127.0, 127.0, 1e-8, span(out), span(one), 1
        ),
        "integers": lambda: f32.quantize_rows(
            span(x), null, 4, 5, 127.0, 127.0, 1e-8, span(short), span(one), 1
        ),
        "offsets that fall": lambda: f32.quantize_rows(
            span(x), span(torch.tensor([0, 9, 5, 20])), 3, 0, 127.0, 127.0, 1e-8, span(out),
            span(torch.ones(3)), 1,
        ),
        "numbers to drop": lambda: f32.dropout(span(x), 0.5, 1, span(short), 1),
        "numbers of 64 bits": lambda: library.f64.dropout(span(x), 0.5, 1, span(short), 1),
        "a null pointer": lambda: library.uniform((0, 80), 1, 1),
        "a weight to pack": lambda: library.pack_numbers(span(x), 4, 6, span(out)),
        "codes": lambda: library.pack_codes(
            span(torch.ones(4, 5, dtype=torch.int8)), 4, 5, span(out)
        ),
        "a huge weight": lambda: library.pack_codes(span(x), 2**40, 2**40, span(out)),
        "room for a gradient": lambda: library.weight_gradient(
            span(x), span(x), 4, 5, 5, 0.0, 0.0, 0.0, span(out), span(torch.ones(5, 5)), 1
        ),
        "rows of attention": attention(0, span(torch.tensor([0, 2, 1, 3, 4]))),
        "edges of attention": attention(1, span(torch.arange(3))),
        "more targets": attention(2, 5),
        "more sources": attention(3, 5),
        "more heads": attention(4, 2),
        "too many heads": attention(4, MOST_HEADS + 1),
        "more channels": attention(5, 6),
        "scores": attention(7, span(torch.ones(3))),
        "noise": attention(10, span(torch.ones(3))),
        "coefficients": attention(13, span(torch.ones(3))),
        "no threads": attention(15, 0),
    }  # fmt: skip


@pytest.mark.parametrize("name", kernel_calls() if native.enabled() else [])
def test_kernels_of_training_check_sizes(name):
    with pytest.raises(ValueError):
        kernel_calls()[name]()
