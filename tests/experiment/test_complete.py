import pytest

from bitgnn.experiment import Store
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.complete import complete


@pytest.fixture
def specs():
    return build_specs("Digits", ["sgc", "mlp"], 2, settings={"epochs": 2}, precision="fp32")


def test_records_come_in_the_order_of_the_runs(tmp_path, specs):
    with Store(tmp_path / "s") as store:
        complete(specs[1:3], store, workers=1, progress=False)
        assert len(store) == 2
        records = complete(specs, store, workers=1, progress=False)
        assert [record["key"] for record in records] == [spec.key for spec in specs]
        assert records == [store.get(spec.key) for spec in specs]


def test_nothing_is_trained_twice_and_what_is_new_is_said(tmp_path, specs, monkeypatch, capsys):
    with Store(tmp_path / "s") as store:
        complete(specs, store, workers=1)
        assert "4 runs to train on 1 process" in capsys.readouterr().err
        monkeypatch.setattr("bitgnn.experiment.workers.execute", None)
        assert len(complete(specs, store, workers=1)) == 4
        assert capsys.readouterr().err == ""


def test_no_runs(tmp_path):
    with Store(tmp_path / "s") as store:
        assert complete([], store) == []
