import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace

import psutil
import pytest

from bitgnn import QuantConfig
from bitgnn.experiment import RunSpec, teachers
from bitgnn.experiment.run import open_task
from bitgnn.experiment.teachers import teachers_dir
from bitgnn.experiment.workers import RunError, hush, number_of_workers, run_all
from bitgnn.training import recipe_for


def make_specs(count=4, model="mlp", **changes):
    t = open_task("Digits")
    recipe = recipe_for(model, "Digits", "scratch").replace(**{"epochs": 3, **changes}).to_dict()
    quant = QuantConfig().to_dict()
    return [
        RunSpec("Digits", "random", t.checksum, model, "absmean", quant, recipe, seed)
        for seed in range(count)
    ]


def numbers(records):
    kept = sorted(records, key=lambda record: record["spec"]["seed"])
    skipped = ("seconds", "teacher_seconds", "passport")
    return [{k: v for k, v in r.items() if k not in skipped} for r in kept]


def test_number_of_workers_changes_no_number():
    seen = {1: [], 2: []}
    for workers, calls in seen.items():
        records = run_all(
            make_specs(),
            workers=workers,
            on_epoch=lambda spec, epoch, val, calls=calls: calls.append((spec.seed, epoch, val)),
        )
        seen[workers] = numbers(records), sorted(calls)
    assert seen[1] == seen[2]
    assert [(seed, epoch) for seed, epoch, _ in seen[1][1]] == [
        (seed, epoch) for seed in range(4) for epoch in (1, 2, 3)
    ]


def test_students_are_the_same_on_any_number_of_workers(monkeypatch, tmp_path):
    plain = recipe_for("mlp", "Digits", "scratch").replace(epochs=3).to_dict()
    students = [
        replace(spec, precision=precision, teacher={"model": "mlp", "recipe": plain})
        for spec in make_specs(teacher="same", teacher_weight=20.0)
        for precision in ("absmean", "absmedian")
    ]
    full = [student.teacher_spec() for student in students[::2]]
    seen = {}
    for workers in (1, 2):
        monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / str(workers)))
        records = list(run_all(full + students, workers=workers))
        seen[workers] = sorted(numbers(records), key=lambda record: record["key"])
        # Each teacher was trained once: in the run that is stored.
        seconds = {record["key"]: record["seconds"] for record in records}
        assert [record["teacher_seconds"] for record in records if record["spec"]["teacher"]] == [
            seconds[RunSpec.from_dict(record["spec"]).teacher_spec().key]
            for record in records if record["spec"]["teacher"]
        ]  # fmt: skip
        kept = {path.stem for path in teachers_dir().iterdir()}
        assert kept == {spec.key for spec in full}
    assert seen[1] == seen[2]
    assert len(seen[1]) == 12


