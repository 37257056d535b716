r"""Several processes that train one model, on PyTorch's own distributed engine."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

CPU = torch.device("cpu")

# What the engines say when a peer is gone; they have no type of error for it.
LOST = ("closed by peer", "reset by peer", "Broken pipe", "Timed out", "timed out", "NCCL")


@dataclass(frozen=True)
class Group:
    r"""The processes that share the steps of a run.

    Args:
        rank (int, optional): The number of this one, from 0. (default: :obj:`0`)
        size (int, optional): How many there are. (default: :obj:`1`)
        device (torch.device, optional): Where they exchange numbers. (default: the CPU)
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    def wrap(self, model: nn.Module) -> nn.Module:
        """Returns a model whose gradients are means over the processes."""
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)

    def mean(self, value: float) -> float:
        """Returns the mean of a number over the processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total) / self.size

    def told(self, values: Sequence[float]) -> list[float]:
        """Returns the numbers that the first process has, in all of them."""
        if self.size == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(told, 0)
        return told.tolist()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Returns the tensors, of one shape, of all processes."""
        if self.size == 1:
            return [tensor]
        parts = [torch.empty_like(tensor, device=self.device) for _ in range(self.size)]
        dist.all_gather(parts, tensor.to(self.device))
        return [part.to(tensor.device) for part in parts]

    def read(self, content: bytes | None) -> bytes | None:
        """Returns the bytes that the first process has, in all of them."""
        if self.size == 1:
            return content
        (length,) = self.told([-1 if content is None else len(content)])
        if length < 0:
            return None
        shared = torch.empty(int(length), dtype=torch.uint8)
        if content is not None and self.rank == 0:
            shared = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        shared = shared.to(self.device)
        dist.broadcast(shared, 0)
        return shared.cpu().numpy().tobytes()


ALONE = Group()


@contextmanager
def join(device: str | torch.device = "cpu") -> Iterator[Group]:
    r"""Joins the processes that :obj:`torchrun` has started, over gloo on CPUs and NCCL on GPUs.

    Args:
        device (str or torch.device, optional): Where to train; :obj:`"cuda"` is the GPU of this
            process's number on its machine. (default: :obj:`"cpu"`)

    Raises:
        ValueError: If :obj:`torchrun` has not started this process.
        ConnectionError: If another process ends before its time.
    """
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR") if name not in os.environ]
    if missing:
        raise ValueError(
            f"Several processes are started by torchrun, which sets ${missing[0]}: "
            "torchrun --nproc-per-node 2 -m bitgnn train ... --distributed"
        )
    device = torch.device(device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    store, rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(_attempt(store, rank), store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield Group(rank, size, device)
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise ConnectionError(
            f"process {rank} of {size} lost the others ({str(error).split('. ')[0]}): one of them "
            f"has ended, see above; what is in the checkpoint is kept, and --resume goes on from it"
        ) from None
    finally:
        dist.destroy_process_group()


def _attempt(store: dist.Store, rank: int) -> str:
    """A name for this start of the job. After a restart torchrun's store still has what the
    processes before told each other, and who believes that waits for the dead."""
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        return f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    # A machine on which nothing failed does not count the restart.
    return f"arrival {store.add(f'arrivals of {rank}', 1)}"
