r"""Reads OGB's node-property sets from raw files that are never written to."""

import gzip
import hashlib
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import torch_geometric
from torch_geometric.data import Data

from bitgnn.data.checksum import combine, file_digest
from bitgnn.data.locate import Root, built_once, cache_dir, search_path, writable
from bitgnn.data.ogb.arrays import map_array, open_array, unpack_array, write_arrays
from bitgnn.data.ogb.graph import PARTS, PapersAndMore, with_masks
from bitgnn.data.ogb.package import Score, read_graph, read_split
from bitgnn.data.ogb.sets import SETS, OGBSet
from bitgnn.data.source import Loaded

FORM = 1  # Of the cache. A change of what is written to it needs another number.
ARRAYS = ("x", "edge_index", "y", *(f"{part}_mask" for part in PARTS))

UNREADABLE = (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile)
DAMAGE = (*UNREADABLE, ValueError, LookupError, AssertionError)  # OGB asserts.


@dataclass(frozen=True)
class OGBSource:
    r"""A node-property set of OGB's, in a folder that is laid out as OGB lays it out:
    :obj:`ROOT/ogbn_arxiv`, or :obj:`ROOT/OGB/ogbn_arxiv`, with :obj:`RELEASE_v1.txt`,
    :obj:`raw` and :obj:`split`.

    OGB's own loader reads it. What that leaves goes to the cache, as arrays that are mapped into
    memory: only what is used of them is read, and processes share it.

    ogbn-papers100M is too large for OGB's loader, which holds all of it in memory. Its arrays are
    copied out of the archive, a piece at a time: 57 GB of features and 26 GB of edges, on disk.
    Opening it takes memory for the labels and masks of its 111 million nodes, not for features
    and edges; what a model then does with them may.

    Args:
        name (str): OGB's name.
    """

    name: str

    def __call__(self, name: str, root: Root = None) -> Loaded:
        files, roots = SETS[self.name], search_path(root)
        place = files.find(roots)
        if place is None:
            raise files.not_found(roots)
        found, folder = place
        checksum = combine({each: file_digest(path) for each, path in files.files(folder).items()})
        built = self._build(files, folder, checksum)
        data = Data(**{each: open_array(built / f"{each}.npy") for each in ARRAYS})
        hetero = PapersAndMore(built) if files.hetero else None
        return Loaded(data, checksum, found, files.num_outputs, Score(self.name), hetero)

    def find(self, root: Root = None) -> Path | None:
        r"""Returns the root that has the files, if any."""
        place = SETS[self.name].find(search_path(root))
        return None if place is None else place[0]

    def _build(self, files: OGBSet, folder: Path, checksum: str) -> Path:
        r"""Makes the arrays once per content and version."""
        versions = f"{torch.__version__} {torch_geometric.__version__} {version('ogb')} {FORM}"
        key = hashlib.sha256(f"{self.name} {checksum} {versions}".encode()).hexdigest()
        processed = writable(cache_dir() / "processed")
        built = processed / f"{files.folder}-{key[:16]}"

        def build(arrays: Path) -> None:
            links = arrays.parent / "links"
            arrays.mkdir()
            _link(files, folder, links)
            try:
                _write(files, links, arrays)
            except DAMAGE as error:
                raise _damage(files, folder, error) from error

        return built_once(built, build)


def _link(files: OGBSet, folder: Path, links: Path) -> None:
    r"""Makes a folder that OGB's loader may write to."""
    release = {files.release_file: folder / files.release_file}
    for name, path in {**files.files(folder), **release}.items():
        link = links / name
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(path.resolve())
        except OSError:  # Windows asks for a privilege.
            shutil.copyfile(path, link)


def _write(files: OGBSet, links: Path, target: Path) -> None:
    split = read_split(files.name, files.split, links)
    if files.graph is not None:
        arrays = files.graph(read_graph(files.name, files.release, links))
    else:
        raw, label = links / "raw", links / "node_label.npy"
        unpack_array(raw / "data.npz", "node_feat", target / "x.npy")
        unpack_array(raw / "data.npz", "edge_index", target / "edge_index.npy")
        unpack_array(raw / "node-label.npz", "node_label", label)
        arrays = {name: map_array(target / f"{name}.npy") for name in ("x", "edge_index")}
        arrays["y"] = map_array(label)
    arrays = with_masks(arrays, split, files.num_outputs)
    there = {path.stem for path in target.iterdir()}
    write_arrays(target, {name: array for name, array in arrays.items() if name not in there})


def _damage(files: OGBSet, folder: Path, error: Exception) -> ValueError:
    for path in files.files(folder).values():
        reason = _unreadable(path)
        if reason is not None:
            return ValueError(f"'{path}' is damaged ({reason}): fetch {files.url} again")
    return ValueError(
        f"The files of '{files.name}' in '{folder}' are not OGB's ({error}): fetch {files.url} "
        f"again"
    )


def _unreadable(path: Path) -> str | None:
    if path.stat().st_size == 0:
        return "it is empty"
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            return None if damaged is None else f"its '{damaged}' is not what it was"
    except UNREADABLE as error:
        return str(error)
    return None
