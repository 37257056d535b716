import io

import pytest
from rich.console import Console

from bitgnn.experiment import RunSpec, Store
from bitgnn.experiment.estimate import announce, estimate_seconds


@pytest.fixture
def store(tmp_path, records):
    with Store(tmp_path / "s") as store:
        given = records(precisions=("fp32", "absmean"), seeds=range(2))
        for record in given:
            record["seconds"] = 20.0 if record["spec"]["precision"] == "fp32" else 40.0
            record["seconds"] += record["spec"]["seed"]
        store.put_all(given)
        yield store


def specs(records, **kwargs):
    return [RunSpec.from_dict(record["spec"]) for record in records(seeds=range(5, 7), **kwargs)]


def said(given, store, workers):
    console = Console(file=io.StringIO(), width=40)
    announce(given, store, workers, console)
    return console.file.getvalue()


def test_estimate(records, store):
    assert estimate_seconds(specs(records, precisions=["fp32"]), store) == 2 * 20.5
    # A precision that was never run takes what the others take on average.
    assert estimate_seconds(specs(records, precisions=["absmax"]), store) == 2 * 30.5
    assert estimate_seconds(specs(records, models=["gcn", "gat"]), store) is None


def test_announce(records, store):
    given = specs(records, precisions=["fp32", "absmean"])
    assert said(given, store, 1) == (
        "4 runs to train on 1 process: about 2 min from the time of earlier runs\n"
    )
    assert said(given[:1], store, 2) == (
        "1 run to train on 2 processes: about 10 s from the time of earlier runs\n"
    )
    assert said(specs(records, datasets=["PubMed"]), store, 2) == (
        "6 runs to train on 2 processes: how long that takes is known after the first of them\n"
    )
