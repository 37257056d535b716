import pytest

from bitgnn.experiment import Store
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.complete import complete
from bitgnn.experiment.run import execute
from bitgnn.experiment.workers import RunError


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


def test_runs_that_are_given_up(tmp_path, specs, monkeypatch, capsys):
    def run_all(specs, root, device, workers, on_epoch, on_failure):
        on_failure(specs[0], "its process was killed")
        for spec in specs[1:]:
            yield execute(spec)

    monkeypatch.setattr("bitgnn.experiment.complete.run_all", run_all)
    failures = []
    with Store(tmp_path / "s") as store:
        records = complete(specs[:3], store, failures=failures)
        assert [record["key"] for record in records] == [spec.key for spec in specs[1:3]]
        assert [str(each) for each in failures] == [f"{specs[0]} failed: its process was killed"]
        assert f"{specs[0]} failed: its process was killed\n" in capsys.readouterr().err
        with pytest.raises(RunError, match=f"^{specs[0]} failed: its process was killed$"):
            complete(specs, store)
        assert len(store) == 3  # All others came first.
