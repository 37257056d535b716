r"""From what OGB's loader makes to the graph that the published recipes train on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import to_undirected

from bitgnn.data.ogb.arrays import open_array
from bitgnn.data.ogb.package import Split

PAPER = "paper"
CITES = (PAPER, "cites", PAPER)
PARTS = {"train": "train", "val": "valid", "test": "test"}

Arrays = dict[str, Tensor]


def undirected(data: Data) -> Arrays:
    r"""Citations, made undirected as OGB's :obj:`arxiv/gnn.py` does."""
    return {"x": data.x, "edge_index": _both_ways(data.edge_index, len(data.x)), "y": data.y}


def as_stored(data: Data) -> Arrays:
    r"""The graph as OGB's loader makes it, each edge in both directions."""
    return {"x": data.x, "edge_index": data.edge_index, "y": data.y}


def mean_of_edges(data: Data) -> Arrays:
    r"""Gives nodes the mean of the features of their edges, as OGB's :obj:`proteins/gnn.py`
    does."""
    target = data.edge_index[1]
    count = torch.bincount(target, minlength=data.num_nodes).clamp(min=1)
    # A sum in one order, so that features are the same on every machine.
    sums = [
        torch.bincount(target, weights=column.double(), minlength=data.num_nodes)
        for column in data.edge_attr.unbind(dim=1)
    ]
    x = (torch.stack(sums, dim=1) / count.unsqueeze(1)).float()
    return {"x": x, "edge_index": data.edge_index, "y": data.y}


def papers_only(data: Data) -> Arrays:
    r"""Papers and their citations, made undirected as OGB's :obj:`mag/gnn.py` does, and beside
    them all relations as they are."""
    x = data.x_dict[PAPER]
    edge_index = _both_ways(data.edge_index_dict[CITES], len(x))
    arrays = {"x": x, "edge_index": edge_index, "y": data.y_dict[PAPER]}
    for edge_type, edges in data.edge_index_dict.items():
        arrays["___".join(edge_type)] = edges
    for node_type, count in data.num_nodes_dict.items():
        if node_type != PAPER:
            arrays[f"num_nodes.{node_type}"] = torch.tensor([count])
    arrays["year"] = data.node_year[PAPER].view(-1)
    return arrays


@dataclass(frozen=True)
class PapersAndMore:
    r"""Opens the heterogeneous graph of ogbn-mag, in the form of
    :class:`torch_geometric.datasets.OGB_MAG`.

    Args:
        folder (pathlib.Path): Where its arrays are.
    """

    folder: Path

    def __call__(self) -> HeteroData:
        read = {path.stem: path for path in sorted(self.folder.glob("*.npy"))}
        data = HeteroData()
        for name, path in read.items():
            if name.startswith("num_nodes."):
                data[name.partition(".")[2]].num_nodes = int(open_array(path))
            elif "___" in name:
                data[tuple(name.split("___"))].edge_index = open_array(path)
        for name in ("x", "y", "year", *(f"{part}_mask" for part in PARTS)):
            data[PAPER][name] = open_array(read[name])
        return data


def with_masks(arrays: Arrays, split: Split, num_outputs: int) -> Arrays:
    r"""Adds the masks of a split, and checks that everything fits together.

    Args:
        arrays (dict): :obj:`x`, :obj:`edge_index` and :obj:`y`.
        split (dict): The nodes of each part.
        num_outputs (int): The number of classes; or of labels, if a node has several.

    Returns:
        The arrays and masks, with a class a node in :obj:`y`, or all its labels, and :obj:`-1`
        for none.

    Raises:
        ValueError: If they do not fit.
    """
    y = arrays["y"]
    y = (y.nan_to_num(-1) if y.is_floating_point() else y).long()
    y = y.view(-1) if y.size(1) == 1 else y
    masks = {f"{part}_mask": _mask(split[name], len(y)) for part, name in PARTS.items()}
    arrays = {**arrays, "y": y, **masks}
    _check(arrays, num_outputs)
    return arrays


def _mask(nodes: Tensor | Mapping[str, Tensor], num_nodes: int) -> Tensor:
    index = nodes[PAPER] if isinstance(nodes, Mapping) else nodes
    mask = torch.zeros(num_nodes, dtype=torch.bool)
    mask[index] = True
    return mask


def _check(arrays: Arrays, num_outputs: int) -> None:
    x, edges, y = arrays["x"], arrays["edge_index"], arrays["y"]
    train, val, test = (arrays[f"{part}_mask"] for part in PARTS)
    several = y.dim() == 2
    if len(x) != len(y):
        raise ValueError(f"{len(x)} nodes have features, {len(y)} have labels")
    if several and y.size(1) != num_outputs:
        raise ValueError(f"nodes have {y.size(1)} labels instead of {num_outputs}")
    if y.min() < -1 or y.max() >= (2 if several else num_outputs):
        raise ValueError("a label stands for no class")
    if edges.min() < 0 or edges.max() >= len(x):
        raise ValueError(f"an edge leads to none of the {len(x)} nodes")
    if not (train.any() and val.any() and test.any()):
        raise ValueError("a part of the split is empty")
    if (train & val | train & test | val & test).any():
        raise ValueError("a node is in two parts of the split")
    if not several and ((train | val | test) & (y < 0)).any():
        raise ValueError("a node of the split has no label")


def _both_ways(edge_index: Tensor, num_nodes: int) -> Tensor:
    return to_undirected(edge_index, num_nodes=num_nodes)
