import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading

import pytest

from bitgnn.experiment import store as module
from bitgnn.experiment.store import Store, default_path

# Loads the module by its file, which needs the standard library only and starts at once.
WRITER = """
import json, runpy, sys
Store = runpy.run_path(sys.argv[1])["Store"]
template = json.loads(sys.argv[3])
with Store(sys.argv[2]) as store:
    for number in range(10**9):
        record = {**template, "key": f"run-{number}"}
        assert store.put(record)
        print(record["key"], flush=True)
"""
COUNTED = """
import json, runpy, sys
Store = runpy.run_path(sys.argv[1])["Store"]
template, name = json.loads(sys.argv[3]), sys.argv[4]
print("ready", flush=True)
sys.stdin.readline()
with Store(sys.argv[2]) as store:
    for number in range(30):
        assert store.put({**template, "key": f"{name}-{number}"})
        store.put({**template, "key": "shared"})
"""


def test_round_trip(tmp_path, record):
    first, second = record(seed=0), record(seed=1)
    with Store(tmp_path / "new" / "folder" / "store.sqlite") as store:
        assert len(store) == 0
        assert store.get(first["key"]) is None
        assert store.put(first)
        assert store.put(second)
        assert len(store) == 2
        assert store.get(first["key"]) == first
    with Store(store.path) as store:
        assert store.records() == [first, second]
    assert [path.name for path in store.path.parent.iterdir()] == ["store.sqlite"]
    assert str(store) == f"Store('{store.path}')"


def test_first_record_of_a_key_stays(tmp_path, record):
    with Store(tmp_path / "store.sqlite") as store:
        assert store.put(record())
        assert not store.put({**record(), "test": 0.0})
        assert store.records() == [record()]


def test_numbers_that_are_not_finite_become_null(tmp_path, record):
    diverged = {**record(), "val": -math.inf, "curves": {"loss": (1.0, math.nan, math.inf)}}
    with Store(tmp_path / "store.sqlite") as store:
        store.put(diverged)
        found = store.get(diverged["key"])
    assert found["val"] is None
    assert found["curves"] == {"loss": [1.0, None, None]}
    json.dumps(found, allow_nan=False)


def test_filters(tmp_path, records):
    everything = records(("Cora", "PubMed"), ("gcn", "mlp"), seeds=range(3))
    with Store(tmp_path / "store.sqlite") as store:
        for each in reversed(everything):
            store.put(each)
        some = store.records(dataset="Cora", precision=["fp32", "absmean"], seed=2)
        assert [(each["spec"]["model"], each["spec"]["precision"]) for each in some] == [
            ("gcn", "absmean"), ("gcn", "fp32"), ("mlp", "absmean"), ("mlp", "fp32"),
        ]  # fmt: skip
        assert store.records(model="gat") == []
        assert store.records(model=[]) == []
        assert [each["spec"]["seed"] for each in store.records(model="gcn")][:3] == [0, 1, 2]
        with pytest.raises(ValueError, match="Cannot filter records by 'lr'"):
            store.records(lr=0.1)


def test_kill_loses_no_acknowledged_record(tmp_path, record):
    path = tmp_path / "store.sqlite"
    acknowledged = 0
    for until in (1, 25, 60):
        path.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, module.__file__, str(path), json.dumps(record())],
            stdout=subprocess.PIPE,
            text=True,
        )
        keys = [process.stdout.readline().strip() for _ in range(until)]
        process.send_signal(signal.SIGKILL)
        keys += process.stdout.read().split()
        assert process.wait() == -signal.SIGKILL
        with Store(path) as store:
            assert all(store.get(key) is not None for key in keys)
            assert len(store) - len(keys) in (0, 1)  # killed between the put and the print
            assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert store.put({**record(), "key": "after"})
        acknowledged += len(keys)
    assert acknowledged >= 86


