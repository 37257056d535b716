r"""Runs that go on where they were stopped."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from bitgnn.files import write_whole
from bitgnn.training.state import TrainingState

FORMAT = 1


@dataclass(frozen=True)
class Checkpoints:
    r"""Where runs leave their checkpoints: a folder, with one file a run.

    Args:
        folder (pathlib.Path): The folder.
        resume (bool, optional): As in :class:`Checkpoint`. (default: :obj:`False`)
        epochs (int, optional): As in :class:`Checkpoint`. (default: :obj:`None`)
        minutes (float, optional): As in :class:`Checkpoint`. (default: :obj:`5.0`)
    """

    folder: Path
    resume: bool = False
    epochs: int | None = None
    minutes: float = 5.0

    def of(self, key: str) -> "Checkpoint":
        """Returns the checkpoint of a run.

        Args:
            key (str): The key of the run.
        """
        path = self.folder / f"{key[:16]}.safetensors"
        return Checkpoint(path, key, self.resume, self.epochs, self.minutes)


@dataclass
class Checkpoint:
    r"""Where a run leaves what it needs to go on: one safetensors file, with model, optimizer,
    position in schedules, random states, epoch, and the best epoch so far. It is written whole or
    not at all, at the end of epochs.

    A run that goes on comes to the same numbers as one that was never stopped, on a CPU to the
    bit. On several processes there is one file, which the first of them reads and writes.

    Args:
        path (pathlib.Path): The file.
        key (str): What tells runs apart: that of :class:`~bitgnn.experiment.RunSpec`, or any name.
        resume (bool, optional): If set to :obj:`True`, the run goes on from the file if there is
            one. (default: :obj:`False`)
        epochs (int, optional): Write after so many epochs. (default: :obj:`None`)
        minutes (float, optional): Write at the end of the epoch once so many minutes have passed,
            if :obj:`epochs` is :obj:`None`. (default: :obj:`5.0`)

    Raises:
        ValueError: If :obj:`epochs` or :obj:`minutes` is no positive number.
    """

    path: Path
    key: str
    resume: bool = False
    epochs: int | None = None
    minutes: float = 5.0
    _written: float = field(default_factory=time.monotonic, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("epochs", "minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"'{name}' of a checkpoint must be above 0 (got {value})")

    def begin(self, state: TrainingState) -> None:
        r"""Brings a run that has not begun to where its file says.

        Args:
            state (TrainingState): The run.

        Raises:
            ValueError: If there is a file and the run is not to go on from it, or it is another
                run's, is damaged, or was written by another number of processes.
        """
        first = state.group.rank == 0
        content = state.group.read(self._content() if first else None)
        if content is not None:
            state.restore(*self._parse(content, state.group.size))
        self._written = time.monotonic()

    def end_of_epoch(self, state: TrainingState) -> None:
        r"""Writes the file if it is time to, or the run has ended.

        Args:
            state (TrainingState): The run, at the end of an epoch.
        """
        if self.epochs is not None:
            due = state.result.epochs_run % self.epochs == 0
        else:
            due = time.monotonic() - self._written >= 60 * self.minutes
            due = bool(state.group.told([due])[0])  # The clock of one decides for all.
        if due or state.ended:
            self._write(state)

    def _write(self, state: TrainingState) -> None:
        tensors = state.tensors()  # All processes take part.
        if state.group.rank == 0:
            about = {"format": FORMAT, "key": self.key, **state.values()}
            content = safetensors.torch.save(
                {name: value.cpu().contiguous().clone() for name, value in tensors.items()},
                {"bitgnn": json.dumps(about)},
            )
            write_whole(self.path, content)
        self._written = time.monotonic()

    def _content(self) -> bytes | None:
        if not self.path.is_file():
            return None
        if not self.resume:
            raise ValueError(
                f"There is a checkpoint '{self.path}' already: go on from it with --resume, or "
                f"delete it to begin anew"
            )
        return self.path.read_bytes()

    def _parse(self, content: bytes, processes: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            tensors = safetensors.torch.load(content)
            length = int.from_bytes(content[:8], "little")
            about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["bitgnn"])
        except (SafetensorError, ValueError, KeyError) as error:
            raise ValueError(
                f"'{self.path}' is damaged or no checkpoint of bitgnn ({error}): delete it to "
                f"begin anew"
            ) from None
        if about["format"] != FORMAT:
            raise ValueError(
                f"'{self.path}' has format {about['format']}, and this version of bitgnn reads "
                f"{FORMAT}: go on with the version that wrote it, or delete it to begin anew"
            )
        if about["key"] != self.key:
            raise ValueError(
                f"'{self.path}' belongs to another run (key {about['key'][:12]}, not "
                f"{self.key[:12]}): repeat the command that wrote it, or choose another place"
            )
        if about["processes"] != processes:
            raise ValueError(
                f"'{self.path}' was written by {about['processes']} process(es), not {processes}: "
                f"go on with as many"
            )
        return tensors, about
