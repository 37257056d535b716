import errno
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from bitgnn import files
from bitgnn.files import (
    check_folder,
    check_writable,
    move_whole,
    temporary_folder,
    write_whole,
)

# Loads the module by its file, which needs the standard library only and starts at once.
WRITER = """
import os, runpy, sys
names = runpy.run_path(sys.argv[1])
replace = os.replace
def wait(*args):
    print("ready", flush=True)
    sys.stdin.readline()
    replace(*args)
os.replace = wait
names["write_whole"](sys.argv[2], b"from another process")
"""


def start(script, *args):
    process = subprocess.Popen(
        [sys.executable, "-c", script, files.__file__, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_whole_makes_its_folder_and_replaces(tmp_path):
    path = tmp_path / "new" / "file.json"
    for content in (b"first", b"second"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_whole(path, b"old")

    def fail(source, target):
        raise OSError(errno.ENOSPC, "disk full", str(source))

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match=r"disk full: '.*/file\.json'$"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_stays(tmp_path):
    (tmp_path / "data").mkdir()
    link, target = tmp_path / "link", tmp_path / "data" / "target"
    link.symlink_to(target)
    for content in (b"first", b"second"):  # At first the link leads nowhere.
        write_whole(link, content)
        assert link.is_symlink() and link.readlink() == target
        assert target.read_bytes() == content
    assert names(tmp_path) == ["data", "link"] and names(tmp_path / "data") == ["target"]


@pytest.mark.parametrize("check", [check_writable, lambda path: write_whole(path, b"new")])
def test_only_regular_files_are_replaced(check, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to("/dev/null")
    for path, kind in [
        (fifo, "a pipe"),
        ("/dev/null", "a device"),
        (tmp_path / "link", "a device"),
        (tmp_path, "a folder"),
    ]:
        with pytest.raises(ValueError, match=f"is {kind}, and only regular files") as error:
            check(path)
        assert f"'{path}'" in str(error.value)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert names(tmp_path) == ["fifo", "link"]


def test_permissions_are_kept_and_new_files_follow_the_umask(tmp_path):
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_whole(path, b"new")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        write_whole(path, b"again")
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def sync(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def rename(*args):
        done.append("rename")
        replace(*args)

    monkeypatch.setattr(files.os, "fsync", sync)
    monkeypatch.setattr(files.os, "replace", rename)
    write_whole(tmp_path / "file", b"new")
    assert done == ["file", "rename", "folder"]


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    path, other = tmp_path / "file", tmp_path / "file.json"
    killed, alive = start(WRITER, path), start(WRITER, path)
    elsewhere = start(WRITER, other)
    for process in (killed, elsewhere):
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(names(tmp_path)) == 3
    (tmp_path / ".file.notes").touch()  # not ours
    write_whole(path, b"new")
    left = names(tmp_path)
    assert f".file.{alive.pid}-{alive.pid}-" in " ".join(left)
    assert f".file.{killed.pid}-" not in " ".join(left)
    assert f".file.json.{elsewhere.pid}-" in " ".join(left)  # another target's
    assert path.read_bytes() == b"new"
    alive.communicate("go\n")
    assert alive.returncode == 0 and path.read_bytes() == b"from another process"
    write_whole(other, b"new")
    assert names(tmp_path) == [".file.notes", "file", "file.json"]


def test_threads_write_one_file(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    problems = []

    def write(content):
        try:
            for _ in range(20):
                write_whole(path, content)
                assert path.read_bytes() in contents
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("check", [check_writable, lambda path: write_whole(path, b"new")])
def test_paths_that_lead_nowhere(check, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "file"):
        with pytest.raises(ValueError, match=f"Cannot write '{path}': a symbolic link leads back"):
            check(path)
    with pytest.raises(ValueError, match="Cannot write '.*File name too long; name another place"):
        check(tmp_path / ("x" * 1000))
    assert names(tmp_path) == ["loop"]


def test_check_writable_creates_nothing(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "folder" / "file")
    check_folder(tmp_path / "new" / "folder")
    (tmp_path / "file").touch()
    check_writable(tmp_path / "file")
    for path in (tmp_path / "file" / "a" / "b", tmp_path / "file" / "a"):
        with pytest.raises(ValueError, match=f"Cannot write '{path}': '.*/file' is no folder"):
            check_writable(path)
    assert names(tmp_path) == ["file"]

    def refuse(dir):
        raise PermissionError

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)  # Root may write anywhere.
    with pytest.raises(ValueError, match=f"'{tmp_path}' is read-only for this user; name another"):
        check_writable(tmp_path / "new" / "file")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
def test_check_writable_refuses_what_takes_no_files():
    # Root may write to it, says os.access, and cannot.
    with pytest.raises(ValueError, match=r"the folder '/proc' takes no files \(No such file"):
        check_writable("/proc/report/file")


FOLDER = """
import os, runpy, sys
from pathlib import Path
with runpy.run_path(sys.argv[1])["temporary_folder"](Path(sys.argv[2])) as folder:
    (folder / "part").touch()
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_temporary_folder(tmp_path):
    target = tmp_path / "built"
    killed, alive = start(FOLDER, target), start(FOLDER, target)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(names(tmp_path)) == 2
    with temporary_folder(target) as folder:
        assert folder.is_dir() and folder.parent == tmp_path and not any(folder.iterdir())
        assert len(names(tmp_path)) == 2  # This one, and that of the process that is alive.
    alive.communicate("go\n")
    assert alive.returncode == 0
    assert names(tmp_path) == []


def test_move_whole(tmp_path):
    link, target = tmp_path / "link", tmp_path / "target"
    target.touch(0o600)
    link.symlink_to(target)
    with temporary_folder(target) as folder:
        (folder / "finished").write_bytes(b"new")
        move_whole(folder / "finished", link)
        (folder / "finished").write_bytes(b"other")
        with pytest.raises(ValueError, match="'/dev/null' is a device"):
            move_whole(folder / "finished", "/dev/null")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert names(tmp_path) == ["link", "target"]
