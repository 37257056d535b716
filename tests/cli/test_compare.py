import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module

import pytest

from bitgnn.experiment import Comparison, RunSpec, Store
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.complete import Failure
from bitgnn.experiment.workers import RunError

FAST = "--set epochs=3 --workers 1"


def start(line, folder):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "bitgnn", *line.split()],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def stored(path):
    with Store(path) as store:
        return len(store)


def test_compare(cli, tmp_path):
    line = f"compare --dataset Digits --model gcn mlp --seeds 2 --recipe scratch {FAST}"
    line += " --json rows.json"
    found = cli(line)
    assert found.status == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["model"], row["precision"]) for row in rows] == [
        (model, precision)
        for model in ("gcn", "mlp")
        for precision in ("fp32", "absmean", "absmedian")
    ]
    assert all(len(row["accuracies"]) == 2 for row in rows)
    assert "12 runs trained now, 0 taken from the store" in found.out
    assert "absmedian" in found.out
    page = found.out.splitlines()[-1].removeprefix("Report: ")
    assert (tmp_path / page).is_file()
    assert list((tmp_path / page).parent.rglob("*.png"))
    assert (tmp_path / "bitgnn-results.sqlite").is_file()
    assert "0 runs trained now, 12 taken from the store" in cli(line).out


def test_command_of_a_row_reproduces_it(cli, tmp_path):
    line = "compare --dataset Digits --model sgc --seeds 5:7 --recipe scratch --quant reloaded"
    line += f" --set lr=0.3 {FAST}"
    cli(f"{line} --json a.json")
    [row] = [
        r for r in json.loads((tmp_path / "a.json").read_text()) if r["precision"] == "absmean"
    ]
    found = cli(f"{row['command'].removeprefix('bitgnn ')} --json b.json")
    assert "0 runs trained now, 4 taken from the store" in found.out
    assert json.loads((tmp_path / "b.json").read_text())[1] == row


LINES = [
    "--recipe distill+channel --set teacher_weight=5",
    "--recipe distill --set teacher=mlp temperature=2 --precision fp32-distilled absmedian",
    "--recipe continual+distill+wide2 --quant activation_bits=4",
    "--recipe channel --quant b158",
    "--recipe channel --quant reloaded granularity=channel",
    "--recipe decoupled --set latent_weight_decay=none lr_decay=cosine patience=none",
    "--recipe continual --set reset_optimizer=true schedule=step:0.25 latent_gain=0.5",
    "--recipe paper --quant reloaded --set width=2",
    "--set teacher=same start=teacher teacher_weight=0 latent_lr=0.1 norm=layer_norm",
    "--set teacher=gcn feature_norm=row --model gcn",
]


@pytest.mark.parametrize("line", LINES)
def test_command_of_a_row_leads_to_the_same_runs(cli, line, monkeypatch):
    r"""Reads the command of each row back through the options, up to the keys of its runs."""
    module = import_module("bitgnn.cli.compare")
    specs = []

    def no_run(*args, store, out, device, workers, **kwargs):
        specs.append(build_specs(*args, **kwargs))
        raise ValueError("nothing is run")

    monkeypatch.setattr(module, "run_comparison", no_run)
    model = "" if "--model" in line else "--model gcn sgc"
    assert cli(f"compare --dataset Digits {model} --seeds 3:5 {line}").err == (
        "bitgnn: nothing is run\n"
    )
    [asked] = specs
    cost = dict.fromkeys(
        ("weight_bytes", "weight_bytes_fp32", "zeros", "int_ops", "float_ops"), None
    )
    records = [
        {"spec": spec.to_dict(), "metric": "accuracy", "test": 80.0, "diverged": False,
         "cost": cost, "curves": {}}
        for spec in asked
    ]  # fmt: skip
    for row in Comparison.from_records(records).rows:
        specs.clear()
        cli(row["command"].removeprefix("bitgnn "))
        [found] = specs
        mine = {
            spec.key
            for spec in asked
            if (spec.model, spec.precision) == (row["model"], row["precision"])
        }
        assert len(mine) == 2
        assert mine == {spec.key for spec in found if spec.precision == row["precision"]}


