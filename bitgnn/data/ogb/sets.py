r"""Which files OGB's node-property sets have, and where."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch_geometric.data import Data

from bitgnn.data.locate import DataNotFoundError
from bitgnn.data.ogb.graph import Arrays, as_stored, mean_of_edges, papers_only, undirected

HOST = "http://snap.stanford.edu/ogb/data/nodeproppred"
PARTS = ("train", "valid", "test")
# OGB's loader renames this file; either name will do.
OLD_NAMES = {"raw/node_species.csv.gz": "raw/species.csv.gz"}


@dataclass(frozen=True)
class OGBSet:
    r"""A node-property set.

    Args:
        name (str): OGB's name.
        archive (str): The name of the published archive.
        split (str): The name of the published split.
        num_outputs (int): The number of classes; or of labels, if a node has several.
        raw (tuple[str]): The files below :obj:`raw` that are read.
        graph (callable, optional): Makes the graph from what OGB's loader gives; :obj:`None` for
            a set that is too large for that loader. (default: :obj:`None`)
        release (int, optional): The number of the release. (default: :obj:`1`)
        several (bool, optional): Whether a node has several labels. (default: :obj:`False`)
        hetero (bool, optional): Whether nodes are of several types. (default: :obj:`False`)
    """

    name: str
    archive: str
    split: str
    num_outputs: int
    raw: tuple[str, ...]
    graph: Callable[[Data], Arrays] | None = None
    release: int = 1
    several: bool = False
    hetero: bool = False

    @property
    def folder(self) -> str:
        return self.name.replace("-", "_")

    @property
    def release_file(self) -> str:
        return f"RELEASE_v{self.release}.txt"

    def find(self, roots: list[Path]) -> tuple[Path, Path] | None:
        r"""Returns the first root that has the set, and the set's folder below it."""
        places = [(root, root / sub) for root in roots for sub in self._folders()]
        return next((place for place in places if not self.lacking(place[1])), None)

    def files(self, folder: Path) -> dict[str, Path]:
        r"""Returns the files that are read, by the names of their places in :obj:`folder`."""
        split = f"split/{self.split}"
        if (folder / split / "split_dict.pt").is_file():
            parts = [f"{split}/split_dict.pt"]
        elif self.hetero:
            parts = [f"{split}/nodetype-has-split.csv.gz"]
            parts += [f"{split}/paper/{part}.csv.gz" for part in PARTS]
        else:
            parts = [f"{split}/{part}.csv.gz" for part in PARTS]
        found = {name: folder / name for name in [*(f"raw/{each}" for each in self.raw), *parts]}
        for name in found.keys() & OLD_NAMES.keys():
            if not found[name].is_file():
                found[name] = folder / OLD_NAMES[name]
        return found

    def lacking(self, folder: Path) -> list[str]:
        r"""Returns the names of the files that are not there."""
        files: Mapping[str, Path] = {
            self.release_file: folder / self.release_file,
            **self.files(folder),
        }
        return [name for name, path in files.items() if not path.is_file()]

    def not_found(self, roots: list[Path]) -> DataNotFoundError:
        r"""Says in one line which files go where, and where they were looked for."""
        folders = [root / sub for root in roots for sub in self._folders()]
        begun = next((folder for folder in folders if folder.is_dir()), None)
        if begun is not None:
            lacking = self.lacking(begun)
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            where = f"'{begun}' lacks {', '.join(lacking[:3])}{more}"
        else:
            where = f"it is not in {', '.join(repr(str(root)) for root in roots)}"
        return DataNotFoundError(
            f"'{self.name}' is to be fetched by hand, and {where}: unpack {self.url} and move its "
            f"folder '{self.archive}' to '{begun or folders[0]}', so that '{self.release_file}', "
            f"'raw' and 'split' are in it, or set $BITGNN_DATA to a folder that has "
            f"'{self.folder}'"
        )

    @property
    def url(self) -> str:
        return f"{HOST}/{self.archive}.zip"

    def _folders(self) -> tuple[str, str]:
        return self.folder, f"OGB/{self.folder}"


def _csv(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.csv.gz" for name in names)


_GRAPH = ("edge", "num-node-list", "num-edge-list", "node-label")
_RELATIONS = (
    "author___affiliated_with___institution",
    "author___writes___paper",
    "paper___cites___paper",
    "paper___has_topic___field_of_study",
)
_HETERO = (
    *("num-node-dict", "triplet-type-list", "nodetype-has-label"),
    *("node-feat/paper/node-feat", "node-feat/paper/node_year", "node-label/paper/node-label"),
    *(
        f"relations/{relation}/{name}"
        for relation in _RELATIONS
        for name in ("edge", "num-edge-list", "edge_reltype")
    ),
)

SETS = {
    each.name: each
    for each in [
        OGBSet(
            "ogbn-arxiv",
            archive="arxiv",
            split="time",
            num_outputs=40,
            raw=_csv(*_GRAPH, "node-feat", "node_year"),
            graph=undirected,
        ),
        OGBSet(
            "ogbn-products",
            archive="products",
            split="sales_ranking",
            num_outputs=47,
            raw=_csv(*_GRAPH, "node-feat"),
            graph=as_stored,
        ),
        OGBSet(
            "ogbn-proteins",
            archive="proteins",
            split="species",
            num_outputs=112,
            raw=_csv(*_GRAPH, "edge-feat", "node_species"),
            graph=mean_of_edges,
            several=True,
        ),
        OGBSet(
            "ogbn-mag",
            archive="mag",
            split="time",
            num_outputs=349,
            raw=_csv(*_HETERO),
            graph=papers_only,
            release=2,
            hetero=True,
        ),
        OGBSet(
            "ogbn-papers100M",
            archive="papers100M-bin",
            split="time",
            num_outputs=172,
            raw=("data.npz", "node-label.npz"),
        ),
    ]
}
