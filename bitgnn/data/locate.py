r"""Where raw files are looked for, and what is said when they are nowhere."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from bitgnn.files import sync_tree, temporary_folder

Root = str | os.PathLike[str] | None


class DataNotFoundError(FileNotFoundError, ValueError):
    r"""A data set is in no known place and could not be downloaded.

    It is both a :class:`FileNotFoundError` and, like every error that a user can mend, a
    :class:`ValueError`.
    """


def cache_dir() -> Path:
    r"""Returns the user's folder for downloads and processed graphs.

    This is :obj:`$BITGNN_CACHE`, or else :obj:`bitgnn` in :obj:`$XDG_CACHE_HOME` or
    :obj:`~/.cache`.
    """
    path = os.environ.get("BITGNN_CACHE")
    if not path:
        path = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "bitgnn")
    # Without ".." in it, as PyG's own paths are.
    return Path(os.path.abspath(os.path.expanduser(path)))


def writable(path: Path) -> Path:
    r"""Creates a folder below the cache, or says how to choose another cache."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"Cannot create the cache folder '{path}' ({error.strerror}): "
            f"set $BITGNN_CACHE to a folder that can be written"
        ) from None
    return path


def built_once(folder: Path, build: Callable[[Path], None]) -> Path:
    r"""Returns a folder that is built if it is not there yet, and is never there half-built.

    Args:
        folder (pathlib.Path): The folder, below one that exists.
        build (callable): Builds it, at a place that it is given and that is not there yet; what
            it puts beside that place is deleted.
    """
    if not folder.exists():
        with temporary_folder(folder) as tmp:
            place = tmp / folder.name
            build(place)
            sync_tree(place)
            try:
                os.rename(place, folder)
            except OSError:
                if not folder.exists():  # Else another process was faster, to the same end.
                    raise
    return folder


def downloads() -> Path:
    r"""Returns the root into which data sets are downloaded."""
    return cache_dir() / "data"


def search_path(root: Root = None) -> list[Path]:
    r"""Returns the roots to look in, first match first: the given one, :obj:`$BITGNN_DATA`, and
    earlier downloads.

    Args:
        root (str or Path, optional): A folder to look in first. (default: :obj:`None`)

    Raises:
        ValueError: If :obj:`root` is no folder.
    """
    if root and not Path(root).expanduser().is_dir():
        raise ValueError(f"The root '{root}' is no folder: name one, or leave it out")
    given = [root, os.environ.get("BITGNN_DATA")]
    return [Path(path).expanduser() for path in given if path] + [downloads()]


def find(files: Iterable[Path], roots: Iterable[Path]) -> Path | None:
    r"""Returns the first root that has all files."""
    files = list(files)
    return next((root for root in roots if all((root / file).is_file() for file in files)), None)


def not_found(name: str, files: list[Path], roots: list[Path], reason: str) -> DataNotFoundError:
    r"""Says in one line which files go where, and where they were looked for."""
    looked = ", ".join(f"'{root}'" for root in roots)
    return DataNotFoundError(
        f"The raw files of '{name}' are not in {looked} and cannot be downloaded ({reason}): "
        f"put {', '.join(file.name for file in files)} into "
        f"'{roots[0] / files[0].parent}', or set $BITGNN_DATA to a folder that has "
        f"'{files[0].parent.as_posix()}'"
    )