def test_default(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    line = f"compare --dataset Digits --model mlp --seeds 2 --json a.json {FAST}"
    found = cli(line)
    assert "8 runs to train on 1 process: how long that takes is known after" in found.err
    assert "8 runs trained now" in found.out
    assert "distilled" in found.out
    rows = json.loads((tmp_path / "a.json").read_text())
    assert [row["precision"] for row in rows] == ["fp32", "fp32-distilled", "absmean", "absmedian"]
    assert [row["diff_distilled_mean"] is None for row in rows] == [True, True, False, False]
    assert "0 runs trained now, 8 taken from the store" in cli(line).out
    # Other recipes share the 32-bit runs, and have their time told from what is stored.
    found = cli(f"compare --dataset Digits --model mlp --seeds 2 --recipe wide2 {FAST}")
    assert "4 runs to train on 1 process: about 0 s from the time of earlier runs" in found.err
    assert "4 runs trained now, 2 taken from the store" in found.out
    assert "wide2" in cli("report").out


def test_runs_that_failed_are_named_and_end_with_status_1(cli, monkeypatch):
    module = import_module("bitgnn.cli.compare")

    def compare(*args, **kwargs):
        found = run_comparison(*args, **kwargs)
        spec = RunSpec.from_dict(found.records[0]["spec"])
        return replace(found, failures=[Failure(spec, "its process was killed")])

    run_comparison = module.run_comparison
    monkeypatch.setattr(module, "run_comparison", compare)
    found = cli(f"compare --dataset Digits --model mlp --seeds 1 --precision fp32 {FAST}")
    assert found.status == 1
    assert "Digits mlp fp32 seed 0 failed: its process was killed\n" in found.out
    assert "1 run failed: the same command tries again" in found.out


def test_comparison_of_which_all_runs_failed(cli, monkeypatch):
    def compare(*args, **kwargs):
        raise RunError("Digits mlp fp32 seed 0 failed: its process was killed")

    monkeypatch.setattr(import_module("bitgnn.cli.compare"), "run_comparison", compare)
    found = cli("compare --dataset Digits --model mlp")
    assert found.status == 1
    assert found.err == "bitgnn: Digits mlp fp32 seed 0 failed: its process was killed\n"


def test_unknown_part(cli):
    found = cli("compare --dataset Digits --model mlp --recipe distill+deep")
    assert found.status == 2
    assert found.err.startswith("bitgnn: No recipe is called 'deep'; there are default, paper and")


def test_run_that_is_killed_goes_on(cli, tmp_path, monkeypatch):
    # A teacher that an older version left in the user's cache may differ in the last bit.
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    line = (
        "compare --dataset Digits --model mlp --precision fp32 absmean --seeds 5 "
        "--set epochs=40 --workers"
    )
    store = tmp_path / "killed.sqlite"
    process = start(f"{line} 2 --store {store}", tmp_path)
    wait_for(lambda: store.exists() and stored(store) >= 2)
    process.kill()
    process.communicate(timeout=60)  # Returns once the workers, who share the pipe, are gone.
    assert process.returncode == -signal.SIGKILL
    finished = stored(store)
    assert 2 <= finished < 10

    found = cli(f"{line} 1 --store {store} --json a.json")
    assert f"{10 - finished} runs trained now, {finished} taken from the store" in found.out
    cli(f"{line} 1 --store whole.sqlite --json b.json")
    resumed, whole = ((tmp_path / name).read_text() for name in ("a.json", "b.json"))
    assert json.loads(resumed) == json.loads(whole)


def test_interrupt_leaves_the_store_whole(tmp_path):
    store = tmp_path / "s.sqlite"
    line = "compare --dataset Digits --model gcn --set epochs=1000000 --workers 2"
    process = start(f"{line} --store {store}", tmp_path)
    wait_for(lambda: store.exists() and stored(store) == 0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("Stopped. What is finished is stored: the same command goes on here.\n")
    assert stored(store) == 0


@pytest.mark.gpu
def test_cuda(cli):
    found = cli(
        "compare --dataset Digits --model gcn --seeds 2 --recipe scratch --set epochs=3 "
        "--device cuda"
    )
    assert "6 runs trained now" in found.out
