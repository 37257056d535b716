r"""Where the rows of all nodes are kept between two layers: in memory or in files."""

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from bitgnn.files import check_writable, move_whole, temporary_folder


class Storage:
    r"""Hands out matrices with a row for each node. With a path they lie in files beside it, which
    vanish at the end, but for the one that is kept.

    Args:
        out (str or Path, optional): The file, in NumPy's format, that the last matrix is to be.
            (default: :obj:`None`, all in memory)
    """

    def __init__(self, out: str | os.PathLike[str] | None = None) -> None:
        self.out = None if out is None else Path(out)
        self._folder: Path | None = None
        self._stack = ExitStack()
        self._files: dict[int, Path] = {}
        self._count = 0

    def __enter__(self) -> "Storage":
        if self.out is not None:
            check_writable(self.out)
            target = Path(os.path.realpath(self.out))  # In its folder, not in that of a link.
            target.parent.mkdir(parents=True, exist_ok=True)
            self._folder = self._stack.enter_context(temporary_folder(target))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def empty(self, rows: int, width: int, dtype: torch.dtype) -> Tensor:
        r"""Returns a matrix that is not set.

        Args:
            rows (int): The number of rows.
            width (int): Their width.
            dtype (torch.dtype): The type of its numbers.
        """
        if self._folder is None or rows * width == 0:
            return torch.empty(rows, width, dtype=dtype)
        path = self._folder / f"{self._count}.npy"
        self._count += 1
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        matrix = torch.from_numpy(
            np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(rows, width))
        )
        self._files[matrix.data_ptr()] = path
        return matrix

    def free(self, matrix: Tensor) -> None:
        r"""Gives the disk's space of a matrix back, once nobody has the matrix any more.

        Args:
            matrix (torch.Tensor): A matrix, from here or elsewhere, which stays.
        """
        path = self._files.pop(matrix.data_ptr(), None)
        if path is not None:
            path.unlink()

    def keep(self, matrix: Tensor) -> Tensor:
        r"""Makes a matrix the file that stays, and returns it.

        Args:
            matrix (torch.Tensor): The matrix.
        """
        if self.out is None:
            return matrix
        path = self._files.pop(matrix.data_ptr(), None)
        if path is None:  # One without numbers, which cannot be mapped.
            assert self._folder is not None
            path = self._folder / "whole.npy"
            np.save(path, matrix.numpy())
        move_whole(path, self.out)
        return matrix
