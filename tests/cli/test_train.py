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


def test_a_run_that_was_stopped_goes_on(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    line = "train --dataset Digits --model mlp --set epochs=6 dropout=0.3"
    cli(f"{line} --json whole.json")
    for path in (tmp_path / "cache" / "teachers").iterdir():
        path.unlink()
    cli(f"{line} --checkpoint runs --every-epochs 4")
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == 2  # the teacher's, and its own
    again = cli(f"{line} --checkpoint runs --json again.json")
    assert again.status == 2
    assert "--resume" in again.err
    cli(f"{line} --checkpoint runs --resume --json again.json")
    records = [json.loads((tmp_path / name).read_text()) for name in ("whole.json", "again.json")]
    assert records[0]["curves"] == records[1]["curves"]


def test_resume_needs_a_place(cli):
    found = cli("train --dataset Digits --model mlp --resume")
    assert found.status == 2
    assert "say where it is with --checkpoint" in found.err


def test_batches(cli, tmp_path):
    line = "train --dataset Digits --model sage --recipe scratch"
    found = cli(f"{line} --set batch=random num_parts=3 epochs=20 --json run.json")
    assert found.status == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["spec"]["recipe"]["num_parts"] == 3
    assert record["val"] > 50
    assert record["cost"]["int_ops"] is None
