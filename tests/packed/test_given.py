"""What may be given to packed models: tensors of every kind and type, places of outputs."""

import mmap

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_geometric import EdgeIndex

from bitgnn.kernels.plain import plain
from bitgnn.nn import BitGAT, BitGCN, BitGCNConv, BitGraphSAGE, BitLinear, BitMLP
from bitgnn.packed import pack, prepare

NODES = 30


class Named(torch.Tensor):
    """A subclass that is a tensor like any other."""


@pytest.fixture
def graph():
    torch.manual_seed(12)
    return torch.randn(NODES, 8), torch.randint(NODES, (2, 90))


@pytest.fixture
def packed():
    torch.manual_seed(12)
    return pack(BitGCN(8, 16, 2, 4).eval())


def numbers_of_imaginary_parts():
    x = torch.randn(NODES, 8, dtype=torch.complex64).conj().imag
    assert x.is_neg()  # Its memory holds the negatives.
    return x, x.resolve_neg()


def test_subclasses_are_unwrapped(packed, graph):
    x, edges = graph
    weight = torch.rand(edges.size(1))
    expected = packed(x, edges, weight)
    ends = EdgeIndex(edges, sparse_size=(NODES, NODES))
    for make in (nn.Parameter, lambda x: x.as_subclass(Named)):
        assert torch.equal(packed(make(x), ends, make(weight)), expected)
        graph = prepare(ends, edge_weight=make(weight))
        assert torch.equal(
            packed(make(x), graph, out=make(x.new_empty(NODES, 4)).detach()), expected
        )
    assert prepare(EdgeIndex(edges % 5, sparse_size=(NODES, NODES))).num_nodes == NODES
    found, right = numbers_of_imaginary_parts()
    assert torch.equal(packed(found, edges), packed(right, edges))


def fake():
    with FakeTensorMode():
        return torch.ones(NODES, 8)


def freed():
    x = torch.ones(NODES, 8)
    x.untyped_storage().resize_(0)
    return x


UNREADABLE = {
    "fake": (fake, TypeError),
    "meta": (lambda: torch.ones(NODES, 8, device="meta"), ValueError),
    "zeros without memory": (lambda: torch._efficientzerotensor(NODES, 8), TypeError),
    "freed": (freed, TypeError),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(8)] * NODES), TypeError),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_has_no_memory_is_refused(packed, graph, name):
    make, error = UNREADABLE[name]
    edges = graph[1]
    with pytest.raises(error, match="^'x' "):
        packed(make(), edges)
    with pytest.raises(error, match="^'edge_weight' "):
        prepare(edges, NODES, make())
    with pytest.raises(error, match="^'name' "):
        plain(make(), "name")


