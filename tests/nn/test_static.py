import copy
import gc
import pickle
import weakref

import pytest
import torch

from bitgnn.kernels import static_inputs, vouch
from bitgnn.nn.static import StaticMemo


class Computation:
    """Counts how often it runs."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return x.to_dense().double() * 2


@pytest.fixture
def compute():
    return Computation()


def train(memo, x, compute, steps=5, training=True):
    vouch(x)
    for _ in range(steps):
        out = memo(x, compute, training)
        assert torch.equal(out, x.detach().to_dense().double() * 2)
    return compute.calls


features = pytest.mark.parametrize(
    "x",
    [torch.randn(4, 3), torch.randn(4, 3).to_sparse(), torch.randn(4, 3).to_sparse_csr()],
    ids=["strided", "coo", "csr"],
)


@features
def test_static_tensor_is_computed_until_it_has_come_twice(x, compute):
    memo = StaticMemo()
    assert train(memo, x, compute, steps=2) == 2
    assert train(memo, x, compute, steps=10) == 2


@features
def test_what_was_kept_serves_evaluation_too(x, compute):
    memo = StaticMemo()
    train(memo, x, compute)
    with torch.no_grad():
        assert train(memo, x, compute, training=False) == 2


@features
def test_change_in_place_is_seen(x, compute):
    x = x.clone()
    memo = StaticMemo()
    train(memo, x, compute)
    x.mul_(3)
    assert train(memo, x, compute) == 4


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_change_of_the_values_of_a_sparse_matrix_is_seen(layout, compute):
    x = torch.randn(4, 3).to_sparse(layout=layout)
    memo = StaticMemo()
    train(memo, x, compute)
    x.values().mul_(3)
    assert train(memo, x, compute) == 4


def test_change_of_one_entry_through_a_view_is_seen(compute):
    x = torch.randn(4, 3)
    memo = StaticMemo()
    train(memo, x, compute)
    x[2:][0, 1] = 7.0
    assert train(memo, x, compute) == 4


@features
def test_another_tensor_is_seen(x, compute):
    memo = StaticMemo()
    train(memo, x, compute)
    assert train(memo, x.clone(), compute) == 4


@pytest.mark.parametrize(
    "other",
    [
        lambda x: x[:2],
        lambda x: x[2:],
        lambda x: x.t(),
        lambda x: x.view(3, 4),
        lambda x: x[:, :2],
        lambda x: x.view(torch.int32),
    ],
    ids=["head", "tail", "transposed", "reshaped", "columns", "dtype"],
)
def test_another_view_of_the_same_memory_is_seen(other, compute):
    x = torch.randn(4, 3)
    memo = StaticMemo()
    train(memo, x, compute)
    train(memo, other(x), compute)
    assert compute.calls == 4
    train(memo, x, compute)
    assert compute.calls == 6


def test_another_part_of_the_same_shape_is_seen(compute):
    x = torch.randn(4, 3)
    memo = StaticMemo()
    train(memo, x[:2], compute)
    assert train(memo, x[2:], compute) == 4


@pytest.mark.parametrize("alias", [torch.detach, torch.Tensor.view_as, lambda x: x[:]])
def test_alias_of_the_same_tensor_hits(alias, compute):
    x = torch.randn(4, 3)
    vouch(x)
    memo = StaticMemo()
    for _ in range(5):
        args = (x, x) if alias is torch.Tensor.view_as else (x,)
        memo(alias(*args), compute, True)
    assert compute.calls == 2


def test_two_tensors_that_alternate_are_never_kept(compute):
    memo = StaticMemo()
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    for _ in range(3):
        train(memo, first, compute, steps=1)
        train(memo, second, compute, steps=1)
    assert compute.calls == 6


@features
def test_nothing_is_kept_in_evaluation(x, compute):
    memo = StaticMemo()
    assert train(memo, x, compute, training=False) == 5


@features
def test_nothing_is_kept_without_gradients(x, compute):
    memo = StaticMemo()
    with torch.no_grad():
        assert train(memo, x, compute) == 5
    with torch.inference_mode():
        assert train(memo, x, compute) == 10


def test_nothing_is_kept_of_inference_tensors(compute):
    with torch.inference_mode():
        x = torch.randn(4, 3)
    assert train(StaticMemo(), x, compute) == 5


def test_nothing_is_kept_of_a_tensor_that_needs_a_gradient(compute):
    x = torch.randn(4, 3, requires_grad=True)
    memo = StaticMemo()
    assert train(memo, x, compute) == 5
    # The same memory without a gradient is another matter, and the other way round.
    train(memo, x.detach(), compute)
    assert compute.calls == 7
    train(memo, x, compute)
    assert compute.calls == 12


@features
def test_tensor_is_not_kept_alive(x, compute):
    x = x.clone()
    memo = StaticMemo()
    train(memo, x, compute)
    alive = weakref.ref(x)
    storage = weakref.ref(x.untyped_storage()) if x.layout == torch.strided else alive
    del x
    gc.collect()
    assert alive() is None and storage() is None


def test_new_tensor_at_the_address_of_a_freed_one_is_seen(compute):
    memo = StaticMemo()
    memory = bytearray(48)
    x = torch.frombuffer(memory, dtype=torch.float32)
    address = x.data_ptr()
    train(memo, x, compute)
    del x
    memory[:4] = b"\x00\x00\x80\x3f"  # The float 1.
    x = torch.frombuffer(memory, dtype=torch.float32)
    assert x.data_ptr() == address
    assert train(memo, x, compute) == 4


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, copy.copy, lambda memo: pickle.loads(pickle.dumps(memo))]
)
def test_copies_start_afresh(duplicate, compute):
    x = torch.randn(100, 100)
    memo = StaticMemo()
    train(memo, x, compute)
    assert len(pickle.dumps(memo)) < 1000
    other = duplicate(memo)
    assert other is not memo
    assert train(other, x, compute) == 4
    assert train(memo, x, compute) == 4


@features
def test_what_lies_beside_counts_too(x, compute):
    memo, beside = StaticMemo(), torch.ones(2)
    vouch(x)
    vouch(beside)
    for _ in range(4):
        memo(x, compute, True, beside)
    assert compute.calls == 2
    beside.add_(1)
    for _ in range(4):
        memo(x, compute, True, beside)
    assert compute.calls == 4
    for _ in range(3):
        other = torch.ones(2)
        vouch(other)
        memo(x, compute, True, other)
    assert compute.calls == 7


def test_nothing_is_kept_beside_a_tensor_that_needs_a_gradient(compute):
    memo, beside = StaticMemo(), torch.ones(2, requires_grad=True)
    for _ in range(4):
        memo(torch.ones(3), compute, True, beside)
    assert compute.calls == 4


def test_csr_alias_hits(compute):
    x = torch.randn(4, 3).to_sparse_csr()
    vouch(x)
    memo = StaticMemo()
    for _ in range(5):
        memo(x.detach(), compute, True)
    assert compute.calls == 2


@features
def test_nothing_is_kept_of_what_nothing_vouches_for(x, compute):
    x, memo = x.clone(), StaticMemo()
    for _ in range(5):
        memo(x, compute, True)
    assert compute.calls == 5


@features
def test_a_promise_ends_with_its_context(x, compute):
    x, memo = x.clone(), StaticMemo()
    static = static_inputs(x)
    for _ in range(5):  # The same promise, entered several times.
        with static:
            memo(x, compute, True)
    assert compute.calls == 2
    memo(x, compute, True)
    assert compute.calls == 3
    with static_inputs(x):  # Another promise knows nothing of the time between the two.
        memo(x, compute, True)
    assert compute.calls == 4


def test_promises_within_promises(compute):
    x, memo = torch.randn(4, 3), StaticMemo()
    with static_inputs(x):
        memo(x, compute, True)
        with static_inputs(x):
            pass
        memo(x, compute, True)
        memo(x, compute, True)
    assert compute.calls == 2
    assert memo.kept(x, compute, True) is None


def test_nothing_is_kept_under_hooks_for_saved_tensors(compute):
    x, memo = torch.randn(4, 3), StaticMemo()
    train(memo, x, compute)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        assert memo.kept(x, compute, True) is None
