import json
import math
import sys

import pytest
import torch

from benchmarks.scale import scale
from benchmarks.scaling import graphs, processes
from benchmarks.scaling.graphs import SHAPES, part_of, read_graph, write_graph
from benchmarks.scaling.jobs import SIDES, TITLES, WHATS, Job, measure
from benchmarks.scaling.page import LINES, growth, growth_figure, slope, to_markdown
from bitgnn.experiment.speed.graphs import Shape

SMALL = Shape(300, 4_000, 6, 5)


def job(folder, what="packed", side="ternary", **changes):
    how = {"graph": "arxiv", "part": 0.002, "model": "gcn", "layers": 2, "hidden": 8}
    how |= {"batch_size": 100, "threads": 1, "seconds": 0.0, "folder": folder, **changes}
    return Job(what, side, **how)


@pytest.fixture
def row():
    row = {"graph": "arxiv", "part": 0.5, "nodes": 100, "edges": 900, "what": "packed"}
    row |= {
        "side": "ternary",
        "seconds": 2.0,
        "cpu_seconds": 3.0,
        "calls": 3,
        "prepare_seconds": 0.5,
    }
    return {**row, "peak_mib": 30.0, "private_mib": 20.0}


def test_graphs_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "PIECE", 700)
    write_graph(SMALL, tmp_path)
    x, edge_index = graph = read_graph(SMALL, tmp_path)
    assert x.shape == (300, 6) and abs(x.mean()) < 0.1 and abs(x.std() - 1) < 0.1
    source, target = edge_index
    assert edge_index.shape == (2, 4_000) and graph.num_nodes == 300
    keys = 300 * target + source
    assert bool((keys.diff() > 0).all())  # by target, then source; none is there twice
    assert bool((source != target).all())
    assert edge_index.min() >= 0 and edge_index.max() < 300
    degrees = source.bincount(minlength=300).sort(descending=True).values
    assert degrees[:3].sum() > 8 * degrees.double().mean()  # few nodes have many of the edges
    assert target.bincount(minlength=300).max() < 4 * 4_000 / 300
    write_graph(SMALL, tmp_path)
    assert torch.equal(read_graph(SMALL, tmp_path).edge_index, edge_index)


def test_as_many_edges_as_there_can_be(tmp_path):
    write_graph(Shape(12, 12 * 11, 2, 2), tmp_path)
    assert len(read_graph(Shape(12, 12 * 11, 2, 2), tmp_path).edge_index.unique(dim=1).t()) == 132


def test_parts_have_as_many_edges_a_node():
    assert part_of(SHAPES["products"], 1.0) == SHAPES["products"]
    assert part_of(SHAPES["products"], 0.125) == Shape(306_129, 15_464_785, 100, 47)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("what", WHATS)
def test_measurements(what, side, tmp_path):
    tiny, begun = job(tmp_path, what, side), []
    write_graph(tiny.shape, tmp_path)
    threads = torch.get_num_threads()
    try:
        found = measure(tiny, lambda: begun.append(True))
    finally:
        torch.set_num_threads(threads)
    assert begun == [True]
    assert found["seconds"] > 0 and found["cpu_seconds"] > 0 and found["prepare_seconds"] > 0
    assert found["calls"] == (2 if what == "full-batch" else 1)


def test_ways_of_inference_agree(tmp_path):
    tiny = job(tmp_path)
    write_graph(tiny.shape, tmp_path)
    graph = read_graph(tiny.shape, tmp_path)
    outs = [WHATS[what](tiny, graph)() for what in ("layer-wise", "packed")]
    assert outs[0].shape == (tiny.shape.num_nodes, 40)
    assert (outs[0] - outs[1]).square().mean().sqrt() < 1e-3 * outs[0].abs().max()


def test_everything_has_a_name():
    assert WHATS.keys() == TITLES.keys() == LINES.keys()


