r"""A node classification task: a graph, its splits and its metric."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from bitgnn.data.locate import Root, search_path
from bitgnn.data.registry import ENTRIES, Entry, lookup
from bitgnn.data.splits import FixedSplit, PublishedSplits, RandomSplits, Split, Splitter


@dataclass(frozen=True)
class Task:
    r"""A graph whose nodes are to be classified. Made by :func:`task`.

    Args:
        name (str): The canonical name of the data set.
        data (torch_geometric.data.Data): The graph, with :obj:`x`, :obj:`edge_index` and
            :obj:`y` (:obj:`-1` where unlabelled), and without masks. A node has one class,
            or, if :obj:`multilabel`, a row of labels that are 0 or 1.
        metric (str): What :meth:`evaluate` returns, :obj:`"accuracy"` or :obj:`"rocauc"`.
        split_kind (str): :obj:`"public"`, :obj:`"full"`, :obj:`"published"` or
            :obj:`"random"`.
        checksum (str): The SHA-256 of what the graph was made from, equal on all machines.
        root (pathlib.Path, optional): The root whose raw files were read, if any.
        splitter (callable): Makes a split from a seed.
        num_outputs (int, optional): The number of logits a node, where it is not that of the
            classes in :obj:`y`. (default: :obj:`None`)
        score (callable, optional): Computes the metric, between 0 and 1, of logits and labels, in
            place of bitgnn's own. (default: :obj:`None`)
        open_hetero (callable, optional): Opens :obj:`hetero`. (default: :obj:`None`)
    """

    name: str
    data: Data
    metric: str
    split_kind: str
    checksum: str
    root: Path | None
    splitter: Splitter = field(repr=False)
    num_outputs: int | None = field(default=None, repr=False)
    score: Callable[[Tensor, Tensor], float] | None = field(default=None, repr=False)
    open_hetero: Callable[[], HeteroData] | None = field(default=None, repr=False)

    @property
    def num_nodes(self) -> int:
        return self.data.x.size(0)

    @property
    def num_features(self) -> int:
        return self.data.x.size(1)

    @property
    def num_classes(self) -> int:
        r"""The number of logits a node: of classes, or, if :obj:`multilabel`, of labels."""
        return self.num_outputs or int(self.data.y.max()) + 1

    @property
    def multilabel(self) -> bool:
        r"""Whether a node has several labels, each of which may hold or not."""
        return self.data.y.dim() == 2

    @cached_property
    def hetero(self) -> HeteroData | None:
        r"""The heterogeneous graph of which :obj:`data` is a part, opened when first asked for,
        in the form of :class:`torch_geometric.datasets.OGB_MAG`. Only ogbn-mag has one."""
        return None if self.open_hetero is None else self.open_hetero()

    def split(self, seed: int) -> Split:
        r"""Returns the split of a seed: always the same one if :obj:`split_kind` is
        :obj:`"public"` or :obj:`"full"`."""
        return self.splitter(seed)

    def evaluate(self, out: Tensor, mask: Tensor) -> float:
        r"""Returns accuracy or ROC AUC in percent.

        It is NaN where an output is, since no prediction can be read from it.

        Args:
            out (torch.Tensor): The logits of all nodes, on any device.
            mask (torch.Tensor): The boolean mask of the nodes that count.

        Raises:
            ValueError: If the shapes do not fit, the mask is empty, or a ROC AUC is asked of
                nodes that all have the same class (or, of several labels, in each the same).

        Shapes:
            - **out:** :math:`(|\mathcal{V}|, C)`
            - **mask:** :math:`(|\mathcal{V}|)`
        """
        shape = (self.num_nodes, self.num_classes)
        if out.shape != shape:
            raise ValueError(
                f"Logits for '{self.name}' have shape {shape} (got {tuple(out.shape)})"
            )
        if mask.shape != shape[:1] or mask.dtype != torch.bool:
            raise ValueError(
                f"A mask for '{self.name}' is boolean with shape {shape[:1]} "
                f"(got {mask.dtype} with shape {tuple(mask.shape)})"
            )
        mask = mask.to(out.device)
        out, y = out.detach()[mask], self.data.y.to(out.device)[mask]
        if y.numel() == 0:
            raise ValueError(f"The mask for '{self.name}' is empty: there is nothing to evaluate")
        if out.isnan().any():
            return float("nan")
        return 100 * (self.score or METRICS[self.metric])(out, y)


def accuracy(out: Tensor, y: Tensor) -> float:
    return float((out.argmax(dim=-1) == y).sum()) / y.numel()


def rocauc(out: Tensor, y: Tensor) -> float:
    from sklearn.metrics import roc_auc_score  # Takes a second to load, and few sets need it.

    if y.unique().numel() != 2:
        raise ValueError("ROC AUC needs nodes of both classes: choose a mask that has them")
    score = out[:, 1].double() - out[:, 0].double()
    return float(roc_auc_score(y.cpu(), score.cpu()))


METRICS = {"accuracy": accuracy, "rocauc": rocauc}


@dataclass(frozen=True)
class TaskInfo:
    r"""What is known of a data set before it is loaded; sizes may be :obj:`None`."""

    name: str
    family: str
    nodes: int | None
    edges: int | None
    features: int | None
    classes: int | None
    splits: tuple[str, ...]
    metric: str


def available() -> list[TaskInfo]:
    r"""Lists all data sets that :func:`task` can open."""
    return [TaskInfo(e.name, e.family, *e.size, e.splits, e.metric) for e in ENTRIES]


def task(name: str, root: Root = None, split: str | None = None) -> Task:
    r"""Opens a data set.

    Raw files are looked for in :obj:`root`, then in :obj:`$BITGNN_DATA`, laid out as PyG lays
    them out below a folder of the family's name (*e.g.*, :obj:`Planetoid/Cora/raw/ind.cora.x`),
    and else downloaded. Nothing is ever written to these two: downloads and processed graphs go
    to :obj:`$BITGNN_CACHE` (by default :obj:`~/.cache/bitgnn`).

    OGB's sets are laid out as OGB lays them out (*e.g.*,
    :obj:`ogbn_arxiv/raw/edge.csv.gz`) and never downloaded. Their tensors are mapped into memory
    from the cache.

    The graph is what PyG makes of the files: undirected in most families, but directed in
    :class:`~torch_geometric.datasets.WebKB`, :class:`~torch_geometric.datasets.Actor` and
    :class:`~torch_geometric.datasets.WikipediaNetwork`. Of OGB's sets, the graph is what the
    published recipes train on: undirected in ogbn-arxiv, ogbn-products, ogbn-proteins (where
    nodes have the mean of the features of their edges) and ogbn-mag (papers and citations, with
    all else in :attr:`Task.hetero`), but directed in ogbn-papers100M.

    Args:
        name (str): The name of the data set, in any case; see :func:`available`.
        root (str, optional): A folder to look in first. (default: :obj:`None`)
        split (str, optional): The kind of split: :obj:`"public"` (one published split),
            :obj:`"full"` (as public, but all other nodes train), :obj:`"published"` (several,
            of which a seed takes number :obj:`seed % count`), or :obj:`"random"` (20 nodes a
            class train, 30 validate, the rest test; 5 and 10 for :obj:`"Digits"`).
            If :obj:`None`, the data set's first published kind, else :obj:`"random"`.
            (default: :obj:`None`)

    Raises:
        ValueError: If the name or the split is unknown, :obj:`root` is no folder, or a file is
            damaged.
        DataNotFoundError: If the raw files are nowhere and cannot be downloaded.
    """
    entry = lookup(name)
    kind = entry.splits[0] if split is None else split
    if kind not in entry.splits:
        kinds = ", ".join(f"'{kind}'" for kind in entry.splits)
        raise ValueError(f"'{entry.name}' has no split '{split}': choose one of {kinds}")
    search_path(root)  # Digits, which are built in, do not look for a root.
    loaded = entry.load(entry.name, root)
    data = _checked(entry.name, loaded.data, loaded.num_outputs)
    splitter = _splitter(kind, entry, loaded.data, data.y)
    return Task(
        entry.name,
        data,
        entry.metric,
        kind,
        loaded.checksum,
        loaded.root,
        splitter,
        loaded.num_outputs,
        loaded.score,
        loaded.open_hetero,
    )


def _checked(name: str, data: Data, num_outputs: int | None) -> Data:
    x, y = data.x, data.y
    if x is None or x.dim() != 2 or not x.is_floating_point():
        raise ValueError(f"'{name}' cannot be used: its nodes have no feature vectors")
    if y is not None and y.shape == (x.size(0), num_outputs):
        return Data(x=x, edge_index=data.edge_index, y=y.long())
    if y is None or y.numel() != x.size(0) or y.is_floating_point():
        raise ValueError(f"'{name}' cannot be used: its nodes have no single class each")
    return Data(x=x, edge_index=data.edge_index, y=y.view(-1).long())


def _splitter(kind: str, entry: Entry, data: Data, y: Tensor) -> Splitter:
    if kind == "random":
        return RandomSplits(y, *entry.per_class)
    train, val, test = data.train_mask, data.val_mask, data.test_mask
    if kind == "published":
        return PublishedSplits(y, train, val, test)
    if kind == "full":
        train = ~(val | test)
    return FixedSplit(Split(kind, train, val, test))
