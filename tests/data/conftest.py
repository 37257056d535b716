import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csr_matrix

from bitgnn.data.registry import lookup
from bitgnn.data.source import PyGSource

NUM_NODES, NUM_SPLITS = 12, 10
LABELS = np.arange(NUM_NODES) % 2
EDGES = np.stack([np.arange(NUM_NODES - 1), np.arange(1, NUM_NODES)], axis=1)
# Split i trains on nodes i and i + 1, validates on i + 2 and i + 3, and tests on the others.
_OFFSET = (np.arange(NUM_NODES) - np.arange(NUM_SPLITS)[:, None]) % NUM_NODES
MASKS = {"train": _OFFSET < 2, "val": (_OFFSET == 2) | (_OFFSET == 3), "test": _OFFSET > 3}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def urlopen(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.delenv("BITGNN_DATA", raising=False)
    monkeypatch.setattr("bitgnn.data.source.urlopen", urlopen)


@pytest.fixture
def write_raw() -> Callable[[str, Path], Path]:
    r"""Returns a function that writes tiny raw files of a data set below a root."""

    def write(name: str, root: Path) -> Path:
        entry = lookup(name)
        assert isinstance(entry.load, PyGSource)
        files = [root / file for file in entry.load.raw_files()]
        files[0].parent.mkdir(parents=True)
        WRITERS[entry.family](files)
        return root

    return write


def write_graph_npz(files: list[Path]) -> None:
    adj = csr_matrix((np.ones(len(EDGES), np.float32), EDGES.T), shape=(NUM_NODES, NUM_NODES))
    arrays = {"labels": LABELS, "class_names": np.array(["a", "b"], dtype=object)}
    for key, matrix in {
        "adj": adj,
        "attr": csr_matrix(np.eye(NUM_NODES, 3, dtype=np.float32)),
    }.items():
        arrays |= {f"{key}_data": matrix.data, f"{key}_indices": matrix.indices}
        arrays |= {f"{key}_indptr": matrix.indptr, f"{key}_shape": np.array(matrix.shape)}
    np.savez(files[0], **arrays)


def write_wikics(files: list[Path]) -> None:
    graph = {
        "features": np.eye(NUM_NODES, 3).tolist(),
        "labels": LABELS.tolist(),
        "links": [[(node + 1) % NUM_NODES] for node in range(NUM_NODES)],
        "train_masks": MASKS["train"].tolist(),
        "val_masks": MASKS["val"].tolist(),
        "stopping_masks": MASKS["val"].tolist(),
        "test_mask": (np.arange(NUM_NODES) == 11).tolist(),
    }
    files[0].write_text(json.dumps(graph))


def write_geom_gcn(files: list[Path]) -> None:
    nodes = [f"{node}\t0,1\t{label}\n" for node, label in enumerate(LABELS)]
    files[0].write_text("node_id\tfeature\tlabel\n" + "".join(nodes))
    files[1].write_text("a\tb\n" + "".join(f"{a}\t{b}\n" for a, b in EDGES))
    for i, file in enumerate(files[2:]):
        np.savez(file, **{f"{key}_mask": mask[i] for key, mask in MASKS.items()})


def write_heterophilous(files: list[Path]) -> None:
    masks = {f"{key}_masks": mask for key, mask in MASKS.items()}
    x = np.eye(NUM_NODES, 3, dtype=np.float32)
    np.savez(files[0], node_features=x, node_labels=LABELS, edges=EDGES, **masks)


def write_linkx(files: list[Path]) -> None:
    if files[0].parts[-3] == "genius":
        graph = {"edge_index": EDGES.T, "node_feat": np.eye(NUM_NODES, 3), "label": LABELS[:, None]}
    else:
        info = np.stack([LABELS + 1, LABELS + 1, LABELS], axis=1)
        info[-1, 1] = 0  # A node without a label.
        adj = csr_matrix((np.ones(len(EDGES)), EDGES.T), shape=(NUM_NODES, NUM_NODES))
        graph = {"A": adj, "local_info": info}
    savemat(files[0], graph)
    keys = {"train": "train", "val": "valid", "test": "test"}
    splits = [{keys[k]: np.flatnonzero(m[i]) for k, m in MASKS.items()} for i in range(NUM_SPLITS)]
    for file in files[1:]:
        np.save(file, np.array(splits, dtype=object))


WRITERS = {
    "Amazon": write_graph_npz,
    "Coauthor": write_graph_npz,
    "CitationFull": write_graph_npz,
    "WikiCS": write_wikics,
    "WebKB": write_geom_gcn,
    "Actor": write_geom_gcn,
    "WikipediaNetwork": write_geom_gcn,
    "HeterophilousGraphDataset": write_heterophilous,
    "LINKXDataset": write_linkx,
}
