import os
import subprocess
from dataclasses import replace

import pytest

from bitgnn import QuantConfig
from bitgnn.experiment import RunSpec
from bitgnn.experiment.run import open_task
from bitgnn.experiment.teachers import teachers_dir
from bitgnn.experiment.workers import RunError, default_workers, run_all
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


def test_default_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    assert [default_workers("cpu", runs) for runs in (1, 5, 100)] == [1, 5, 8]
    assert default_workers("cuda:0", 100) == 1


def test_less_than_one_worker():
    with pytest.raises(ValueError, match=r"'workers' must be at least 1 \(got 0\)"):
        list(run_all(make_specs(), workers=0))


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


def test_worker_that_is_killed(monkeypatch):
    processes = []
    popen = subprocess.Popen

    def spy(*args, **kwargs):
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", spy)
    with pytest.raises(RunError, match=r"^Digits gcn absmean seed 0 failed: its process ended"):
        list(
            run_all(
                make_specs(2, "gcn", epochs=10**6),
                workers=2,
                on_epoch=lambda *_: processes[0].kill(),
            )
        )
    # The other one, in the midst of a run, is not left behind.
    assert [process.poll() is not None for process in processes] == [True, True]
