import json

import pytest

from tests.data.ogb_files import write_ogb

FAST = "--set epochs=2 hidden_channels=8 --workers 1"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    write_ogb("ogbn-arxiv", tmp_path / "root", num_nodes=200)
    return tmp_path / "root"


def test_compare(cli, tmp_path, root):
    line = f"compare --dataset ogbn-arxiv --model gcn mlp --seeds 2 --root {root} {FAST}"
    found = cli(f"{line} --precision fp32 absmean --json rows.json")
    assert found.status == 0, found.err
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["model"], row["precision"]) for row in rows] == [
        (model, precision) for model in ("gcn", "mlp") for precision in ("fp32", "absmean")
    ]
    for row in rows:
        assert row["dataset"] == "ogbn-arxiv"
        assert len(row["accuracies"]) == 2
        # Of the 50 test nodes, so many were right.
        assert all((each / 2) == pytest.approx(round(each / 2)) for each in row["accuracies"])
    assert not list(root.rglob("processed"))


def test_train_pack_predict(cli, tmp_path, root):
    line = f"train --dataset ogbn-arxiv --model gcn --recipe scratch --root {root}"
    assert cli(f"{line} --set epochs=2 hidden_channels=8 --json run.json").status == 0
    assert cli(f"pack run.json -o gcn.safetensors --root {root}").status == 0
    found = cli(f"predict gcn.safetensors --root {root}")
    assert found.status == 0
    trained = json.loads((tmp_path / "run.json").read_text())["test"]
    assert f"{trained:.2f}" in found.out


def test_several_labels_a_node(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root"
    write_ogb("ogbn-proteins", root, num_nodes=120)
    line = f"train --dataset ogbn-proteins --model sage --root {root} --json run.json"
    assert cli(f"{line} --set epochs=3 hidden_channels=8 batch=random num_parts=2").status == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["metric"] == "rocauc"
    assert record["teacher_val"] > 0
    assert record["curves"]["loss"][-1] < record["curves"]["loss"][0]
    assert cli(f"pack run.json -o m.safetensors --root {root}").status == 0
    found = cli(f"predict m.safetensors -o labels.csv --root {root}")
    assert f"Test ROC AUC {record['test']:.2f} %" in found.out
    header, first, *_ = (tmp_path / "labels.csv").read_text().splitlines()
    assert len(header.split(",")) == len(first.split(",")) == 113
    assert set(first.split(",")[1:]) <= {"0", "1"}
