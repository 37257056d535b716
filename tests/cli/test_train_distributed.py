"""Two processes on this machine, as torchrun starts them."""

import json
import os
import subprocess
import sys

import pytest
from torch_geometric import typing as pyg

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TRAIN = "train --dataset Digits --recipe scratch --precision absmean --json run.json"
NEIGHBOR = "--model sage --set batch=neighbor num_neighbors=-1 dropout=0 epochs=3"
ROWS = "--model mlp --set batch=random dropout=0 epochs=6"

# A run in which one process is killed at the end of an epoch, the first time that it gets there.
KILLED = """
import os, signal
from bitgnn.cli import main
from bitgnn.training.checkpoint import Checkpoint

end_of_epoch = Checkpoint.end_of_epoch
def killed(self, state):
    end_of_epoch(self, state)
    first_time = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first_time and state.group.rank == 1 and state.result.epochs_run == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.end_of_epoch = killed
main()
"""


@pytest.fixture
def start(tmp_path):
    def call(command, *line):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
               "BITGNN_CACHE": str(tmp_path / "cache")}  # fmt: skip
        return subprocess.run(
            [*command, *(word for words in line for word in words.split())],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    return call


def record(tmp_path, found):
    assert found.returncode == 0, found.stderr
    return json.loads((tmp_path / "run.json").read_text())


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(ROWS, id="rows"),
        pytest.param(
            NEIGHBOR,
            id="neighbor",
            marks=pytest.mark.skipif(not pyg.WITH_TORCH_SPARSE, reason="needs torch-sparse"),
        ),
    ],
)
def test_two_processes_are_one_with_the_doubled_batch(how, start, tmp_path):
    found = start([*TORCHRUN, "-m", "bitgnn"], TRAIN, how, "batch_size=5 --distributed")
    two = record(tmp_path, found)
    assert found.stdout.count("Test accuracy") == 1
    assert two["passport"]["processes"] == 2
    one = record(tmp_path, start([sys.executable, "-m", "bitgnn"], TRAIN, how, "batch_size=10"))
    assert two["curves"]["loss"] == pytest.approx(one["curves"]["loss"], rel=2e-3)
    assert two["val"] == pytest.approx(one["val"], abs=1.5)
    assert one["curves"]["loss"][-1] < one["curves"]["loss"][0]


def test_a_killed_process_ends_the_job_and_the_job_goes_on(start, tmp_path):
    line = [TRAIN, ROWS, "batch_size=5 dropout=0.3 --distributed --checkpoint runs --resume"]
    line += ["--every-epochs 2"]
    whole = record(tmp_path, start([*TORCHRUN, "-m", "bitgnn"], *line))
    for path in (tmp_path / "runs").iterdir():
        path.unlink()
    (tmp_path / "run.json").unlink()
    (tmp_path / "killed.py").write_text(KILLED)

    ended = start([*TORCHRUN, "killed.py"], *line)
    assert ended.returncode != 0
    assert "Signal 9 (SIGKILL)" in ended.stderr  # torchrun says which process it was
    assert not (tmp_path / "run.json").exists()

    for path in (tmp_path / "runs").iterdir():
        path.unlink()
    restarted = start([*TORCHRUN, "--max-restarts", "1", "killed.py"], *line)
    found = record(tmp_path, restarted)
    assert found["curves"] == whole["curves"]
    assert (found["test"], found["best_epoch"]) == (whole["test"], whole["best_epoch"])


def test_torchrun_is_asked_for(start):
    found = start([sys.executable, "-m", "bitgnn"], TRAIN, ROWS, "--distributed")
    assert found.returncode == 2
    assert found.stderr.startswith("bitgnn: Several processes are started by torchrun")
    assert len(found.stderr.splitlines()) == 1