def test_two_processes_write_to_one_store(tmp_path, record):
    path = tmp_path / "store.sqlite"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTED, module.__file__, str(path), json.dumps(record()), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # Both meet at a file that does not exist yet.
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    with Store(path) as store:
        found = sorted(each["key"] for each in store.records())
        assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert found == sorted([f"{name}-{i}" for name in "ab" for i in range(30)] + ["shared"])


def test_a_store_that_is_being_made_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "store.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.executescript(f"BEGIN IMMEDIATE; {module._CREATE}")
    assert path.exists()
    timer = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    timer.start()
    with Store(path) as store:
        assert len(store) == 0
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    timer.join()
    other.close()


@pytest.mark.parametrize("kind", ["DEFERRED", "IMMEDIATE"])
def test_a_store_in_use_without_its_log_is_waited_for(tmp_path, kind):
    # As a process leaves it that was killed before it chose the write-ahead log.
    path = tmp_path / "store.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.executescript(module._CREATE)
    other.execute(f"BEGIN {kind}")
    other.execute("SELECT count(*) FROM runs").fetchall()
    timer = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    timer.start()
    with Store(path) as store:
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    timer.join()
    other.close()


def test_context_manager_closes_also_after_an_error(tmp_path, record):
    with pytest.raises(RuntimeError), Store(tmp_path / "store.sqlite") as store:
        store.put(record())
        raise RuntimeError
    with pytest.raises(ValueError, match="closed"):
        store.get(record()["key"])
    store.close()
    with Store(store.path) as store:
        assert len(store) == 1


def test_locked_for_too_long(tmp_path, record, monkeypatch):
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.0)
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ValueError, match=r"store\.sqlite.*another process held it"):
            store.put(record())
        other.execute("ROLLBACK")
        other.close()
        assert store.put(record())


