import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks import roofline
from benchmarks.roofline import Limits, measure_limits, passes_of, programs
from bitgnn.experiment.speed.graphs import Shape, random_graph
from bitgnn.kernels import native
from bitgnn.packed import prepare, reference

LIMITS = Limits(read=1e9, gather={1: 1e9, 4: 2e9, 16: 4e9}, int8=1e12, fp32=1e10)
SMALL = Shape(200, 3000, 8, 3)

needs_native = pytest.mark.skipif(not native.enabled(), reason="There are no native kernels")


def test_rows_of_any_number_of_lines():
    assert [LIMITS.gathered(lines) for lines in (1, 4, 5, 8, 30)] == [1e9, 2e9, 2e9, 2e9, 4e9]


@needs_native
def test_what_a_pass_needs_at_the_limits():
    data = random_graph(SMALL)
    x, graph = torch.randn(200, roofline.WIDTH), prepare(data.edge_index, 200)
    rows = {
        (row["kernel"], row["pass"]): row
        for name, program in programs().items()
        for row in passes_of(name, program, x, graph, LIMITS)
    }
    assert all(row["ms"] > 0 for row in rows.values())
    # 3000 edges and 200 loops, of 4 lines of 64 bytes at 2 GB/s.
    summed = rows["sum over edges", 2]
    assert summed["gather_ms"] == pytest.approx(1e3 * 3200 * 256 / 2e9)
    assert summed["stream_ms"] == pytest.approx(1e3 * 200 * 256 * 4 / 1e9)  # the output
    assert summed["product_ms"] == 0.0
    assert summed["limit_ms"] == max(summed["gather_ms"], summed["stream_ms"])
    assert summed["share"] == pytest.approx(summed["limit_ms"] / summed["ms"])
    both = summed["gather_ms"] + summed["stream_ms"]
    assert summed["share_in_turn"] == pytest.approx(both / summed["ms"])
    assert rows["sum over edges", 1]["stream_ms"] == pytest.approx(1e3 * 200 * 256 * 5 / 1e9)
    assert rows["product", 1]["product_ms"] == pytest.approx(1e3 * 200 * 256 * 256 / 1e12)
    assert rows["product, 32-bit", 1]["product_ms"] == pytest.approx(1e3 * 200 * 256 * 256 / 1e10)
    # Sums before products are held in 16 bits, which are two products of 8.
    layer = rows["layer of GCN", 2]
    assert layer["product_ms"] == pytest.approx(2e3 * 200 * 256 * 256 / 1e12)
    assert "aggregate 8-bit rows, multiply by ternary" in layer["does"]


def test_programs_run():
    data = random_graph(SMALL)
    x, graph = torch.randn(200, roofline.WIDTH), prepare(data.edge_index, 200)
    for program in programs().values():
        assert reference.run(program, x, graph).shape == (200, roofline.WIDTH)


@needs_native
def test_the_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(roofline, "measure_limits", lambda threads: LIMITS)
    monkeypatch.setattr(roofline, "SHAPES", {"arxiv": SMALL})
    monkeypatch.setattr(roofline, "keep_pages", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    roofline.roofline(threads=2, results=tmp_path)
    found = json.loads((tmp_path / "roofline.json").read_text())
    assert found["setting"]["limits"]["int8"] == 1e12 and len(found["rows"]) == 11
    text = (tmp_path / "roofline.md").read_text()
    assert text in capsys.readouterr().out and "| layer of GCN | 2 | aggregate" in text


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="'no-such-compiler' does not compile .*set CXX"):
        measure_limits(1)


@pytest.mark.skipif(shutil.which("g++") is None, reason="There is no g++")
def test_limits_compile(tmp_path):

    source = Path(roofline.__file__).with_name("limits.cpp")
    command = ["g++", "-march=native", "-fopenmp", "-Wall", "-Werror", "-fsyntax-only", source]
    subprocess.run(command, check=True)
