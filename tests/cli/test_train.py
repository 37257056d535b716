import json


def test_train(cli, tmp_path):
    found = cli("train --dataset Digits --model gcn --set epochs=40 lr=0.02 --json a/run.json")
    assert found.status == 0
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["spec"]["precision"] == "absmean"
    assert record["spec"]["recipe"]["lr"] == 0.02
    assert f"Test accuracy {record['test']:.2f} %" in found.out
    assert f"at epoch {record['best_epoch']} of 40" in found.out
    assert "Weights 1.22 KiB (32-bit: 18.8 KiB)" in found.out
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_full_precision(cli):
    found = cli("train --dataset Digits --model mlp --precision fp32 --seed 3 --set epochs=2")
    assert "Weights 18.8 KiB (32-bit: 18.8 KiB)\n" in found.out


def test_quant(cli):
    line = "train --dataset Digits --model mlp --set epochs=2 --quant b158 weight_bits=8"
    assert "Weights 4.92 KiB (32-bit: 18.8 KiB)\n" in cli(line).out


def test_divergence_is_said_aloud(cli):
    line = "train --dataset Digits --model mlp --precision fp32 --set lr=1e30 epochs=20"
    assert "Diverged after epoch" in cli(line).out


def test_recipe_of_parts(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    line = "train --dataset Digits --model mlp --recipe distill+channel+wide2 --set epochs=2"
    found = cli(f"{line} --json run.json")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["spec"]["quant"]["granularity"] == "channel"
    assert record["spec"]["recipe"]["width"] == 2
    assert record["teacher_val"] > 0
    assert "(32-bit: 37.5 KiB)" in found.out
