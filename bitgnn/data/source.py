r"""Reads a PyG data set from raw files that are never written to."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
import torch_geometric
from torch import Tensor
from torch_geometric import datasets
from torch_geometric.data import Data, HeteroData, InMemoryDataset

from bitgnn.data.checksum import check, combine, file_digest
from bitgnn.data.locate import (
    Root,
    built_once,
    cache_dir,
    downloads,
    find,
    not_found,
    search_path,
    writable,
)
from bitgnn.files import temporary_folder

CHECKSUM = "checksum"  # The file beside processed files.


class Loaded(NamedTuple):
    r"""A graph, the checksum of what it was made from, and the root that has its raw files; and
    what only some data sets bring along: the number of outputs, where labels do not tell it, a
    metric of their own, and a heterogeneous graph."""

    data: Data
    checksum: str
    root: Path | None
    num_outputs: int | None = None
    score: Callable[[Tensor, Tensor], float] | None = None
    open_hetero: Callable[[], HeteroData] | None = None


class _Stopped(Exception):
    pass


def _process(reader: type[InMemoryDataset], place: Path, options: Mapping[str, Any]) -> None:
    reader(str(place), **options)
    (place / CHECKSUM).write_text(_digest(place))


def _digest(built: Path) -> str:
    files = [path for path in built.rglob("*") if path.is_file() and path != built / CHECKSUM]
    return combine({path.relative_to(built).as_posix(): file_digest(path) for path in files})


@dataclass(frozen=True)
class PyGSource:
    r"""A data set of :obj:`torch_geometric.datasets`, in a folder that has its family's name.

    PyG writes :obj:`processed/` beside :obj:`raw/`, and takes a half-finished download for a
    whole one. Here raw files may lie in a read-only root, processed files go to the cache, and
    both kinds appear there by renaming only, so that several processes may load the same data
    set at once.

    Args:
        family (str): The class in :obj:`torch_geometric.datasets`.
        options (dict, optional): The arguments of that class besides :obj:`root`.
        digest (callable, optional): The checksum of a raw file.
        host (str, optional): A URL that answers if downloads can work.
    """

    family: str
    options: Mapping[str, Any] = field(default_factory=dict)
    digest: Callable[[Path], str] = file_digest
    host: str = "https://github.com"

    def __call__(self, name: str, root: Root = None) -> Loaded:
        files, roots = self.raw_files(), search_path(root)
        found = find(files, roots)
        if found is None:
            try:
                self.download()
            except download_errors() as error:
                raise not_found(name, files, roots, str(error) or repr(error)) from None
            found = downloads()
        digests = {file.as_posix(): self.digest(found / file) for file in files}
        for file, digest in digests.items():
            check(file, digest, found / file)
        checksum = combine(digests)
        return Loaded(self.build(found / files[0].parent, checksum), checksum, found)

    def raw_files(self) -> list[Path]:
        r"""Asks PyG which raw files it reads, as paths below a root."""
        return [file.relative_to("root") for file in self._raw_paths("root", "has_download")]

    def download(self) -> None:
        r"""Lets PyG download into a temporary folder, and moves what is complete."""
        self._ping()
        folder = writable(cache_dir())
        with temporary_folder(folder / "download") as tmp:
            for path in self._raw_paths(str(tmp), "has_process"):
                target = downloads() / path.relative_to(tmp)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)

    def build(self, raw_dir: Path, checksum: str) -> Data:
        r"""Processes the raw files once per content and version."""
        versions = f"{checksum} {torch.__version__} {torch_geometric.__version__}"
        key = hashlib.sha256(f"{self.family} {self.options} {versions}".encode()).hexdigest()
        folder = writable(cache_dir() / "processed")
        built = folder / f"{self.family}-{key[:16]}"
        reader = self._subclass(raw_dir=str(raw_dir), has_download=False)
        built_once(built, lambda place: _process(reader, place, self.options))
        try:
            note = built / CHECKSUM
            # Folders that older versions made have none.
            if note.is_file() and note.read_text() != _digest(built):
                raise ValueError("its checksum differs")
            return reader(str(built), **self.options)[0]
        # PyTorch, PyG, zip and pickle have errors of many kinds for a file that is not what it was.
        except Exception as error:
            problem = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"'{built}' is damaged ({problem}): delete the folder, and it is rebuilt from the "
                "raw files"
            ) from error

    def _subclass(self, **attributes: Any) -> type[InMemoryDataset]:
        base = getattr(datasets, self.family)
        return type(self.family, (base,), attributes)

    def _raw_paths(self, root: str, before: str) -> list[Path]:
        r"""Runs PyG's constructor until it asks itself whether to take a step."""

        def stop(dataset: InMemoryDataset) -> None:
            raise _Stopped([Path(path) for path in dataset.raw_paths])

        try:
            self._subclass(**{before: property(stop)})(f"{root}/{self.family}", **self.options)
        except _Stopped as stopped:
            return stopped.args[0]
        raise AssertionError(f"{self.family} never read '{before}'")

    def _ping(self) -> None:
        r"""Fails within seconds where PyG would wait for minutes."""
        with suppress(HTTPError):  # Any answer will do.
            urlopen(Request(self.host, method="HEAD"), timeout=10).close()


def download_errors() -> tuple[type[Exception], ...]:
    r"""Returns the errors of a download, for which PyG uses urllib or aiohttp."""
    errors: tuple[type[Exception], ...] = (OSError, asyncio.TimeoutError, HTTPException)
    try:
        from aiohttp import ClientError  # A dependency of PyG, not of bitgnn.
    except ImportError:
        return errors
    return *errors, ClientError
