import json
from types import SimpleNamespace

import pytest

from bitgnn.cli import bench
from bitgnn.experiment.speed import Failed
from bitgnn.kernels import native

pytestmark = pytest.mark.skipif(not native.enabled(), reason="There are no native kernels")


def test_a_table_of_races(cli, monkeypatch, tmp_path, speed_row):
    cases = []

    def race(case, *rest):
        cases.append(case)
        return SimpleNamespace(row=lambda: speed_row)

    monkeypatch.setattr(bench, "race", race)
    line = "bench --dataset Digits request --model gcn gat --hidden 32 --heads 4 --threads 2"
    out = cli(f"{line} --json {tmp_path / 'rows.json'}").out
    assert [(case.model, case.graph, case.hidden, case.heads) for case in cases] == [
        ("gcn", "Digits", 32, 4), ("gat", "Digits", 32, 4),
        ("gcn", "request", 32, 4), ("gat", "request", 32, 4),
    ]  # fmt: skip
    assert "88" in out and "2 threads" in out
    assert json.loads((tmp_path / "rows.json").read_text()) == [speed_row] * 4


def test_what_cannot_be_timed(cli, monkeypatch):
    found = cli("bench --dataset Digits --model gin")
    assert found.status == 2 and "Unknown model 'gin'" in found.err

    def fail(*_):
        raise Failed("gcn on Digits, packed: no memory")

    monkeypatch.setattr(bench, "race", fail)
    found = cli("bench --dataset Digits --model gcn")
    assert found.status == 2 and "gcn on Digits, packed: no memory" in found.err
    monkeypatch.setattr(native, "enabled", lambda: False)
    found = cli("bench --dataset Digits --model gcn")
    assert found.status == 2 and "There is nothing to time: native kernels" in found.err
