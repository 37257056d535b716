import json

import pytest

from benchmarks import equality


def row(**changes):
    found = {
        "dataset": "Cora", "model": "gcn", "measure": "absmean", "granularity": "tensor",
        "weights": 200_000, "file_bytes": 40_000, "state_bytes": 800_000,
        "packed": {"rms": 2e-5, "agree": 99.95}, "exact": {"rms": 1e-6, "agree": 100.0},
    }  # fmt: skip
    return found | changes


def test_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    equality.equality(["Digits"], ["gcn", "mlp"], ["epochs=3"], tmp_path)
    rows = json.loads((tmp_path / "equality.json").read_text())["rows"]
    assert [(r["model"], r["measure"], r["granularity"]) for r in rows] == [
        (model, *way) for model in ("gcn", "mlp") for way in equality.WAYS
    ]
    assert all(r["epochs"] == 3 and r["exact"]["agree"] == 100 for r in rows)
    assert all(0 < r["file_bytes"] < r["state_bytes"] for r in rows)
    assert (tmp_path / "equality.md").read_text() in capsys.readouterr().out


def test_what_is_met():
    text = equality.to_markdown([row()])
    assert "| Cora | gcn | absmean | tensor | 2.0e-05 | 99.95 % | 1.0e-06 | 100.00 % |" in text
    assert "| 39.1 | 20.0 |" in text and "Missed: none." in text


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"packed": {"rms": 2e-3, "agree": 100.0}}, "packed"),
        ({"packed": {"rms": 1e-5, "agree": 99.8}}, "packed"),
        ({"exact": {"rms": 1e-6, "agree": 99.99}}, "exact"),
        ({"file_bytes": 50_000}, "file"),
    ],
)
def test_what_is_missed(changes, missed):
    text = equality.to_markdown([row(**changes)])
    assert f"Missed: Cora, gcn, absmean, tensor ({missed})." in text
    assert "Missed: none." in equality.to_markdown([row(weights=10, file_bytes=700_000)])
