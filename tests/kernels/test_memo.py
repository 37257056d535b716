import gc
import weakref

import pytest
import torch

from bitgnn.kernels import Fingerprint, Memo, static_inputs, vouch
from bitgnn.kernels import memo as memo_module
from bitgnn.kernels.sparse import csr_matrix


class Double:
    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return x.to_dense() * 2


@pytest.fixture(params=[torch.strided, torch.sparse_csr], ids=["strided", "csr"])
def x(request):
    x = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    return x if request.param == torch.strided else x.to_sparse_csr()


@pytest.fixture
def double():
    return Double()


def test_computes_once(x, double):
    memo = Memo(double)
    with static_inputs(x):
        for _ in range(3):
            assert torch.equal(memo(x), x.to_dense() * 2)
    assert double.calls == 1


def test_computes_twice_what_nothing_vouches_for(x, double):
    memo = Memo(double)
    for _ in range(4):
        assert torch.equal(memo(x), x.to_dense() * 2)
    assert double.calls == 2


def test_alias_is_the_same_memory(x, double):
    memo = Memo(double)
    vouch(x)
    memo(x)
    assert memo(x.detach()) is memo(x)
    assert double.calls == 1


def test_change_is_seen(x, double):
    memo = Memo(double)
    memo(x)
    (x if x.layout == torch.strided else x.values()).mul_(3)
    assert torch.equal(memo(x), x.to_dense() * 2)
    assert double.calls == 2


def test_change_of_the_indices_is_seen(double):
    x = torch.tensor([[1.0, 0.0, 2.0]]).to_sparse_csr()
    memo = Memo(double)
    memo(x)
    x.col_indices().copy_(torch.tensor([1, 2]))
    assert memo(x).tolist() == [[0.0, 2.0, 4.0]]


def test_another_matrix_with_the_same_values_is_seen(double):
    values, crow = torch.tensor([1.0, 2.0]), torch.tensor([0, 2])
    memo = Memo(double)
    for columns in ([0, 1], [1, 2], [0, 2]):
        x = csr_matrix(crow, torch.tensor(columns), values, (1, 3))
        assert torch.equal(memo(x), x.to_dense() * 2)
    assert double.calls == 3


def test_tensors_are_told_apart(x, double):
    memo, other = Memo(double), x.clone()
    vouch(x)
    vouch(other)
    assert torch.equal(memo(x), memo(other))
    assert memo(x) is memo(x) and double.calls == 2


def test_is_forgotten_with_its_tensor(x, double):
    memo, x = Memo(double), x.clone()
    vouch(x)
    alive = weakref.ref(memo(x))
    gc.collect()
    assert alive() is not None
    del x
    gc.collect()
    assert alive() is None


def test_what_inference_computes_serves_training(x, double):
    memo = Memo(double)
    vouch(x)
    with torch.inference_mode():
        kept = memo(x)
    assert memo(x) is kept and not kept.is_inference()


def test_inference_tensors_are_not_kept(double):
    memo = Memo(double)
    with torch.inference_mode():
        x = torch.ones(3)
        memo(x)
        x.mul_(5)
        assert memo(x).tolist() == [10.0] * 3


def test_nothing_is_a_result_too():
    calls = []
    memo = Memo(calls.append)
    x = torch.ones(2)
    vouch(x)
    assert memo(x) is None and memo(x) is None
    assert len(calls) == 1


def test_fingerprint_of_two_tensors():
    x, y = torch.ones(2), torch.ones(3)
    before = Fingerprint(x, y)
    assert before == Fingerprint(x, y)
    assert before != Fingerprint(y, x) and before != Fingerprint(x) and before != "x"
    y.add_(1)
    assert before != Fingerprint(x, y)


def test_fingerprint_outlives_its_tensor():
    x = torch.ones(2)
    before = Fingerprint(x)
    del x
    gc.collect()
    assert before != Fingerprint(torch.ones(2))


def write(tensor, how, value):
    if how == "numpy":
        tensor.numpy().flat[0] = value
    else:
        tensor.data.view(-1)[0] = value


@pytest.mark.parametrize("how", ["numpy", "data"])
def test_change_behind_autograds_back_is_seen(x, double, how):
    memo = Memo(double)
    memo(x)
    write(x if x.layout == torch.strided else x.values(), how, 7.0)
    assert torch.equal(memo(x), x.to_dense() * 2)
    assert double.calls == 2


@pytest.mark.parametrize("part", ["crow_indices", "col_indices"])
def test_change_of_indices_behind_autograds_back_is_seen(double, part):
    x = csr_matrix(torch.tensor([0, 1, 1]), torch.tensor([0]), torch.tensor([5.0]), (2, 2))
    memo = Memo(double)
    memo(x)
    if part == "crow_indices":
        x.crow_indices().numpy()[1] = 0
    else:
        x.col_indices().numpy()[0] = 1
    assert memo(x).tolist() == (x.to_dense() * 2).tolist()
    assert double.calls == 2


@pytest.mark.parametrize("value", [float("nan"), -0.0])
def test_content_is_compared_bit_by_bit(double, value):
    x = torch.tensor([value])
    memo = Memo(double)
    memo(x), memo(x), memo(x)
    assert double.calls == 2
    x.numpy()[0] = 0.0
    memo(x)
    assert double.calls == 3


def test_nothing_is_compared_or_copied_that_is_vouched_for(x, double, monkeypatch):
    def fail(*args):
        raise AssertionError

    memo = Memo(double)
    monkeypatch.setattr(memo_module, "_same", fail)
    monkeypatch.setattr(memo_module, "_copy", fail)
    with static_inputs(x):
        memo(x), memo(x)
    assert double.calls == 1


def test_content_after_a_promise_is_not_trusted(x, double):
    memo = Memo(double)
    with static_inputs(x):
        memo(x)
    write(x if x.layout == torch.strided else x.values(), "numpy", 7.0)
    assert torch.equal(memo(x), x.to_dense() * 2)
    write(x if x.layout == torch.strided else x.values(), "numpy", 8.0)
    with static_inputs(x):
        assert torch.equal(memo(x), x.to_dense() * 2)


def test_results_are_vouched_for_but_not_what_they_share(x):
    double = Memo(lambda x: x * 2)
    if x.layout == torch.sparse_csr:
        double = Memo(
            lambda x: csr_matrix(x.crow_indices(), x.col_indices(), x.values() * 2, x.shape)
        )
    double(x)  # Only what is kept, from the second time on, is vouched for.
    assert memo_module.promises(double(x)) is None or x.layout == torch.strided
    parts = memo_module._memory(double(x))
    assert parts[-1] in memo_module._PROMISES and not any(
        each in memo_module._PROMISES for each in memo_module._memory(x)
    )


def test_one_copy_for_all_memos(x, double):
    first, second = Memo(double), Memo(double)
    first(x), first(x), second(x), second(x)
    (kept,), (other,) = first._kept.values(), second._kept.values()
    assert all(a is b for a, b in zip(kept.copies, other.copies, strict=True))


def test_without_copies_only_what_is_vouched_for_is_remembered(x, double):
    memo = Memo(double, copies=False)
    memo(x), memo(x)
    assert double.calls == 2
    with static_inputs(x):
        memo(x), memo(x)
    assert double.calls == 3