def test_transformed_tensors_are_refused(packed, graph):
    x, edges = graph
    with pytest.raises(
        TypeError, match="'x' must be a plain tensor .got a transformation of torch"
    ):
        torch.func.vmap(lambda x: packed(x, edges))(x.unsqueeze(0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "build",
    [
        lambda: BitLinear(8, 4),
        lambda: BitGCN(8, 16, 2, 4, norm="batch_norm"),
        lambda: BitGraphSAGE(8, 16, 2, 4, norm="layer_norm"),
        lambda: BitGAT(8, 16, 2, 4, heads=2),
        lambda: BitMLP([8, 16, 4], quant=None),
    ],
)
def test_models_of_every_type(graph, build, dtype):
    x, edges = graph
    torch.manual_seed(1)
    model = build().eval().to(dtype)
    inputs = (x,) if isinstance(model, (BitLinear, BitMLP)) else (x, edges)
    with torch.no_grad():
        expected = model(x.to(dtype), *inputs[1:]).float()
    packed = pack(model)
    for step in packed.program.steps:
        assert all(t.dtype in (torch.float32, torch.int8) for t in step.tensors.values())
    error = (packed(*inputs, exact=True) - expected).abs().max() / expected.abs().max()
    assert error < (0.03 if dtype == torch.float64 else 0.1)


def test_calls_do_not_depend_on_the_default_dtype(graph, monkeypatch):
    x, edges = graph
    weight, before = torch.rand(edges.size(1)), torch.get_default_dtype()
    models = [pack(build(8, 16, 2, 4).eval()) for build in (BitGCN, BitGraphSAGE, BitGAT)]
    large = torch.randn(70_000, 8)

    def outputs():
        for model in models:
            yield model(x, edges)
            yield model(x.relu().to_sparse_csr(), edges, exact=True)
            yield model(large, edges)
        yield models[0](x, prepare(edges, NODES, weight))
        with monkeypatch.context() as patch:
            patch.setattr("bitgnn.packed.native.applies", lambda x: False)
            yield models[0](x, edges, weight)

    expected = list(outputs())
    try:
        torch.set_default_dtype(torch.float64)
        found = list(outputs())
        doubles = pack(BitGCN(8, 16, 2, 4).eval())(x, edges)
    finally:
        torch.set_default_dtype(before)
    assert doubles.dtype == torch.float32 and doubles.abs().max() < 1e3
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32 and torch.equal(a, b)


def test_training_on_does_not_change_what_was_packed(graph):
    x, edges = graph
    model = BitGCN(8, 16, 2, 4, norm="batch_norm").eval()
    packed = pack(model)
    expected = pack(model)(x, edges)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(packed(x, edges), expected)


def mapped(path, mode, size, dtype=np.float32):
    return torch.from_numpy(np.memmap(path, dtype, mode, shape=size))


@pytest.fixture
def file(tmp_path):
    np.arange(NODES * 20, dtype=np.float32).tofile(tmp_path / "numbers")
    return tmp_path / "numbers"


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("native", [True, False])
def test_read_only_memory_is_no_place_for_an_output(file, packed, graph, native, monkeypatch):
    if not native:
        monkeypatch.setattr("bitgnn.packed.native.applies", lambda x: False)
    x, edges = graph
    before = file.read_bytes()
    out = mapped(file, "r", (NODES, 4))
    for _ in range(2):
        with pytest.raises(ValueError, match="'out' cannot be written: its memory is read-only"):
            packed(x, edges, out=out)
    # Features, edges and weights may be mapped so.
    same = packed(mapped(file, "r", (NODES, 8)), edges)
    assert torch.equal(same, packed(mapped(file, "c", (NODES, 8)), edges))
    assert file.read_bytes() == before


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_an_output_shares_no_memory_with_inputs(file, packed, graph):
    x, edges = graph
    both = torch.randn(NODES * 20)
    features, edge_weight = both[: NODES * 8].view(NODES, 8), torch.rand(512)
    inside, beside = both[100:], both[NODES * 8 :]

    def place(memory):
        return memory[: NODES * 4].view(NODES, 4)

    match = "'out' shares memory with an input"
    with pytest.raises(ValueError, match=match):
        packed(features, edges, out=place(inside))
    few = edges[:, :5]
    with pytest.raises(ValueError, match=match):
        packed(x, few, edge_weight[50:55], out=place(edge_weight))
    wide = torch.zeros(2, 90, dtype=torch.long)
    with pytest.raises(ValueError, match=match):
        packed(x, wide, out=place(wide.view(torch.float32).flatten()))
    with pytest.raises(ValueError, match=match):
        packed(features, edges, out=place(both))
    sparse = features.to_sparse_csr()
    with pytest.raises(ValueError, match=match):
        packed(sparse, edges, out=place(sparse.values()))
    expected = packed(features, edges)
    assert torch.equal(packed(features, edges, out=place(beside)), expected)
    # What is prepared is a copy.
    prepared = prepare(wide, NODES)
    packed(x, prepared, out=place(wide.view(torch.float32).flatten()))


@pytest.mark.skipif(not hasattr(mmap, "MAP_SHARED"), reason="There are no shared mappings")
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_an_output_shares_no_file_with_inputs(file, packed, graph):
    _, edges = graph
    size = NODES * 20
    for mode in ("r", "r+", "c"):
        x = mapped(file, mode, (NODES, 8))
        # Another mapping of the same bytes.
        out = torch.from_file(str(file), shared=True, size=size)[100:]
        with pytest.raises(ValueError, match="'out' shares memory with an input"):
            packed(x, edges, out=out[: NODES * 4].view(NODES, 4))
    beside = torch.from_file(str(file), shared=True, size=size)[-NODES * 4 :].view(NODES, 4)
    expected = packed(x, edges)
    assert torch.equal(packed(x, edges, out=beside), expected)


def test_what_code_around_models_calls(packed, graph):
    assert packed.eval() is packed.cpu() is packed.to("cpu") is packed.train(False) is packed
    assert packed.to(torch.float32) is packed.to(torch.ones(1)) is packed
    assert packed.training is False and packed.device == torch.device("cpu")
    with pytest.raises(ValueError, match="has no weights to train: train the model that it was"):
        packed.train()
    with pytest.raises(ValueError, match="runs on the CPU only .got 'cuda:0'"):
        packed.to("cuda:0")
    with pytest.raises(ValueError, match="returns torch.float32 .got torch.float16"):
        packed.to(torch.float16)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo"])
@pytest.mark.parametrize("wrong", [-1, 8, 2**40])
@pytest.mark.parametrize("as_edges", [False, True])
def test_indices_of_sparse_matrices_are_checked(layout, wrong, as_edges):
    x = torch.eye(8)
    good = getattr(x, f"to_sparse_{layout}")()
    parts = {
        "csr": lambda: (good.crow_indices().clone(), good.col_indices().clone()),
        "csc": lambda: (good.ccol_indices().clone(), good.row_indices().clone()),
        "coo": lambda: good.indices().clone().unbind(),
    }[layout]
    make = {
        "csr": torch.sparse_csr_tensor,
        "csc": torch.sparse_csc_tensor,
        "coo": lambda row, col, *rest, **kw: torch.sparse_coo_tensor(
            torch.stack([row, col]), *rest, **kw
        ),
    }[layout]
    packed, edges = pack(BitGCNConv(8, 3)), torch.tensor([[0], [1]])
    for part in (0, 1):
        for place in (0, 3, -1):
            indices = parts()
            indices[part][place] = wrong
            if torch.equal(indices[part], parts()[part]):
                continue  # The last row starts at 8.
            matrix = make(*indices, torch.ones(8), (8, 8), check_invariants=False)
            name = "edge_index" if as_edges else "x"
            with pytest.raises(ValueError, match=f"'{name}' is a (sparse )?matrix of shape .8, 8."):
                packed(x, matrix) if as_edges else packed(matrix, edges)
            if as_edges:
                with pytest.raises(ValueError, match="'edge_index' is a (sparse )?matrix of shape"):
                    prepare(matrix, 8)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo"])
@pytest.mark.parametrize("part", ["indices", "values"])
@pytest.mark.parametrize("size", [0, 8])
def test_parts_of_sparse_matrices_lie_within_their_storages(layout, part, size):
    packed, x, edges = pack(BitGCNConv(8, 3)), torch.eye(8), torch.tensor([[0], [1]])
    indices = {"csr": "col_indices", "csc": "row_indices", "coo": "indices"}[layout]
    matrix = getattr(x, f"to_sparse_{layout}")()
    getattr(matrix, indices if part == "indices" else "values")().untyped_storage().resize_(size)
    for name, call in {
        "x": lambda: packed(matrix, edges),
        "edge_index": lambda: packed(x, matrix),
    }.items():
        with pytest.raises(ValueError, match=f"'{name}' reaches beyond its storage, which was"):
            call()
    with pytest.raises(ValueError, match="'edge_index' reaches beyond its storage, which was"):
        prepare(matrix, 8)
