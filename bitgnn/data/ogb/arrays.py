r"""Arrays in a folder, one file each, read without loading them."""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def write_arrays(folder: Path, arrays: Mapping[str, Tensor]) -> None:
    r"""Writes each tensor as :obj:`NAME.npy`.

    Args:
        folder (pathlib.Path): The folder, which exists.
        arrays (dict): The tensors.
    """
    for name, tensor in arrays.items():
        np.save(folder / f"{name}.npy", tensor.numpy(), allow_pickle=False)


def unpack_array(archive: Path, name: str, path: Path) -> None:
    r"""Copies an array out of an :obj:`.npz` archive, a piece at a time.

    Args:
        archive (pathlib.Path): The archive, compressed or not.
        name (str): The name of the array.
        path (pathlib.Path): The :obj:`.npy` file to write.
    """
    with (
        zipfile.ZipFile(archive) as opened,
        opened.open(f"{name}.npy") as source,
        open(path, "wb") as target,
    ):
        shutil.copyfileobj(source, target, length=1 << 20)


def map_array(path: Path) -> Tensor:
    r"""Returns the tensor of a file, of which only what is used is read.

    What is written to the tensor stays in memory; the file is never changed.

    Args:
        path (pathlib.Path): The :obj:`.npy` file.
    """
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def open_array(path: Path) -> Tensor:
    r"""Returns the tensor of a file of the cache: :func:`map_array`.

    Args:
        path (pathlib.Path): The :obj:`.npy` file.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return map_array(path)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise ValueError(
            f"'{path}' is damaged ({error}): delete the folder '{path.parent}', and it is "
            "rebuilt from the raw files"
        ) from None
