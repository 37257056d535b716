import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch_geometric.data import Data

from bitgnn.data.ogb.package import Score, nodeproppred, read_graph, read_split
from bitgnn.data.task import accuracy
from tests.data.ogb_files import write_ogb, write_split_dict

# Whatever asks the network or standard input is noted: a thread that swallows errors is no way
# around it.
SCRIPT = """
import socket, sys, threading
asked = []

def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "builtins.input"):
        asked.append(event)
        raise OSError(f"{event} is refused")

sys.addaudithook(hook)

import torch
import bitgnn
assert "ogb" not in sys.modules
for name in sys.argv[2:]:
    t = bitgnn.task(name, root=sys.argv[1])
    t.evaluate(torch.randn(t.num_nodes, t.num_classes), t.split(0).test)
assert "ogb" in sys.modules and "outdated" not in sys.modules
for thread in threading.enumerate():
    if thread is not threading.main_thread() and not thread.daemon:
        thread.join()
assert not asked, asked
for ask in (input, lambda: socket.create_connection(("127.0.0.1", 9))):
    try:
        ask()
    except OSError:
        pass
assert asked == ["builtins.input", "socket.getaddrinfo"], asked
"""


def test_no_network_and_no_questions(tmp_path):
    names = ("ogbn-arxiv", "ogbn-proteins", "ogbn-mag")
    for name in names:
        write_ogb(name, tmp_path)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, tmp_path, *names],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
        stdin=subprocess.DEVNULL,
    )


def test_accuracy_is_bitgnns_own():
    generator = torch.Generator().manual_seed(0)
    for num_nodes in (1, 7, 1000):
        y = torch.randint(40, (num_nodes,), generator=generator)
        out = torch.randn(num_nodes, 40, generator=generator)
        out[torch.rand(num_nodes, generator=generator) < 0.5] = 0.0  # Of equal ones, the first.
        assert Score("ogbn-arxiv")(out, y) == accuracy(out, y)
        assert Score("ogbn-arxiv")(out.bfloat16(), y) == accuracy(out.bfloat16(), y)


def test_rocauc_is_the_mean_over_labels():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(2, (50, 112), generator=generator)
    y[:, 3] = 1  # Nothing to tell apart.
    y[torch.rand(50, 112, generator=generator) < 0.1] = -1
    out = torch.randn(50, 112, generator=generator)
    expected = [
        roc_auc_score(label[label >= 0], score[label >= 0])
        for label, score in zip(y.t(), out.t(), strict=True)
        if set(label.tolist()) >= {0, 1}
    ]
    assert len(expected) == 111
    score = Score("ogbn-proteins")
    assert score(out, y) == pytest.approx(sum(expected) / len(expected), abs=1e-12)
    assert score(out.half(), y) == pytest.approx(score(out, y), abs=0.01)
    with pytest.raises(ValueError, match="nodes of both classes"):
        score(out, torch.ones_like(y))


class Mark:
    r"""Leaves a trace where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_what_ogb_wrote_is_loaded_safely(tmp_path, monkeypatch):
    def process(self):
        torch.save((Mark(tmp_path / "mark"), {}), self.processed_paths[0])

    folder = write_ogb("ogbn-arxiv", tmp_path)
    monkeypatch.setattr(nodeproppred().PygNodePropPredDataset, "process", process)
    with pytest.raises(Exception, match="Weights only load failed"):
        read_graph("ogbn-arxiv", 1, folder)
    assert not (tmp_path / "mark").exists()


def test_types_are_allowed_for_the_moment_only(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    assert Data in before  # PyG allows it for good.
    folder = write_ogb("ogbn-arxiv", tmp_path)
    write_split_dict(folder)
    read_graph("ogbn-arxiv", 1, folder)
    read_split("ogbn-arxiv", "time", folder)
    assert set(torch.serialization.get_safe_globals()) == before


def test_split_of_arrays_and_tensors(tmp_path):
    folder = write_ogb("ogbn-arxiv", tmp_path)
    table = read_split("ogbn-arxiv", "time", folder)
    assert sorted(torch.cat(list(table.values())).tolist()) == list(range(60))
    write_split_dict(folder)
    split = read_split("ogbn-arxiv", "time", folder)
    assert split["train"].tolist() == list(range(0, 60, 2))
    assert split["test"].tolist() == list(range(3, 60, 4))


def test_a_split_is_loaded_safely(tmp_path):
    folder = write_ogb("ogbn-arxiv", tmp_path)
    path = write_split_dict(folder)
    half = path.read_bytes()[: path.stat().st_size // 2]
    torch.save({"train": Mark(tmp_path / "mark")}, path)
    for content in (path.read_bytes(), half, b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="'split_dict.pt' of 'ogbn-arxiv' is damaged or"):
            read_split("ogbn-arxiv", "time", folder)
    assert not (tmp_path / "mark").exists()
