"""Indices of sparse matrices, which torch trusts, are checked before layers read them."""

import pytest
import torch

from bitgnn import pack
from bitgnn.kernels import native, with_self_loops
from bitgnn.kernels.attention import is_sound
from bitgnn.kernels.sparse import check_operand, check_sparse
from bitgnn.nn import (
    BitGAT,
    BitGATConv,
    BitGCN,
    BitGCNConv,
    BitGraphSAGE,
    BitLinear,
    BitSAGEConv,
    BitSGConv,
)

SIZE = 6
PARTS = {
    "csr": (torch.sparse_csr_tensor, lambda x: (x.crow_indices(), x.col_indices())),
    "csc": (torch.sparse_csc_tensor, lambda x: (x.ccol_indices(), x.row_indices())),
    "coo": (
        lambda row, col, *rest, **how: torch.sparse_coo_tensor(
            torch.stack([row, col]), *rest, **how
        ),
        lambda x: x.indices().unbind(),
    ),
}


def damaged(layout, part, place, value):
    """The identity, one of whose indices is another; :obj:`None` if it is that index."""
    make, parts_of = PARTS[layout]
    good = getattr(torch.eye(SIZE), f"to_sparse_{layout}")()
    parts = [each.clone() for each in parts_of(good)]
    if parts[part][place] == value:
        return None
    parts[part][place] = value
    return make(*parts, torch.ones(SIZE), (SIZE, SIZE), check_invariants=False)


DAMAGED = [
    (layout, part, place, value)
    for layout in PARTS
    for part in (0, 1)
    for place in (0, 2, -1)
    for value in (-(2**63), -1, SIZE, 2**63 - 1)
    if damaged(layout, part, place, value) is not None
]


@pytest.mark.parametrize("use_native", [True, False])
@pytest.mark.parametrize("layout", PARTS)
def test_every_wrong_index_is_refused(layout, use_native, monkeypatch):
    if not use_native:
        monkeypatch.setattr(native, "enabled", lambda: False)
    for case in DAMAGED:
        if case[0] == layout:
            with pytest.raises(ValueError, match="'x' is a (sparse )?matrix of shape .6, 6."):
                check_sparse(damaged(*case), "x")
    for shape in [(0, 0), (0, 3), (3, 0), (1, 1), (5, 9)]:
        for x in (torch.zeros(shape), torch.ones(shape)):
            check_sparse(getattr(x, f"to_sparse_{layout}")(), "x")


@pytest.mark.parametrize("indices", [[[1, 0], [0, 1]], [[1, 1], [2, 0]], [[1, 1], [2, 2]]])
def test_matrix_that_claims_to_be_coalesced_is_refused(indices):
    # torch would take its indices for sorted, such as when it makes CSR of it.
    x = torch.sparse_coo_tensor(indices, torch.ones(2), (SIZE, SIZE), is_coalesced=True)
    for call in (check_sparse, check_operand):
        with pytest.raises(ValueError, match="'x' claims to be coalesced, but its indices"):
            call(x, "x")
    check_sparse(torch.sparse_coo_tensor(indices, torch.ones(2), (SIZE, SIZE)), "x")


def test_a_matrix_of_sparse_rows_has_indices_of_rows_alone():
    x = torch.ones(5, 2).to_sparse(1)
    check_sparse(x, "x")
    with pytest.raises(ValueError, match="'x' is a matrix of shape .5, 2., but has indices from"):
        x = torch.sparse_coo_tensor([[5]], torch.ones(1, 2), (5, 2), check_invariants=False)
        check_sparse(x, "x")


def test_parts_of_other_sizes_are_refused():
    crow, col, values = torch.tensor([0, 1, 2]), torch.tensor([0, 1]), torch.ones(2)
    for parts in ((crow[:2], col, values), (crow, col[:1], values), (crow, col, values[:1])):
        x = torch.sparse_csr_tensor(*parts, (2, 2), check_invariants=False)
        with pytest.raises(ValueError, match="'x' is a sparse matrix of shape .2, 2."):
            check_sparse(x, "x")


def shrunk(layout, part, size):
    """The identity, one of whose parts (the last one: its values) has a storage of so
    many bytes."""
    x = getattr(torch.eye(SIZE), f"to_sparse_{layout}")()
    parts = [*PARTS[layout][1](x), x.values()]
    parts[part].untyped_storage().resize_(size)
    return x


SHRUNK = [(layout, part, size) for layout in PARTS for part in (0, 1, 2) for size in (0, 8)]
SMALLER = "reaches beyond its storage, which was made smaller: pass a plain tensor in CPU memory"