def test_not_a_database(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("This is a text, not a database. " * 100)
    with pytest.raises(ValueError, match=r"notes\.txt.*not a database") as error:
        Store(path)
    assert "\n" not in str(error.value)
    assert path.read_text().startswith("This is a text")


def test_folder_instead_of_a_file(tmp_path):
    with pytest.raises(
        ValueError, match="unable to open database file; it must be a file"
    ) as error:
        Store(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_file_instead_of_a_folder(tmp_path):
    (tmp_path / "notes").touch()
    with pytest.raises(ValueError, match=r"Cannot use '.*store\.sqlite' as result store: .*exists"):
        Store(tmp_path / "notes" / "store.sqlite")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("name", ["store.sqlite", "new/store.sqlite"])
def test_folder_that_is_read_only(tmp_path, name):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    with pytest.raises(ValueError, match=r"store\.sqlite.*folder that you may write to") as error:
        Store(folder / name)
    folder.chmod(0o755)
    assert "\n" not in str(error.value)


def test_database_of_another_program_stays_untouched(tmp_path):
    path = tmp_path / "photos.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE photos (name TEXT)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"photos\.sqlite.*another program"):
        Store(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["photos.sqlite"]


def test_store_of_a_newer_version(tmp_path):
    path = tmp_path / "store.sqlite"
    Store(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ValueError, match="version 99, this bitgnn reads version 1; update"):
        Store(path)


def test_default_path(tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_STORE", str(tmp_path / "named.sqlite"))
    assert default_path() == tmp_path / "named.sqlite"
    monkeypatch.delenv("BITGNN_STORE")
    assert str(default_path()) == "bitgnn-results.sqlite"


def test_put_all_stores_all_or_none(tmp_path, records):
    given = records(precisions=["fp32"], seeds=range(3))
    with Store(tmp_path / "s") as store:
        assert store.put_all(given[:1]) == 1
        broken = {key: value for key, value in given[2].items() if key != "spec"}
        with pytest.raises(KeyError):
            store.put_all([given[1], broken])
        assert len(store) == 1
        assert store.put_all(given) == 2
        assert store.put_all([]) == 0
        assert [record["spec"]["seed"] for record in store.records()] == [0, 1, 2]


def test_mean_seconds(tmp_path, records):
    given = records(models=["gcn", "mlp"], seeds=range(2))
    for record in given:
        record["seconds"] = 1.5 + record["spec"]["seed"]
    with Store(tmp_path / "s") as store:
        store.put_all(given)
        assert store.mean_seconds("Cora", "gcn") == dict.fromkeys(
            ("fp32", "absmean", "absmedian"), 2.0
        )
        assert store.mean_seconds("Cora", "gat") == {}


def damage(path, change):
    """Changes the one record of a store, behind its back."""
    db = sqlite3.connect(path)
    (text,) = db.execute("SELECT record FROM runs").fetchone()
    db.execute("UPDATE runs SET record = ?", (change(text),))
    db.commit()
    db.close()


def without(text, name):
    record = json.loads(text)
    del record[name]
    return json.dumps(record)


DAMAGES = {
    "no JSON": (lambda text: text[: len(text) // 2], "delimiter|Unterminated|Expecting"),
    "a list": (lambda text: "[1]", "it lacks 'spec'"),
    "a number": (lambda text: 7, "it lacks 'spec'"),
    "no spec": (lambda text: without(text, "spec"), "it lacks 'spec'"),
    "no key": (lambda text: without(text, "key"), "its 'key' is another one"),
    "another key": (lambda text: text.replace('"key":"', '"key":"0', 1), "is another one"),
    "lists in lists": (lambda text: "[" * 100_000, "recursion"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_record(kind, tmp_path, record):
    change, problem = DAMAGES[kind]
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        store.put(record())
    damage(path, change)
    with Store(path) as store:
        for read in (store.records, lambda: store.get(record()["key"])):
            with pytest.raises(ValueError, match=rf"^'{path}' holds a damaged .*({problem})"):
                read()
        assert set(store.mean_seconds("Cora", "gcn")) <= {"fp32"}


def test_other_tables_in_a_file_that_says_it_is_a_store(tmp_path):
    path = tmp_path / "store.sqlite"
    Store(path).close()
    db = sqlite3.connect(path)
    db.executescript("DROP TABLE runs; CREATE TABLE runs (name TEXT)")
    db.close()
    with pytest.raises(ValueError, match=r"Cannot use '.*store\.sqlite' as result store: no such"):
        Store(path).records()


def test_reading_makes_no_store(tmp_path):
    with pytest.raises(ValueError, match=r"Cannot use '.*new/store\.sqlite'.*no such file"):
        Store(tmp_path / "new" / "store.sqlite", readonly=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("killed", [False, True])
def test_store_in_a_folder_that_is_read_only(killed, tmp_path, record, monkeypatch):
    folder = tmp_path / "folder"
    with Store(folder / "store.sqlite") as store:
        store.put(record())
        if killed:  # What was written last is in the log beside the store.
            shutil.copytree(folder, tmp_path / "killed")
            folder = tmp_path / "killed"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    folder.chmod(0o555)
    monkeypatch.setattr(module.os, "access", lambda *_: False)  # As root may write there.
    with Store(folder / "store.sqlite", readonly=True) as store:
        assert store.records() == [record()]
        with pytest.raises(ValueError, match=r"store\.sqlite.*readonly"):
            store.put({**record(), "key": "new"})
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after.keys() == before.keys()
    assert after["store.sqlite"] == before["store.sqlite"]
    folder.chmod(0o755)


NOBODY = """
import os, runpy, sys
Store = runpy.run_path(sys.argv[1])["Store"]
os.setgid(65534)
os.setuid(65534)
with Store(sys.argv[2], readonly=True) as store:
    print(len(store.records()))
"""


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root becomes another")
def test_store_that_belongs_to_another_user(record):
    with tempfile.TemporaryDirectory() as folder:  # Others may not enter tmp_path.
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "store.sqlite")
        with Store(path) as store:
            store.put(record())
        command = [sys.executable, "-c", NOBODY, module.__file__, path]
        found = subprocess.run(command, capture_output=True, text=True)
        assert os.listdir(folder) == ["store.sqlite"]
    assert (found.stdout, found.stderr) == ("1\n", "")
