import json

import pytest
import torch

from bitgnn.data import task
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.run import train_run
from bitgnn.nn import BitMLP
from bitgnn.packed import load, pack
from bitgnn.packed.runs import features, inputs, pack_run, run_of

RUN = {
    "dataset": "Digits",
    "split_kind": "random",
    "checksum": "0",
    "seed": 1,
    "test": 90.0,
    "feature_norm": "l2",
}


@pytest.mark.parametrize("precision", ["absmean", "absmedian", "fp32"])
@pytest.mark.parametrize("model", ["gcn", "sage", "gat", "sgc", "mlp"])
def test_packed_runs_are_as_good_as_they_were(model, precision, tmp_path):
    settings = {"epochs": 30, "hidden_channels": 16}
    [spec] = build_specs("Digits", model, [1], "scratch", precision, None, None, settings=settings)
    trained, record = train_run(spec)
    pack_run(trained, record).save(tmp_path / "model.safetensors")
    packed = load(tmp_path / "model.safetensors")
    run, t = run_of(packed), task("Digits")
    assert (run["dataset"], run["precision"], run["seed"]) == ("Digits", precision, 1)
    assert run["test"] == record["test"]
    out = packed(*inputs(packed, t), exact=True)
    assert t.evaluate(out, t.split(1).test) == pytest.approx(record["test"])


def test_features_are_normalized_as_in_training():
    t = task("Digits")
    packed = pack(BitMLP([64, 8, 10]))
    assert run_of(packed) is None and features(packed, t) is t.data.x
    packed.about["run"] = json.dumps(RUN)
    torch.testing.assert_close(features(packed, t).norm(dim=1), torch.ones(t.num_nodes))


@pytest.mark.parametrize(
    "run",
    [
        "",
        "[" * 100_000,
        "[]",
        "{}",
        json.dumps(RUN | {"feature_norm": "save"}),
        json.dumps(RUN | {"feature_norm": ["l2"]}),
        json.dumps(RUN | {"seed": "1"}),
        json.dumps(RUN | {"seed": True}),
        json.dumps(RUN | {"test": "90"}),
        json.dumps(RUN | {"test": float("nan")}),
        json.dumps(RUN | {"dataset": 3}),
        json.dumps({name: value for name, value in RUN.items() if name != "split_kind"}),
    ],
)
def test_records_that_no_run_wrote(run):
    packed = pack(BitMLP([64, 8, 10]))
    packed.about["run"] = run
    with pytest.raises(ValueError, match="record of its run cannot be read"):
        run_of(packed)
