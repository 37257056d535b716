import io
import json
import os
import subprocess
import sys

import pytest

from bitgnn.cli import main
from bitgnn.experiment import Store
from tests.experiment.conftest import make_record

TRAIN = "train --dataset Digits --model mlp --set epochs=1 --json run.json"


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "runs.sqlite"
    with Store(path) as store:
        for precision in ("fp32", "absmean"):
            for seed in (0, 1, 2):
                diverged = precision == "absmean" and seed == 2
                store.put(make_record(precision=precision, seed=seed, diverged=diverged))
    return str(path)


@pytest.fixture
def run_in(monkeypatch, tmp_path):
    """Runs a command whose streams have an encoding; returns its status and both outputs."""
    monkeypatch.chdir(tmp_path)

    def run(encoding, *args):
        written = []
        for name in ("stdout", "stderr"):
            written.append(io.BytesIO())
            monkeypatch.setattr(sys, name, io.TextIOWrapper(written[-1], encoding=encoding))
        with pytest.raises(SystemExit) as ended:
            main(args)
        sys.stderr.flush()
        return ended.value.code, *(each.getvalue() for each in written)

    return run


def test_a_table_in_every_encoding(run_in, store):
    tables = {}
    for encoding in ("utf-8", "cp1252", "ascii"):
        status, out, err = run_in(encoding, "report", "--store", store)
        assert (status, err) == (0, b"")
        tables[encoding] = out.decode(encoding)
    assert len({table.count("\n") for table in tables.values()}) == 1
    assert "+-" in tables["ascii"] and "?" not in tables["ascii"]
    # What an encoding has stays as it is.
    assert "±" in tables["cp1252"] and "†" in tables["cp1252"] and "−" not in tables["cp1252"]
    assert "−" in tables["utf-8"]


@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [
        ("utf-8", "Łódź—\udcff", "Łódź—".encode() + b"\xff"),
        ("cp1252", "Łódź—\udcff", "?ód?—".encode("cp1252") + b"\xff"),
        ("ascii", "Łódź—\udcff", b"??d?-\xff"),
    ],
)
def test_an_error_names_a_file_of_any_name(run_in, encoding, name, shown):
    status, out, err = run_in(encoding, "report", "--store", name)
    assert (status, out) == (2, b"")
    assert err.startswith(b"bitgnn: There is no result store '" + shown + b"'")


@pytest.mark.parametrize("line", ["datasets", "info", "--help", "--version", TRAIN])
def test_commands_in_ascii(run_in, line):
    status, out, _ = run_in("ascii", *line.split())
    assert status == 0 and out.isascii()


@pytest.fixture
def run_into(monkeypatch, tmp_path):
    """Runs a command one of whose streams is a file descriptor; returns its status."""
    monkeypatch.chdir(tmp_path)

    def run(name, descriptor, line):
        with open(descriptor, "w") as stream:
            monkeypatch.setattr(sys, name, stream)
            with pytest.raises(SystemExit) as ended:
                main(line.split())
            with open(os.devnull, "w") as null:
                os.dup2(null.fileno(), descriptor)  # For what is left to be written.
        return ended.value.code

    return run


def closed_pipe():
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("line", ["datasets", "info", "--help", "--version", TRAIN])
def test_a_reader_that_leaves(run_into, capsys, tmp_path, line):
    assert run_into("stdout", closed_pipe(), line) == 1
    assert capsys.readouterr().err == ""
    if line == TRAIN:
        assert json.loads((tmp_path / "run.json").read_text())["epochs"] == 1


def test_nobody_reads_the_error(run_into):
    assert run_into("stderr", closed_pipe(), "bogus") == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="There is no /dev/full")
def test_a_full_disk(run_into, capsys):
    assert run_into("stdout", os.open("/dev/full", os.O_WRONLY), TRAIN) == 2
    assert capsys.readouterr().err == "bitgnn: [Errno 28] No space left on device\n"


def test_nothing_is_said_at_exit(tmp_path):
    """Python flushes standard output once more, and would complain."""
    with open(closed_pipe(), "wb") as output:
        found = subprocess.run(
            [sys.executable, "-m", "bitgnn", *TRAIN.split()],
            cwd=tmp_path, stdout=output, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert (found.returncode, found.stderr) == (1, b"")
