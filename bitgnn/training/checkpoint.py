r"""Runs that go on where they were stopped."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitgnn.files import check_writable, write_whole
from bitgnn.tensor_file import CHECKSUM, from_bytes, to_bytes
from bitgnn.training.state import TrainingState

FORMAT = 2
# Format 1 has no checksum. All else is the same, so that such files are still read.
UNCHECKED = 1


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
            self._restore(state, content)
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
            write_whole(self.path, to_bytes(tensors, {"bitgnn": json.dumps(about)}))
        self._written = time.monotonic()

    def _content(self) -> bytes | None:
        check_writable(self.path)  # Not after the minutes or hours until it is first written.
        if not self.path.is_file():
            return None
        if not self.resume:
            raise ValueError(
                f"There is a checkpoint '{self.path}' already: go on from it with --resume, or "
                f"delete it to start over"
            )
        return self.path.read_bytes()

    def _restore(self, state: TrainingState, content: bytes) -> None:
        tensors, about = self._parse(content)
        if about["key"] != self.key:
            raise ValueError(
                f"'{self.path}' belongs to another run (key {str(about['key'])[:12]}, not "
                f"{self.key[:12]}): repeat the command that wrote it, or choose another place"
            )
        if about["processes"] != state.group.size:
            raise ValueError(
                f"'{self.path}' was written by {about['processes']} process(es), not "
                f"{state.group.size}: go on with as many"
            )
        try:
            state.restore(tensors, about)
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise self._damaged(f"{type(error).__name__}: {error}") from error

    def _parse(self, content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            tensors, metadata = from_bytes(content)
            about = json.loads(metadata["bitgnn"])
            found, _, _ = about["format"], about["key"], about["processes"]
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise self._damaged(error) from None
        if found not in (UNCHECKED, FORMAT):
            raise ValueError(
                f"'{self.path}' has format {found}, and this version of bitgnn reads formats up to "
                f"{FORMAT}: go on with the version that wrote it, or delete it to start over"
            )
        if found != UNCHECKED and CHECKSUM not in metadata:
            raise self._damaged("it lacks its checksum")
        return tensors, about

    def _damaged(self, problem: object) -> ValueError:
        return ValueError(
            f"'{self.path}' is damaged or no checkpoint of bitgnn ({problem}): delete it to start "
            "over"
        )
