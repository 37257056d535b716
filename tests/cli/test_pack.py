import json

import pytest

from bitgnn.experiment import Store
from bitgnn.nn import BitMLP
from bitgnn.packed import pack

TRAIN = "train --dataset Digits --model gcn --recipe scratch --set epochs=20"


@pytest.fixture
def run(cli, tmp_path):
    cli(f"{TRAIN} --json run.json")
    return json.loads((tmp_path / "run.json").read_text())


def test_from_run_to_predictions(cli, run, tmp_path):
    found = cli("pack run.json -o a/model.safetensors")
    assert found.status == 0
    size = (tmp_path / "a" / "model.safetensors").stat().st_size
    full = 4 * (64 * 64 + 64 + 64 * 10 + 10)
    assert f"in 32 bits 18.8 KiB ({full / size:.1f} times)" in found.out
    found = cli("predict a/model.safetensors -o classes.csv --exact")
    lines = [f"Test accuracy {run['test']:.2f} %", f"In training it had {run['test']:.2f} %"]
    assert found.out.splitlines() == ["classes.csv: 1797 nodes", *lines]
    rows = (tmp_path / "classes.csv").read_text().splitlines()
    assert rows[0] == "node,class" and len(rows) == 1798
    # On other nodes than it was trained for, training says nothing.
    assert "In training" not in cli("predict a/model.safetensors --seed 5").out


def test_a_run_of_a_store(cli, tmp_path):
    cli("compare --dataset Digits --model mlp --seeds 2 --recipe scratch --set epochs=3 --json r")
    rows = json.loads((tmp_path / "r").read_text())
    assert rows
    with Store(tmp_path / "bitgnn-results.sqlite") as store:
        keys = {each["spec"]["precision"]: each["key"] for each in store.records()}
    assert cli(f"pack {keys['absmedian'][:16]} -o m.safetensors").status == 0
    found = cli(f"pack {keys['fp32'][:16]} -o m.safetensors")
    assert "In 32 bits: lins.0, lins.1" in found.out
    found = cli("pack zz -o m.safetensors")
    assert found.status == 2
    assert "No run in 'bitgnn-results.sqlite' with a key that begins with 'zz'" in found.err


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("pack run.json", "There is no file 'run.json', and no result store 'bitgnn-results.sqlit"),
        (
            "pack text",
            "'text' is no run (it lacks 'key'): pass what `bitgnn train --json` writes, or a key",
        ),
        ("predict text", "'text' is no packed model, or damaged"),
        ("predict nothing", "There is no file 'nothing'"),
    ],
)
def test_what_cannot_be_packed_or_read(cli, tmp_path, line, match):
    (tmp_path / "text").write_text("[1, 2]")
    found = cli(line)
    assert found.status == 2 and match in found.err
    assert [each.name for each in tmp_path.iterdir()] == ["text"]


def test_a_model_that_comes_from_no_run(cli, tmp_path):
    pack(BitMLP([64, 8, 10])).save(tmp_path / "m.safetensors")
    assert "'m.safetensors' does not say what it was trained on" in cli("predict m.safetensors").err
    assert "Test accuracy" in cli("predict m.safetensors --dataset Digits").out