@pytest.mark.parametrize("use_native", [True, False])
@pytest.mark.parametrize("layout, part, size", SHRUNK)
def test_part_whose_storage_was_made_smaller_is_refused(
    layout, part, size, use_native, monkeypatch
):
    if not use_native:
        monkeypatch.setattr(native, "enabled", lambda: False)
    for check in (check_sparse, check_operand):
        with pytest.raises(ValueError, match=f"'x' {SMALLER}"):
            check(shrunk(layout, part, size), "x")


LAYERS = {
    "linear": lambda: BitLinear(SIZE, 3),
    "32-bit linear": lambda: BitLinear(SIZE, 3, quant=None),
    "gcn": lambda: BitGCN(SIZE, 4, 2, 3),
    "sage": lambda: BitGraphSAGE(SIZE, 4, 2, 3),
    "sage, max": lambda: BitSAGEConv(SIZE, 3, aggr="max"),
    "gat": lambda: BitGAT(SIZE, 4, 2, 3),
    "gat, no self-loops": lambda: BitGATConv(SIZE, 3, add_self_loops=False),
}


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:Converting sparse tensor")
@pytest.mark.parametrize("layout", ["csr", "coo"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_refuse_wrong_indices(layer, layout):
    torch.manual_seed(12)
    model, edges = LAYERS[layer](), torch.tensor([[0, 1], [1, 2]])
    for training in (True, False):
        model.train(training)
        for case in DAMAGED:
            if case[0] != layout:
                continue
            if layer != "gat" and "sage" not in layer:
                inputs = (damaged(*case),) if "linear" in layer else (damaged(*case), edges)
                with pytest.raises((ValueError, RuntimeError, IndexError)):
                    model(*inputs)
            if "linear" not in layer:
                with pytest.raises((ValueError, RuntimeError, IndexError)):
                    model(torch.eye(SIZE), damaged(*case))


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_refuse_wrong_indices_under_vmap(layer):
    torch.manual_seed(12)
    model, adj_t, x = LAYERS[layer]().eval(), torch.eye(SIZE).to_sparse_csr(), torch.ones(2, SIZE)
    given = (adj_t,) if "linear" in layer else (torch.eye(SIZE), adj_t)
    call = torch.func.vmap(lambda scale: model(*given).to_dense() * scale.sum())
    call(x)
    adj_t.col_indices().numpy()[3] = 10**9
    with pytest.raises(ValueError, match="its columns are from 0 to 1000000000"):
        call(x)


@pytest.mark.parametrize("layout", ["bsr", "bsc"])
def test_matrices_of_blocks(layout):
    make = getattr(torch.eye(SIZE), f"to_sparse_{layout}")
    x = make((2, 3))
    check_sparse(x, "x")
    (x.col_indices() if layout == "bsr" else x.row_indices())[1] = 9
    with pytest.raises(ValueError, match="'x' is a sparse matrix of shape ..*but its columns are"):
        check_sparse(x, "x")
    with pytest.raises(ValueError, match="'x' is a sparse matrix"):
        BitLinear(SIZE, 3, quant=None)(x)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layer", ["gcn", "sage", "sage, max", "gat, no self-loops"])
def test_a_matrix_that_is_a_parameter_is_one_like_any_other(layer):
    torch.manual_seed(12)
    model, x = LAYERS[layer]().eval(), torch.randn(SIZE, SIZE)
    adj_t = torch.eye(SIZE).to_sparse_csr()
    parameter = torch.nn.Parameter(adj_t, requires_grad=False)
    assert torch.equal(model(x, parameter), model(x, adj_t))
    assert torch.equal(pack(model)(x, parameter), pack(model)(x, adj_t))
    adj_t.col_indices().numpy()[3] = 10**9
    with pytest.raises(ValueError, match="its columns are from 0 to 1000000000"):
        model(x, parameter)


def test_indices_that_are_rewritten_unseen_are_refused():
    x, layer = torch.eye(SIZE).to_sparse_csr(), BitLinear(SIZE, 3)
    for _ in range(3):
        layer(x).sum().backward()
    x.col_indices().numpy()[0] = 9
    with pytest.raises(ValueError, match="its columns are from 1 to 9"):
        layer(x)
    with pytest.raises(ValueError, match="'x' is a sparse matrix of shape .6, 6. with 6 values"):
        check_operand(x, "x")


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:Converting sparse tensor")
@pytest.mark.parametrize("layout, part, size", SHRUNK)
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_refuse_storages_that_were_made_smaller(layer, layout, part, size):
    model, edges = LAYERS[layer](), torch.tensor([[0, 1], [1, 2]])
    x = shrunk(layout, part, size)
    if "linear" not in layer:
        with pytest.raises(ValueError, match=f"'edge_index' {SMALLER}"):
            model(torch.eye(SIZE), x)
    if "sage" not in layer:  # Which gathers rows of features, as PyG's does: dense ones.
        with pytest.raises(ValueError, match=f"'x' {SMALLER}"):
            model(*((x,) if "linear" in layer else (x, edges)))


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("layer", ["gcn", "sage", "gat", "gat, no self-loops"])
def test_storage_of_a_remembered_matrix_that_is_made_smaller_is_refused(layer, part):
    model, x, adj_t = LAYERS[layer](), torch.eye(SIZE), torch.eye(SIZE).to_sparse_csr()
    for _ in range(3):
        with torch.no_grad():  # A backward pass shows the indices to NumPy, which pins them.
            model(x, adj_t)
    parts = adj_t.crow_indices(), adj_t.col_indices(), adj_t.values()
    parts[part].untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=SMALLER):
        model(x, adj_t)


@pytest.mark.parametrize("remembers", [with_self_loops, is_sound])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_storage_that_was_made_smaller_is_not_compared_with_a_copy(remembers, part):
    adj_t = torch.eye(SIZE).to_sparse_csr()
    for _ in range(3):
        remembers(adj_t)
    parts = adj_t.crow_indices(), adj_t.col_indices(), adj_t.values()
    parts[part].untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=f"'edge_index' {SMALLER}"):
        remembers(adj_t)


