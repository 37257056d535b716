import gzip
import json

import pytest
import torch
from torch import nn
from torch_geometric.nn import Linear
from typer.testing import CliRunner

from benchmarks import peers
from benchmarks.peers import SIDES, Plan, app, why_not
from bitgnn.quant import QuantConfig, quantize_weight
from bitgnn.training import build_model, recipe_for

BY_NAME = {side.name: side for side in SIDES}


@pytest.fixture
def half(monkeypatch, tmp_path):
    """A package that is at hand, and one that is not."""
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))

    def absent(model):
        raise ImportError("No module named 'torchao'\nand more")

    packages = {"bitlinear": lambda model: model, "torchao": absent}
    monkeypatch.setattr(peers, "PACKAGES", packages)


def test_run_and_table(half, tmp_path, monkeypatch):
    words = ["--dataset", "Digits", "--model", "mlp", "gcn", "--seeds", "2", "--recipe", "distill"]
    words += ["--set", "epochs=2", "--store", str(tmp_path / "s.sqlite")]
    first = CliRunner().invoke(app, ["run", *words, "--workers", "1"])
    assert first.exit_code == 0, first.output
    assert "torchao does not run with torch" in first.output
    monkeypatch.setattr(peers, "execute_peer", None)
    monkeypatch.setattr("bitgnn.experiment.workers.execute", None)
    assert CliRunner().invoke(app, ["run", *words, "--workers", "1"]).exit_code == 0
    out = ["--results", str(tmp_path)]
    table = CliRunner().invoke(app, ["table", *words, *out])
    assert table.exit_code == 0, table.output
    assert table.output.count("No module named 'torchao' |") == 4
    found = json.loads((tmp_path / "peers.json").read_text())["rows"]
    rows = {(row["model"], row["side"]): row for row in found}
    assert len(rows) == len(found) == 2 * len(SIDES)
    # What stands for the package leaves the model as it is: that is the 32-bit run itself.
    for model in ("mlp", "gcn"):
        row, full = rows[model, "bitlinear, published recipe"], rows[model, "32-bit"]
        assert row["accuracies"] == full["accuracies"]
        row = rows[model, "bitgnn"]
        assert row["diff_mean"] == pytest.approx(row["mean"] - full["mean"])
    content = gzip.decompress((tmp_path / "peers-packages.jsonl.gz").read_bytes())
    assert content.count(b"\n") == 2 * 2 * 2


def test_loading_the_runs_of_another_study(half, tmp_path):
    words = ["--dataset", "Digits", "--model", "mlp", "--seeds", "1", "--recipe", "scratch"]
    words += ["--set", "epochs=2"]
    first, second = ([*words, "--store", str(tmp_path / f"{name}.sqlite")] for name in "ab")
    assert CliRunner().invoke(app, ["run", *first, "--workers", "1"]).exit_code == 0
    out = ["--results", str(tmp_path)]
    assert CliRunner().invoke(app, ["table", *first, *out]).exit_code == 0
    load = ["--load", str(tmp_path / "peers.jsonl.gz")]
    both = CliRunner().invoke(app, ["table", *second, *out, *load])
    assert both.output.count("new runs from") == 2, both.output
    (tmp_path / "peers-packages.jsonl.gz").unlink()
    third = [*words, "--store", str(tmp_path / "c.sqlite")]
    one = CliRunner().invoke(app, ["table", *third, *out, *load])
    assert one.exit_code == 0 and one.output.count("new runs from") == 1, one.output
    assert "No runs of other packages: there is no" in one.output


def test_the_recipes_of_packages(half):
    plan = Plan(["Digits"], ["gcn"], 1, "distill", {"latent_lr": 0.02})
    (published,) = plan.specs("Digits", "gcn", BY_NAME["bitlinear, published recipe"])
    (ours,) = plan.specs("Digits", "gcn", BY_NAME["bitlinear"])
    base = recipe_for("gcn", "Digits")
    assert published.teacher is None and ours.teacher is not None
    assert published.recipe["weight_decay"] == base.weight_decay > 0
    assert (ours.recipe["weight_decay"], ours.recipe["lr"]) == (0.0, 0.02)
    assert ours.quant["package"] == ours.precision == "bitlinear"


@pytest.mark.parametrize("package", ["bitlinear", "torchao"])
@pytest.mark.parametrize("model", ["gcn", "sage", "gat", "sgc", "mlp"])
def test_packages_replace_all_linear_layers(package, model):
    pytest.importorskip(package)
    recipe = recipe_for(model, "Cora")
    before = sum(isinstance(m, Linear) for m in build_model(model, 24, 8, recipe).modules())
    network = peers.PACKAGES[package](build_model(model, 24, 8, recipe))
    if package == "bitlinear":
        from bitlinear import BitLinear

        after = [m for m in network.modules() if isinstance(m, BitLinear)]
        assert not any(isinstance(m, Linear) for m in network.modules())
    else:
        from torchao.prototype.quantized_training import BitNetTrainingLinearWeight

        after = [m for m in network.modules() if isinstance(m, Linear)]
        assert all(isinstance(m.weight, BitNetTrainingLinearWeight) for m in after)
    assert len(after) == before > 0


def test_torchao_computes_what_bitgnn_does():
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    x, layer = torch.randn(32, 24), Linear(24, 8)
    values, scale = quantize_weight(layer.weight, QuantConfig())
    rows = x.abs().amax(1, keepdim=True) / 127
    expected = (x / rows).round() * rows @ (values * scale).T + layer.bias
    found = peers.put_torchao(nn.Sequential(layer))(x)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_why_not(half):
    assert why_not("bitlinear") is None
    assert why_not("torchao").endswith(": No module named 'torchao'")
