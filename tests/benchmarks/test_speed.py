import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import speed

FIELDS = {
    "model", "graph", "ours_ms", "fastest_path", "fastest_ms", "edge_index_ms", "vs_fastest",
    "vs_edge_index", "fp32_fused_ms", "peak_mib",
}  # fmt: skip


@pytest.fixture
def races(monkeypatch, speed_row):
    """The races that took place, each of which ends as `speed_row` says."""
    found = []

    def race(case, *rest):
        found.append(case)
        return SimpleNamespace(row=lambda: {**speed_row, "model": case.name, "graph": case.graph})

    monkeypatch.setattr(speed, "race", race)
    return found


def test_all_of_the_table(races, tmp_path, capsys):
    speed.speed(threads=2, results=tmp_path, json_file=tmp_path / "rows.json")
    assert races == speed.CASES and len(races) == 17
    found = {(case.model, "training step" if case.train else case.graph) for case in races}
    assert found == set(speed.BARS)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 17 and rows[0].keys() >= FIELDS
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert stored["rows"] == rows and stored["setting"]["threads"] == 2
    text = (tmp_path / "speed.md").read_text()
    assert text in capsys.readouterr().out
    assert "| gcn 3 x 256 | arxiv | 88 | CSR, retained | 458 | 5.2x | 2526 | 28.6x |" in text
    assert "| compiled | - | - |" in text


def test_bars(speed_row):
    (cells,) = speed.verdicts([speed_row])
    assert cells[2:] == [
        "5.2 of 8: **missed**", "28.6 of 50: **missed**", "9.3 of 3: met", "59.8 of 20: met",
    ]  # fmt: skip
    (cells,) = speed.verdicts([{**speed_row, "model": "mlp 3 x 256", "vs_fastest": 5.0}])
    assert cells[2:] == ["5.0 of 5: met", "-", "9.3 of 3: met", "-"]
    (cells,) = speed.verdicts([{**speed_row, "model": "gcn 3 x 256, training step"}])
    assert cells[2:] == ["5.2 of 2: met", "28.6 of 12: met", "-", "-"]


def test_a_part_of_the_table(races, tmp_path):
    speed.speed(graph=["Cora", "request"], model=["gcn"], threads=2, results=tmp_path)
    assert [(case.model, case.graph) for case in races] == [("gcn", "Cora"), ("gcn", "request")]
    with pytest.raises(ValueError, match=r"The table has no model \['gin'\] on a graph None"):
        speed.speed(model=["gin"], results=tmp_path)


def test_it_is_a_script_too():
    script = Path(speed.__file__)
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--json" in done.stdout
