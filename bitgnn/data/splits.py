r"""Which nodes train, validate and test, as a function of a seed."""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    r"""Three disjoint sets of labelled nodes.

    Args:
        name (str): What identifies the split within its data set, *e.g.*,
            :obj:`"public"`, :obj:`"random-3"` or :obj:`"published-3"`.
        train (torch.Tensor): The boolean mask of training nodes.
        val (torch.Tensor): The boolean mask of validation nodes.
        test (torch.Tensor): The boolean mask of test nodes.

    Shapes:
        - **train**, **val**, **test:** :math:`(|\mathcal{V}|)`
    """

    name: str
    train: Tensor
    val: Tensor
    test: Tensor


Splitter = Callable[[int], Split]


@dataclass(frozen=True)
class FixedSplit:
    r"""The same split for every seed."""

    split: Split

    def __call__(self, seed: int) -> Split:
        check_seed(seed)
        return self.split


@dataclass(frozen=True)
class PublishedSplits:
    r"""Several published splits, one a mask column: a seed takes column :obj:`seed % columns`.

    A mask without columns is shared by all splits. Unlabelled nodes are in no set.
    """

    y: Tensor
    train: Tensor
    val: Tensor
    test: Tensor

    def __call__(self, seed: int) -> Split:
        column = check_seed(seed) % self.train.size(1)
        labelled = self.y >= 0
        train, val, test = (
            (mask if mask.dim() == 1 else mask[:, column]) & labelled
            for mask in (self.train, self.val, self.test)
        )
        return Split(f"published-{column}", train, val, test)


@dataclass(frozen=True)
class RandomSplits:
    r"""Seeded random splits with a fixed number of nodes a class, the remaining nodes testing.

    The nodes of each class are shuffled and given out in the order train, validation, test.
    A class with too few nodes thus fills the training set first; no node is ever in two sets.
    Unlabelled nodes are in no set. PyTorch's global random state is neither read nor changed.
    """

    y: Tensor
    num_train: int
    num_val: int

    def __call__(self, seed: int) -> Split:
        generator = torch.Generator().manual_seed(check_seed(seed))
        order = torch.randperm(self.y.numel(), generator=generator)
        train, val, test = torch.zeros(3, self.y.numel(), dtype=torch.bool).unbind()
        for label in self.y[self.y >= 0].unique():
            nodes = order[self.y[order] == label]
            train[nodes[: self.num_train]] = True
            val[nodes[self.num_train : self.num_train + self.num_val]] = True
            test[nodes[self.num_train + self.num_val :]] = True
        return Split(f"random-{seed}", train, val, test)


def check_seed(seed: int) -> int:
    if operator.index(seed) < 0:
        raise ValueError(f"A seed is a non-negative integer (got {seed})")
    return seed