def test_nothing_to_run_starts_nothing(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert list(run_all([])) == []


def test_number_of_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    assert [number_of_workers(None, "cpu", runs) for runs in (1, 5, 100)] == [1, 5, 8]
    assert number_of_workers(None, "cuda:0", 100) == 1
    assert [number_of_workers(3, device, 2) for device in ("cpu", "cuda:0")] == [2, 2]


def test_less_than_one_worker():
    with pytest.raises(ValueError, match=r"'workers' must be at least 1 \(got 0\)"):
        list(run_all(make_specs(), workers=0))
    with pytest.raises(ValueError, match=r"'workers' must be at least 1 \(got -1\)"):
        number_of_workers(-1, "cpu", 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_error_names_the_run(workers):
    bad, good = make_specs(2)
    bad = replace(bad, checksum="0" * 64)
    with pytest.raises(ValueError, match=r"^Digits mlp absmean seed 0: 'Digits' has checksum"):
        list(run_all([bad, good], workers=workers))


def test_internal_error_shows_where_it_comes_from(monkeypatch):
    monkeypatch.setattr("bitgnn.experiment.run.cost", lambda *_: {}["lost"])
    with pytest.raises(RunError, match=r"(?s)^Digits mlp absmean seed 0 failed.*KeyError: 'lost'"):
        list(run_all(make_specs(1)))


@pytest.fixture
def started(monkeypatch):
    """The workers that were started."""
    processes = []
    popen = subprocess.Popen

    def spy(*args, **kwargs):
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", spy)
    return processes


def test_run_of_a_worker_that_is_killed_is_given_to_another(started):
    kills = []

    def on_epoch(spec, epoch, _):
        if spec.seed == 0 and epoch == 20 and not kills:
            kills.append(spec)
            for process in started:
                process.kill()

    specs = make_specs(3, epochs=30)
    records = list(run_all(specs, workers=2, on_epoch=on_epoch))
    assert kills
    assert numbers(records) == numbers(run_all(specs, workers=1))
    assert len(started) >= 4 and all(process.poll() is not None for process in started)


def test_run_whose_workers_are_killed_again_and_again_is_given_up(started):
    specs = make_specs(3, epochs=3)
    doomed = replace(specs[0], recipe={**specs[0].recipe, "epochs": 10**6})
    failed, finished = [], []

    def on_epoch(spec, *_):
        if spec == doomed and len(finished) == 2:  # Its worker is the only one that is busy.
            for process in started:
                process.kill()

    runs = run_all(
        [doomed, *specs[1:]],
        workers=2,
        on_epoch=on_epoch,
        on_failure=lambda *args: failed.append(args),
    )
    for record in runs:
        finished.append(record)
    assert failed == [(doomed, "its process was killed 3 times in a row (signal 9)")]
    assert len(started) == 4 and all(process.poll() is not None for process in started)
    assert numbers(finished) == numbers(run_all(specs[1:], workers=1))


def test_without_anyone_to_tell_a_run_that_is_given_up_is_an_error(started, monkeypatch):
    monkeypatch.setattr("bitgnn.experiment.workers.RETRIES", 0)
    with pytest.raises(RunError, match=r"failed: its process was killed once \(signal 9\)"):
        list(
            run_all(
                make_specs(2, epochs=10**6),
                workers=2,
                on_epoch=lambda *_: [process.kill() for process in started],
            )
        )
    assert all(process.poll() is not None for process in started)


def test_an_error_loses_no_run_that_is_in_progress():
    bad, good = make_specs(2, epochs=30)
    bad = replace(bad, checksum="0" * 64)
    failed, finished = [], []
    with pytest.raises(ValueError, match="^Digits mlp absmean seed 0: 'Digits' has checksum"):
        for record in run_all(
            [bad, good], workers=2, on_failure=lambda spec, problem: failed.append(spec)
        ):
            finished.append(record["spec"]["seed"])
    assert failed == [bad]
    assert finished == [good.seed]  # Whichever of the two ended first.


PARENT = """
import json, sys
from bitgnn.experiment import RunSpec, teachers
from bitgnn.experiment.workers import run_all
specs = [RunSpec.from_dict(spec) for spec in json.loads(sys.argv[1])]
list(run_all(specs, workers=2, on_epoch=lambda *_: print("running", flush=True)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing ends what is stopped")
def test_no_worker_outlives_its_parent_not_even_a_stopped_one():
    specs = [spec.to_dict() for spec in make_specs(2, epochs=10**6)]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, json.dumps(specs)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "running\n"
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    workers[0].suspend()
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for process in alive:
        process.kill()
    assert not alive


def test_warnings_of_bitgnn_are_one_line(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with warnings.catch_warnings():
        hush()
    own = warnings.formatwarning("A teacher is damaged", UserWarning, teachers.__file__, 7)
    assert own == "bitgnn: A teacher is damaged\n"
    other = warnings.formatwarning("old", DeprecationWarning, "/torch/nn.py", 7, "import old")
    assert other == "/torch/nn.py:7: DeprecationWarning: old\n  import old\n"