def test_slopes():
    assert slope([1, 2, 4], [3.0, 6.0, 12.0]) == pytest.approx(1)
    assert slope([10, 20, 40, 80], [1.0, 4.0, 16.0, 64.0]) == pytest.approx(2)
    assert slope([1, 2, 4], [0.0, 5.0, 5.0]) == pytest.approx(0)
    assert slope([1, 2], [0.0, 5.0]) is None and slope([7], [5.0]) is None


def test_tables(row):
    large = {**row, "nodes": 200, "edges": 1_800, "seconds": 8.0}
    ended = {**large, "side": "32-bit", "why_not": "took more than 1 GiB"}
    for name in ("seconds", "cpu_seconds", "calls", "prepare_seconds", "peak_mib", "private_mib"):
        del ended[name]
    text = to_markdown([row, large, ended], {"torch": "2"})
    assert (
        "| arxiv | 100 | 900 | packed inference | - | 2.00 | - | 3.00 | - | 20 | - | 30 | 0.50 |"
        in text
    )
    assert (
        "| arxiv | 200 | 1,800 | packed inference | - | 8.00 | - | 3.00 | - | 20 | - | 30 | 0.50 |"
        in text
    )
    assert "- packed inference, 32-bit, arxiv, 200 nodes: took more than 1 GiB" in text
    assert "nothing is said of accuracy" in text
    assert "| arxiv | packed inference | ternary | 2 | 2.00 | 0.00 | 0.00 |" in text
    found = {line["side"]: line for line in growth([row, large, ended])}
    assert found["32-bit"]["sizes"] == 0 and found["32-bit"]["seconds_slope"] is None


def test_figure(row):
    large = {**row, "nodes": 200, "graph": "products", "private_mib": None}
    figure = growth_figure([row, large], "GCN")
    assert len(figure.axes) == 4
    assert [len(ax.lines) for ax in figure.axes] == [1, 1, 1, 1]


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells memory")


@linux
def test_too_much_memory_ends_a_measurement(tmp_path):
    tiny = job(tmp_path)
    processes.write(tiny.shape, tmp_path)
    assert processes.run(tiny, limit=0.0)["why_not"] == "took more than 0 GiB"
    found = processes.run(tiny, limit=1.0)
    assert found["private_mib"] >= 0 and found["peak_mib"] >= 0
    failed = processes.run(job(tmp_path / "absent"), limit=1.0)
    assert "unable to open file" in failed["why_not"]


@linux
def test_the_command(tmp_path, capsys):
    how = {"hidden": 8, "layers": 2, "threads": 1, "seconds": 0.0, "limit": 2.0}
    scale(["arxiv"], [0.004, 0.002], **how, scratch=tmp_path, results=tmp_path, images=tmp_path)
    stored = json.loads((tmp_path / "scale.json").read_text())
    assert len(stored["rows"]) == 2 * len(WHATS) * len(SIDES)
    assert [row["nodes"] for row in stored["rows"][:: len(WHATS) * len(SIDES)]] == [339, 677]
    assert all(row["seconds"] > 0 for row in stored["rows"])
    assert all(math.isfinite(line["seconds_slope"]) for line in stored["growth"])
    assert stored["setting"]["threads"] == 1
    assert (tmp_path / "scale.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"scale.json", "scale.md", "scale.png"}  # Graphs are gone.


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"graph": ["cora"]}, "There is no graph 'cora'; there are arxiv, products"),
        ({"what": ["sleep"]}, "There is no measurement 'sleep'"),
        ({"model": "mlp"}, "There is no model 'mlp'; there are gcn, sage, gat, sgc"),
        ({"part": [1e-4]}, "17 nodes have no room for 232 edges: take a larger part"),
        ({"part": [0.5, 2.0]}, r"above 0, and at most 1 \(got \[0.5, 2.0\]\)"),
    ],
)
def test_what_there_is_not(how, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        scale(**how, results=tmp_path, images=tmp_path)
