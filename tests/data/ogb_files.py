"""Lays small random graphs out on disk as OGB lays out its node-property sets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

NODES, EDGES = 60, 150
RELATIONS = {
    ("author", "affiliated_with", "institution"): (20, 5, 30),
    ("author", "writes", "paper"): (20, NODES, 40),
    ("paper", "cites", "paper"): (NODES, NODES, EDGES),
    ("paper", "has_topic", "field_of_study"): (NODES, 7, 50),
}


def write_ogb(name: str, root: Path, num_nodes: int = NODES, seed: int = 0) -> Path:
    """Writes the raw files of a set below a root and returns the set's folder.

    Args:
        name (str): The name of the set.
        root (Path): The root.
        num_nodes (int, optional): The number of nodes, half of which train. (default: `60`)
        seed (int, optional): The seed of what is random. (default: `0`)
    """
    rng, folder = np.random.default_rng(seed), root / name.replace("-", "_")
    (folder / "raw").mkdir(parents=True)
    (folder / "mapping").mkdir()
    (folder / "mapping" / "README.md").write_text("what the numbers of nodes and labels stand for")
    (folder / f"RELEASE_v{2 if name == 'ogbn-mag' else 1}.txt").touch()
    WRITERS[name](folder, rng, num_nodes)
    return folder


def write_csv(path: Path, values: np.ndarray | list, header: list[str] | bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(values).to_csv(path, index=False, header=header, compression="gzip")


def write_split(folder: Path, nodes: np.ndarray) -> None:
    train, valid, test = np.split(nodes, [len(nodes) // 2, len(nodes) * 3 // 4])
    for part, index in (("train", train), ("valid", valid), ("test", test)):
        write_csv(folder / f"{part}.csv.gz", index)


def write_split_dict(folder: Path, num_nodes: int = NODES) -> Path:
    """Puts a split in OGB's other form beside the one that is there: even nodes train."""
    nodes = np.arange(num_nodes)
    split = {"train": nodes[::2], "valid": nodes[1::4], "test": torch.from_numpy(nodes[3::4])}
    path = next((folder / "split").iterdir()) / "split_dict.pt"
    torch.save(split, path)
    return path


def features(rng: np.random.Generator, num_nodes: int, width: int) -> np.ndarray:
    return rng.standard_normal((num_nodes, width)).astype(np.float32).round(6)


def edges(rng: np.random.Generator, sources: int, targets: int, count: int) -> np.ndarray:
    """No edge is there twice, in either direction, and none leads from a node to itself."""
    source, target = np.divmod(rng.permutation(sources * targets), targets)
    kept = source < target if sources == targets else np.full(len(source), True)
    return np.stack([source[kept], target[kept]], axis=1)[:count]


def write_csv_graph(folder: Path, rng: np.random.Generator, num_nodes: int, count: int) -> None:
    raw = folder / "raw"
    write_csv(raw / "edge.csv.gz", edges(rng, num_nodes, num_nodes, count))
    write_csv(raw / "num-node-list.csv.gz", [num_nodes])
    write_csv(raw / "num-edge-list.csv.gz", [count])


def write_arxiv(folder: Path, rng: np.random.Generator, num_nodes: int) -> None:
    write_csv_graph(folder, rng, num_nodes, 5 * num_nodes)
    write_csv(folder / "raw" / "node-feat.csv.gz", features(rng, num_nodes, 16))
    write_csv(folder / "raw" / "node_year.csv.gz", rng.integers(2010, 2020, num_nodes))
    write_csv(folder / "raw" / "node-label.csv.gz", rng.integers(0, 40, num_nodes))
    write_split(folder / "split" / "time", rng.permutation(num_nodes))


def write_products(folder: Path, rng: np.random.Generator, num_nodes: int) -> None:
    write_csv_graph(folder, rng, num_nodes, EDGES)
    write_csv(folder / "raw" / "node-feat.csv.gz", features(rng, num_nodes, 10))
    write_csv(folder / "raw" / "node-label.csv.gz", rng.integers(0, 47, num_nodes))
    write_split(folder / "split" / "sales_ranking", rng.permutation(num_nodes))


def write_proteins(folder: Path, rng: np.random.Generator, num_nodes: int) -> None:
    write_csv_graph(folder, rng, num_nodes, EDGES)
    write_csv(folder / "raw" / "edge-feat.csv.gz", rng.random((EDGES, 8)).round(3))
    write_csv(folder / "raw" / "species.csv.gz", rng.integers(1, 9, num_nodes))
    write_csv(folder / "raw" / "node-label.csv.gz", rng.integers(0, 2, (num_nodes, 112)))
    write_split(folder / "split" / "species", rng.permutation(num_nodes))


def write_mag(folder: Path, rng: np.random.Generator, num_nodes: int) -> None:
    raw, papers = folder / "raw", "paper/node"
    counts = {"author": 20, "field_of_study": 7, "institution": 5, "paper": num_nodes}
    write_csv(raw / "num-node-dict.csv.gz", [list(counts.values())], header=list(counts))
    write_csv(raw / "triplet-type-list.csv.gz", [list(relation) for relation in RELATIONS])
    for kind in ("feat", "label"):
        has = [[node_type == "paper" for node_type in counts]]
        write_csv(raw / f"nodetype-has-{kind}.csv.gz", has, header=list(counts))
    write_csv(raw / "node-feat" / f"{papers}-feat.csv.gz", features(rng, num_nodes, 12))
    write_csv(raw / "node-feat" / f"{papers}_year.csv.gz", rng.integers(2010, 2020, num_nodes))
    write_csv(raw / "node-label" / f"{papers}-label.csv.gz", rng.integers(0, 349, num_nodes))
    for number, (relation, (sources, targets, count)) in enumerate(RELATIONS.items()):
        place = raw / "relations" / "___".join(relation)
        write_csv(place / "edge.csv.gz", edges(rng, sources, targets, count))
        write_csv(place / "edge_reltype.csv.gz", np.full(count, number))
        write_csv(place / "num-edge-list.csv.gz", [count])
    split = folder / "split" / "time"
    write_csv(split / "nodetype-has-split.csv.gz", has, header=list(counts))
    write_split(split / "paper", rng.permutation(num_nodes))


def write_papers(folder: Path, rng: np.random.Generator, num_nodes: int) -> None:
    np.savez_compressed(
        folder / "raw" / "data.npz",
        edge_index=np.ascontiguousarray(edges(rng, num_nodes, num_nodes, EDGES).T),
        num_nodes_list=np.array([num_nodes]),
        num_edges_list=np.array([EDGES]),
        node_feat=features(rng, num_nodes, 16),
        node_year=rng.integers(2010, 2020, (num_nodes, 1)),
    )
    label = rng.integers(0, 172, (num_nodes, 1)).astype(np.float32)
    label[::3] = np.nan  # Of the published set, most nodes have none.
    np.savez_compressed(folder / "raw" / "node-label.npz", node_label=label)
    labelled = np.flatnonzero(~np.isnan(label))
    write_split(folder / "split" / "time", rng.permutation(labelled))


WRITERS: dict[str, Callable[[Path, np.random.Generator, int], None]] = {
    "ogbn-arxiv": write_arxiv,
    "ogbn-products": write_products,
    "ogbn-proteins": write_proteins,
    "ogbn-mag": write_mag,
    "ogbn-papers100M": write_papers,
}