SHARES_INDICES = {  # Layers whose backward pass reads the indices of the caller's matrix.
    **{f"sage, {aggr}": (BitSAGEConv, {"aggr": aggr}) for aggr in ("mean", "sum", "max", "min")},
    "gcn": (BitGCNConv, {"normalize": False}),
    "sg": (BitSGConv, {"add_self_loops": False}),
    "gat": (BitGATConv, {"add_self_loops": False, "heads": 2}),
}
REWRITTEN = "'(edge_index|x)' is a (sparse )?matrix of shape .6, 6."


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:Converting sparse tensor")
@pytest.mark.parametrize("use_native", [True, False])
@pytest.mark.parametrize("form", ["csr", "csr, with a gradient", "csc", "coo"])
@pytest.mark.parametrize("layer", SHARES_INDICES)
def test_indices_that_are_rewritten_before_the_backward_pass_are_refused(
    layer, form, use_native, monkeypatch
):
    if not use_native:
        monkeypatch.setattr(native, "enabled", lambda: False)
    if layer in ("sg", "gat") and form in ("csc", "coo"):
        pytest.skip("PyG takes no such matrix, or copies it")
    make, how = SHARES_INDICES[layer]
    conv, x = make(SIZE, 3, **how), torch.randn(SIZE, SIZE, requires_grad=True)
    for value in (-1, SIZE, 900_000_000):
        adj_t = getattr(torch.eye(SIZE), f"to_sparse_{form[:3]}")()
        _, col = PARTS[form[:3]][1](adj_t)
        if "gradient" in form:
            adj_t.requires_grad_()
        out = conv(x, adj_t)
        col.numpy()[1] = value
        with pytest.raises(ValueError, match=REWRITTEN):
            out.sum().backward()


@pytest.mark.parametrize("quant", [None, "b158"])
@pytest.mark.parametrize("layout", ["csr", "coo"])
def test_indices_of_features_that_are_rewritten_before_the_backward_pass(layout, quant):
    layer, x = BitLinear(SIZE, 3, quant=quant), getattr(torch.eye(SIZE), f"to_sparse_{layout}")()
    out = layer(x)
    PARTS[layout][1](x)[1].numpy()[1] = 900_000_000
    with pytest.raises(ValueError, match=REWRITTEN):
        out.sum().backward()


@pytest.mark.parametrize("layer", SHARES_INDICES)
def test_indices_that_stay_are_accepted_by_each_backward_pass(layer):
    make, how = SHARES_INDICES[layer]
    conv, x = make(SIZE, 3, **how), torch.randn(SIZE, SIZE, requires_grad=True)
    out = conv(x, torch.eye(SIZE).to_sparse_csr())
    for _ in range(2):
        out.sum().backward(retain_graph=True)
