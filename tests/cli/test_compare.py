import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bitgnn.experiment import Store

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
    line = f"compare --dataset Digits --model gcn mlp --seeds 2 --json rows.json {FAST}"
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
    line = f"compare --dataset Digits --model sgc --seeds 5:7 --quant reloaded --set lr=0.3 {FAST}"
    cli(f"{line} --json a.json")
    [row] = [
        r for r in json.loads((tmp_path / "a.json").read_text()) if r["precision"] == "absmean"
    ]
    found = cli(f"{row['command'].removeprefix('bitgnn ')} --json b.json")
    assert "0 runs trained now, 4 taken from the store" in found.out
    assert json.loads((tmp_path / "b.json").read_text())[1] == row


def test_run_that_is_killed_goes_on(cli, tmp_path):
    line = (
        "compare --dataset Digits --model mlp --precision fp32 absmean --seeds 5 "
        "--set epochs=100 --workers"
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
    assert errors == "Stopped. What is finished is stored: the same command goes on here.\n"
    assert stored(store) == 0


@pytest.mark.gpu
def test_cuda(cli):
    found = cli("compare --dataset Digits --model gcn --seeds 2 --set epochs=3 --device cuda")
    assert "6 runs trained now" in found.out
