r"""The table of all data sets: what a name means."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from bitgnn.data.checksum import array_digest, file_digest, npz_digest
from bitgnn.data.digits import digits_graph
from bitgnn.data.locate import Root
from bitgnn.data.ogb import SETS, OGBSource
from bitgnn.data.source import Loaded, PyGSource

Size = tuple[int | None, int | None, int | None, int | None]


@dataclass(frozen=True)
class Entry:
    r"""One data set.

    Args:
        name (str): The canonical name, unique without regard to case.
        family (str): The class in :obj:`torch_geometric.datasets`, :obj:`"OGB"` or
            :obj:`"scikit-learn"`.
        load (callable): Makes the graph from a name (for messages) and an optional root.
        splits (tuple[str]): The kinds of split on offer, the default first.
        size (tuple): Nodes, edges as stored in :obj:`edge_index`, features and classes (or
            labels, if a node has several), as published with PyG or by OGB; :obj:`None` where
            they are not.
        metric (str, optional): :obj:`"accuracy"` or :obj:`"rocauc"`.
        per_class (tuple[int, int], optional): The number of training and validation nodes a
            class in random splits.
    """

    name: str
    family: str
    load: Callable[[str, Root], Loaded]
    splits: tuple[str, ...]
    size: Size
    metric: str = "accuracy"
    per_class: tuple[int, int] = (20, 30)


@dataclass(frozen=True)
class Family:
    r"""Data sets of one PyG class; :obj:`sizes` maps PyG's names to :obj:`Entry.size`.

    An empty name stands for the only data set of a class that takes none.
    """

    family: str
    splits: tuple[str, ...]
    sizes: dict[str, Size]
    digest: Callable[[Path], str] = file_digest
    rocauc: frozenset[str] = frozenset()
    # PyG's name -> ours, where another family has that name:
    renamed: dict[str, str] | None = None
    options: dict[str, bool] | None = None

    def entries(self) -> list[Entry]:
        return [
            Entry(
                name=(self.renamed or {}).get(name, name or self.family),
                family=self.family,
                load=PyGSource(
                    self.family,
                    ({"name": name} if name else {}) | (self.options or {}),
                    self.digest,
                ),
                splits=self.splits,
                size=size,
                metric="rocauc" if name in self.rocauc else "accuracy",
            )
            for name, size in self.sizes.items()
        ]


def load_digits(name: str, root: Root) -> Loaded:
    data = digits_graph()
    tensors = {key: data[key].numpy() for key in ("x", "edge_index", "y")}
    return Loaded(data, array_digest(**tensors), None)


PUBLISHED = ("published", "random")
RANDOM = ("random",)

FAMILIES = [
    Family(
        "Planetoid",
        ("public", "full", "random"),
        {
            "Cora": (2708, 10556, 1433, 7),
            "CiteSeer": (3327, 9104, 3703, 6),
            "PubMed": (19717, 88648, 500, 3),
        },
    ),
    Family(
        "Amazon",
        RANDOM,
        {"Computers": (13752, 491722, 767, 10), "Photo": (7650, 238162, 745, 8)},
        npz_digest,
    ),
    Family(
        "Coauthor",
        RANDOM,
        {"CS": (18333, 163788, 6805, 15), "Physics": (34493, 495924, 8415, 5)},
        npz_digest,
    ),
    Family("WikiCS", PUBLISHED, {"": (11701, None, 300, 10)}, options={"is_undirected": True}),
    Family(
        "WebKB",
        PUBLISHED,
        {
            "Cornell": (183, 298, 1703, 5),
            "Texas": (183, 325, 1703, 5),
            "Wisconsin": (251, 515, 1703, 5),
        },
    ),
    Family("Actor", PUBLISHED, {"": (7600, 30019, 932, 5)}),
    Family(
        "WikipediaNetwork",
        PUBLISHED,
        {"chameleon": (2277, 36101, 2325, 5), "squirrel": (5201, 217073, 2089, 5)},
    ),
    Family(
        "HeterophilousGraphDataset",
        PUBLISHED,
        {
            "Roman-empire": (22662, 2 * 32927, 300, 18),
            "Amazon-ratings": (24492, 2 * 93050, 300, 5),
            "Minesweeper": (10000, 2 * 39402, 7, 2),
            "Tolokers": (11758, 2 * 519000, 10, 2),
            "Questions": (48921, 2 * 153540, 301, 2),
        },
        rocauc=frozenset({"Minesweeper", "Tolokers", "Questions"}),
    ),
    Family(
        "CitationFull",
        RANDOM,
        {
            "Cora": (19793, 126842, 8710, 70),
            "Cora_ML": (2995, 16316, 2879, 7),
            "CiteSeer": (4230, 10674, 602, 6),
            "DBLP": (17716, 105734, 1639, 4),
            "PubMed": (19717, 88648, 500, 3),
        },
        npz_digest,
        renamed={name: f"CitationFull-{name}" for name in ("Cora", "CiteSeer", "PubMed")},
    ),
    Family("LINKXDataset", PUBLISHED, {"penn94": (41554, None, None, 2)}),
    Family(
        "LINKXDataset",
        RANDOM,
        {
            "reed98": (962, None, None, 2),
            "amherst41": (2235, None, None, 2),
            "cornell5": (18660, None, None, 2),
            "johnshopkins55": (5180, None, None, 2),
            "genius": (421961, None, 12, 2),
        },
        rocauc=frozenset({"genius"}),
    ),
]

DIGITS = Entry(
    "Digits", "scikit-learn", load_digits, RANDOM, (1797, 24678, 64, 10), per_class=(5, 10)
)

# Edges as the graphs have them: of arXiv and MAG, citations in both directions.
OGB_SIZES: dict[str, Size] = {
    "ogbn-arxiv": (169_343, 2_315_598, 128, 40),
    "ogbn-products": (2_449_029, 123_718_280, 100, 47),
    "ogbn-proteins": (132_534, 79_122_504, 8, 112),
    "ogbn-mag": (736_389, 10_792_672, 128, 349),
    "ogbn-papers100M": (111_059_956, 1_615_685_872, 128, 172),
}

OGB = [
    Entry(
        name,
        "OGB",
        OGBSource(name),
        ("public",),
        size,
        metric="rocauc" if SETS[name].several else "accuracy",
    )
    for name, size in OGB_SIZES.items()
]

ENTRIES = [*(entry for family in FAMILIES for entry in family.entries()), *OGB, DIGITS]

# PyG has these in the same families, but does not offer node classification with features.
REFUSED = {
    "crocodile": "its nodes have a real number to predict instead of a class",
    "wiki": "PyG does not document it, and fetches it as pickled page views from a file share",
}


def lookup(name: str) -> Entry:
    r"""Returns the data set of a name, without regard to case."""
    if not isinstance(name, str):
        raise TypeError(f"The name of a data set is a string (got {name!r})")
    key = _key(name)
    if key in REFUSED:
        raise ValueError(f"'{name}' cannot be used: {REFUSED[key]}")
    entries = {_key(entry.name): entry for entry in ENTRIES}
    if key not in entries:
        close = [
            f"'{entries[match].name}'" for match in get_close_matches(key, entries, cutoff=0.5)
        ]
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(
            f"There is no data set '{name}': {hint}`bitgnn datasets` lists all {len(entries)}"
        )
    return entries[key]


def _key(name: str) -> str:
    return name.casefold().replace("_", "-")
