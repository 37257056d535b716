import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.data.splits import FixedSplit, PublishedSplits, RandomSplits, Split

labels = st.lists(st.integers(-1, 4), min_size=1, max_size=60).map(torch.tensor)
seeds = st.integers(0, 2**31)


@given(labels, seeds, st.integers(1, 8), st.integers(0, 8))
def test_random_splits_hand_out_every_labelled_node_once(y, seed, num_train, num_val):
    split = RandomSplits(y, num_train, num_val)(seed)
    assert split.name == f"random-{seed}"
    assert torch.equal(split.train.int() + split.val.int() + split.test.int(), (y >= 0).int())
    for label in range(5):
        size = int((y == label).sum())
        counts = [int((y[mask] == label).sum()) for mask in (split.train, split.val, split.test)]
        in_train = min(size, num_train)
        in_val = min(size - in_train, num_val)
        assert counts == [in_train, in_val, size - in_train - in_val]


@given(labels, seeds)
def test_random_splits_depend_on_the_seed_alone(y, seed):
    torch.manual_seed(1)
    first = RandomSplits(y, 2, 2)(seed)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = RandomSplits(y, 2, 2)(seed)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.train, second.train)
    assert torch.equal(first.val, second.val)
    assert torch.equal(first.test, second.test)


def test_random_splits_differ_between_seeds():
    splits = RandomSplits(torch.zeros(100, dtype=torch.long), 20, 30)
    assert not torch.equal(splits(0).train, splits(1).train)


def test_random_splits_are_the_same_on_every_machine():
    split = RandomSplits(torch.tensor([0, 1] * 5), 2, 1)(0)
    assert split.train.nonzero().flatten().tolist() == [0, 1, 4, 7]
    assert split.val.nonzero().flatten().tolist() == [5, 8]


def test_published_splits_take_one_column_a_seed():
    y = torch.tensor([0, 1, 0, -1])
    train = torch.tensor([[1, 0], [0, 1], [0, 0], [1, 1]]).bool()
    val = torch.tensor([[0, 1], [1, 0], [0, 0], [0, 0]]).bool()
    test = torch.tensor([0, 0, 1, 0]).bool()  # Shared by all columns.
    splits = PublishedSplits(y, train, val, test)
    split = splits(3)
    assert split.name == "published-1"
    assert split.train.tolist() == [False, True, False, False]  # The last node has no label.
    assert split.val.tolist() == [True, False, False, False]
    assert split.test.tolist() == [False, False, True, False]
    assert torch.equal(splits(0).train, splits(2).train)


def test_fixed_split_ignores_the_seed():
    split = Split("public", *torch.eye(3, dtype=torch.bool))
    assert FixedSplit(split)(0) is FixedSplit(split)(7) is split


@pytest.mark.parametrize("splitter", [RandomSplits, PublishedSplits, FixedSplit])
def test_a_seed_is_a_non_negative_integer(splitter):
    mask = torch.ones(2, 1, dtype=torch.bool)
    y = torch.zeros(2, dtype=torch.long)
    args = {
        RandomSplits: (y, 1, 1),
        PublishedSplits: (y, mask, mask, mask),
        FixedSplit: (Split("public", mask, mask, mask),),
    }
    with pytest.raises(ValueError, match=r"non-negative integer \(got -1\)"):
        splitter(*args[splitter])(-1)
    with pytest.raises(TypeError):
        splitter(*args[splitter])(0.5)
