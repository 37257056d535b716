"""Two processes on this machine, as torchrun starts them."""

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

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


def begin(folder, command, *line):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
           "BITGNN_CACHE": str(folder / "cache")}  # fmt: skip
    words = [*command, *(word for words in line for word in words.split())]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


def ended(process):
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    return SimpleNamespace(status=process.returncode, out=out, err=err)


@pytest.fixture
def start(tmp_path):
    return lambda *words: ended(begin(tmp_path, *words))


def record(folder, found):
    assert found.status == 0, found.err
    return json.loads((folder / "run.json").read_text())


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
    assert found.out.count("Test accuracy") == 1
    assert two["passport"]["processes"] == 2
    one = record(tmp_path, start([sys.executable, "-m", "bitgnn"], TRAIN, how, "batch_size=10"))
    assert two["curves"]["loss"] == pytest.approx(one["curves"]["loss"], rel=2e-3)
    assert two["val"] == pytest.approx(one["val"], abs=1.5)
    assert one["curves"]["loss"][-1] < one["curves"]["loss"][0]


LINE = (
    f"{TRAIN} {ROWS} batch_size=5 dropout=0.3 --distributed --checkpoint runs --resume "
    "--every-epochs 2"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run in which nothing is killed."""
    folder = tmp_path_factory.mktemp("whole")
    return record(folder, ended(begin(folder, [*TORCHRUN, "-m", "bitgnn"], LINE)))


def test_a_killed_process_ends_the_job(start, tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    found = start([*TORCHRUN, "killed.py"], LINE)
    assert found.status != 0
    assert "Signal 9 (SIGKILL)" in found.err  # torchrun says which process it was
    assert not (tmp_path / "run.json").exists()
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_the_job_goes_on(start, whole, tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    found = record(tmp_path, start([*TORCHRUN, "--max-restarts", "1", "killed.py"], LINE))
    assert found["curves"] == whole["curves"]
    assert (found["test"], found["best_epoch"]) == (whole["test"], whole["best_epoch"])


def test_the_job_goes_on_on_two_machines(whole, tmp_path):
    """Each machine has a torchrun of its own; only one of them sees its process end."""
    (tmp_path / "killed.py").write_text(KILLED)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torchrun = [*TORCHRUN[:3], "--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "1"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}"]
    torchrun += ["--rdzv-id", "job", "--local-addr", "localhost", "killed.py"]
    machines = [begin(tmp_path, torchrun, LINE) for _ in range(2)]
    found = [ended(machine) for machine in machines]
    assert [each.status for each in found] == [0, 0], found
    assert record(tmp_path, found[0])["curves"] == whole["curves"]


def test_torchrun_is_asked_for(start):
    found = start([sys.executable, "-m", "bitgnn"], TRAIN, ROWS, "--distributed")
    assert found.status == 2
    assert found.err.startswith("bitgnn: Several processes are started by torchrun")
    assert len(found.err.splitlines()) == 1
