import io

import pytest
from rich.console import Console

from bitgnn.experiment.progress import Progress
from bitgnn.experiment.run import RunSpec


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("bitgnn.experiment.progress.time.monotonic", lambda: now[0])
    return now


def make_progress(records, stored=0, terminal=False, **kwargs):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    specs = [RunSpec.from_dict(record["spec"]) for record in records]
    return Progress(specs, records[:stored], console=console, **kwargs), specs


def text_of(progress):
    return progress.console.file.getvalue()


def test_time_left_counts_the_epochs_of_what_runs(records, clock):
    runs = records(precisions=["fp32"], seeds=range(4))
    progress, specs = make_progress(runs)
    assert progress.seconds_left() is None
    progress.done(runs[0])
    progress.epoch(specs[1], 100, 80.0)  # Of 200: one run and a half.
    clock[0] += 30.0
    assert progress.seconds_left() == pytest.approx(50.0)
    progress.done(runs[1])
    assert progress.seconds_left() == pytest.approx(30.0)


def test_what_was_stored_is_no_time(records, clock):
    runs = records(precisions=["fp32"], seeds=range(4))
    progress, _ = make_progress(runs, stored=2)
    clock[0] += 10.0
    progress.done(runs[2])
    assert progress.seconds_left() == pytest.approx(10.0)


def test_picture(records, clock):
    runs = records(models=["gcn", "mlp"], precisions=["fp32", "absmean"], seeds=range(2))
    progress, specs = make_progress(runs, stored=1)
    progress.done(runs[1])
    progress.epoch(specs[2], 50, 71.25)
    clock[0] += 10.0
    progress.console.print(progress.render())
    text = text_of(progress)
    mean = (runs[0]["test"] + runs[1]["test"]) / 2
    assert f"{mean:.2f} (2/2)" in text
    assert "– (0/2)" in text
    assert "Cora gcn absmean seed 0  epoch 50/200  val 71.2" in text
    assert "1 of 7 runs trained, 1 from the store, about 46 s left" in text


def test_divergence_is_said_aloud(records):
    runs = records(precisions=["fp32"], seeds=range(2), diverged={("fp32", 1)})
    progress, _ = make_progress(runs)
    for record in runs:
        progress.done(record)
    assert f"Cora gcn fp32 seed 1 diverged after epoch {runs[1]['epochs']}" in text_of(progress)


def test_plain_lines_are_few(records, clock):
    runs = records(precisions=["fp32"], seeds=range(6))
    progress, _ = make_progress(runs)
    with progress:
        for record in runs:
            clock[0] += 4.0
            progress.done(record)
    assert text_of(progress).splitlines() == [
        "3 of 6 runs trained, about 12 s left",
        "6 of 6 runs trained",
    ]


@pytest.mark.parametrize("kwargs", [{"enabled": False}, {"stored": 2}])
def test_silence(records, kwargs):
    runs = records(precisions=["fp32"], seeds=range(2))
    progress, _ = make_progress(runs, terminal=True, **kwargs)
    with progress:
        pass
    assert text_of(progress) == ""


def test_live_picture_on_a_terminal(records):
    runs = records(precisions=["fp32"], seeds=range(2))
    progress, _ = make_progress(runs, terminal=True)
    with progress:
        progress.done(runs[0])
        progress.live.refresh()
    assert "1 of 2 runs trained" in text_of(progress)
