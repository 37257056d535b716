import json

import pytest
import torch
from torch import nn

from benchmarks import products
from bitgnn.experiment.speed.graphs import Shape
from bitgnn.nn import BitLinear


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(products, "LAYERS", ((30, 20, 16),))
    monkeypatch.setattr(products, "SHAPES", {"arxiv": Shape(40, 200, 8, 3)})
    monkeypatch.setattr(products, "ROUNDS", 2)
    monkeypatch.setattr(products, "TURN", 0.0)


def test_sides_are_the_same_layer():
    torch.manual_seed(0)
    x, linear = torch.randn(12, 20), nn.Linear(20, 16, bias=False)
    with torch.inference_mode():
        ternary = BitLinear.from_linear(linear).eval()(x)
        torch.testing.assert_close(products.of_bitgnn(x, linear)(), ternary)
        full = linear(x)
        for side in (products.of_torch, products.of_torch_in_place):
            torch.testing.assert_close(side(x, linear)(), full)
        assert products.of_int_mm(x, linear)().shape == full.shape


def test_sides_take_turns_and_failures_have_a_reason(monkeypatch):
    monkeypatch.setattr(products, "ROUNDS", 3)
    monkeypatch.setattr(products, "TURN", 0.0)
    calls = []

    def fails():
        raise ImportError("No module named 'other'\nand more")

    def breaks():
        return lambda: 1 / 0

    sides = {name: lambda name=name: lambda: calls.append(name) for name in "ab"}
    rows = products.turns({**sides, "c": fails, "d": breaks})
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]  # once each, then in turns
    assert [row["side"] for row in rows] == ["a", "b", "c", "d"]
    assert rows[0]["ratio"] == 1.0 and rows[1]["ms"] >= 0
    assert rows[2]["why_not"] == "ImportError: No module named 'other'"
    assert rows[3]["why_not"] == "ZeroDivisionError: division by zero" and "ms" not in rows[3]


@pytest.mark.usefixtures("small")
def test_the_table(tmp_path, capsys):
    products.products(threads=1, results=tmp_path)
    stored = json.loads((tmp_path / "products.json").read_text())
    assert len(stored["rows"]) == len(products.SIDES) + 4
    assert all("ms" in row or "why_not" in row for row in stored["rows"])
    text = (tmp_path / "products.md").read_text()
    assert text in capsys.readouterr().out
    assert "| 30 x 20 to 16 | bitgnn |" in text and "| GCN 3 x 256, arxiv | bitgnn |" in text
