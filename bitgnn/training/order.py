from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from bitgnn.training.distributed import ALONE, Group

FACTOR = 1_000_003  # more than there are epochs


class Order(Sampler[int]):
    r"""The order of an epoch: positions shuffled by a seed and the number of the epoch, dealt out
    to the processes of a group.

    With :math:`P` processes and batches of :math:`B`, each :math:`P B` positions are one step: the
    first :math:`B` of them are the first process's batch, and so on. So a group sees in each step
    what one process with batches of :math:`P B` sees. All processes have the same number of steps:
    the last step is filled up from the beginning until it can be dealt out evenly.

    Args:
        total (int): The number of positions.
        batch_size (int): The size of a batch of one process.
        seed (int, optional): The seed. (default: :obj:`0`)
        group (Group, optional): The processes. (default: this one alone)
    """

    def __init__(self, total: int, batch_size: int, seed: int = 0, group: Group = ALONE) -> None:
        self.total, self.batch_size, self.seed, self.group = total, batch_size, seed, group
        self.number = 0

    def of(self, number: int) -> "Order":
        """Turns to an epoch, by its number."""
        self.number = number
        return self

    def __len__(self) -> int:
        return -(-self.total // self.group.size)

    def __iter__(self) -> Iterator[int]:
        # The generator takes no more than 32 bits of a seed.
        generator = torch.Generator().manual_seed((FACTOR * self.seed + self.number) % 2**32)
        order = torch.randperm(self.total, generator=generator)
        size = self.group.size
        if self.total:
            order = order.repeat(-(-(len(self) * size) // self.total))[: len(self) * size]
        for step in order.split(size * self.batch_size):
            yield from step.chunk(size)[self.group.rank].tolist()
