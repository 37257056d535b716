r"""Files and folders that are written whole or not at all."""

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What follows the name of the target: process, thread, and a random part, since processes of two
# containers may share both numbers and a folder.
_SUFFIX = re.compile(r"\d+-\d+-[0-9a-f]{8}")

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    r"""Writes a file such that it holds either its former or its new content at every moment,
    including after a crash of the process or of the machine.

    A symbolic link stays, and its target is replaced. The permissions of a file that exists are
    kept; those of a new file follow the umask.

    Args:
        path (str or Path): The file; its folder is made if absent.
        content (bytes): The content.

    Raises:
        ValueError: If :obj:`path` exists and is no regular file, or leads nowhere.
        OSError: If it cannot be written.
    """
    before = _regular(path)
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(target)
        temporary, file = _create(target)
        try:
            with open(file, "wb") as opened:
                opened.write(content)
                opened.flush()
                if before is not None:
                    _keep_permissions(file, before)
                os.fsync(file)
                if fcntl is not None:  # While it is locked: no process may take it for a stale one.
                    os.replace(temporary, target)
            if fcntl is None:  # Windows renames closed files only.
                os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)
    except OSError as error:
        # The name that the user gave, not that of the temporary file.
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


def move_whole(source: Path, path: str | os.PathLike[str]) -> None:
    r"""Makes a file that is finished, in the same file system, another one, as
    :func:`write_whole` does with content.

    Args:
        source (pathlib.Path): The finished file, which no one else knows: one in a
            :func:`temporary_folder`.
        path (str or Path): The file.

    Raises:
        ValueError: If :obj:`path` exists and is no regular file, or leads nowhere.
    """
    before = _regular(path)
    target = Path(os.path.realpath(path))
    with open(source, "rb+") as opened:
        if before is not None:
            _keep_permissions(opened.fileno(), before)
        os.fsync(opened.fileno())
    os.replace(source, target)
    sync_folder(target.parent)


def check_writable(path: str | os.PathLike[str]) -> None:
    r"""Checks that :func:`write_whole` can be expected to write a file, to be called before hours
    of work whose result goes there. Creates nothing.

    Args:
        path (str or Path): The file.

    Raises:
        ValueError: If it cannot be written.
    """
    _regular(path)
    check_folder(Path(os.path.realpath(path)).parent, os.fspath(path))


def check_folder(folder: Path, wanted: str | None = None) -> None:
    r"""Checks that files can be created in a folder, or that it can be made. Leaves nothing.

    Args:
        folder (pathlib.Path): The folder.
        wanted (str, optional): What is to be written, for the message. (default: the folder)

    Raises:
        ValueError: If they cannot.
    """
    place = folder.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    try:  # What a user may do says nothing of file systems that take no files, such as /proc.
        with tempfile.TemporaryFile(dir=place):
            return
    except NotADirectoryError:
        problem = f"'{place}' is no folder"
    except PermissionError:
        problem = f"the folder '{place}' is read-only for this user"
    except OSError as error:
        problem = f"the folder '{place}' takes no files ({error.strerror})"
    raise ValueError(f"Cannot write '{wanted or folder}': {problem}; name another place")


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    r"""A folder that is removed at the end; if the process is killed, by the next call for the same
    place.

    Args:
        beside (pathlib.Path): What the folder's content is for, in the same parent folder, which
            exists.
    """
    remove_stale(beside)
    folder, handle = _create_folder(beside)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def remove_stale(target: Path) -> None:
    r"""Removes temporary files and folders that processes which no longer exist have left beside a
    file or folder.

    Args:
        target (pathlib.Path): The file or folder.
    """
    if fcntl is None:
        return
    prefix = f".{target.name}."
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and _SUFFIX.fullmatch(entry.name[len(prefix) :]):
                _remove_if_stale(entry)


def sync_folder(folder: Path) -> None:
    r"""Has the names in a folder written to the disk.

    Args:
        folder (pathlib.Path): The folder.
    """
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # Some network file systems cannot.
            os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    r"""Has all that is in a folder written to the disk.

    Args:
        folder (pathlib.Path): The folder.
    """
    if os.name != "posix":
        return
    for place, _, names in os.walk(folder):
        for name in names:
            handle = os.open(os.path.join(place, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(place))


def _regular(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Returns the status of a regular file, :obj:`None` if there is nothing; raises otherwise."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except NotADirectoryError:  # A file where a folder should be: making the folder tells which.
        return None
    except OSError as error:  # Links that lead to each other, a name that is too long.
        is_loop = error.errno == errno.ELOOP
        problem = "a symbolic link leads back to itself" if is_loop else error.strerror
        raise ValueError(
            f"Cannot write '{os.fspath(path)}': {problem}; name another place"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise ValueError(
            f"'{os.fspath(path)}' is {kind}, and only regular files are written: name a file"
        )
    return found


def _create(target: Path) -> tuple[Path, int]:
    """Opens a new temporary file, locked for as long as it is open."""
    while True:
        temporary = _temporary(target)
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        _lock(file)
        if os.fstat(file).st_nlink > 0:
            return temporary, file
        os.close(file)  # Another process took it for a stale one before it was locked.


def _create_folder(beside: Path) -> tuple[Path, int | None]:
    """The same for a folder."""
    while True:
        folder = _temporary(beside)
        folder.mkdir()
        if fcntl is None:
            return folder, None
        with suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY)
            _lock(handle)
            if os.path.isdir(folder):
                return folder, handle
            os.close(handle)


def _temporary(target: Path) -> Path:
    thread = threading.get_native_id()
    return target.with_name(f".{target.name}.{os.getpid()}-{thread}-{secrets.token_hex(4)}")


def _lock(handle: int) -> None:
    if fcntl is not None:
        with suppress(OSError):  # A file system without locks: what is left there stays.
            fcntl.flock(handle, fcntl.LOCK_EX)


def _remove_if_stale(entry: "os.DirEntry[str]") -> None:
    """Removes what no process holds a lock on. Locks end with their process, however that ends."""
    with suppress(OSError):
        is_folder = entry.is_dir(follow_symlinks=False)
        # To lock a file on NFS, it must be open for writing.
        mode = os.O_RDONLY if is_folder else os.O_RDWR
        handle = os.open(entry.path, mode | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_folder:
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
        finally:
            os.close(handle)


def _keep_permissions(file: int, before: os.stat_result) -> None:
    if os.name != "posix":
        return
    with suppress(PermissionError):  # Only root may give files away.
        if (os.fstat(file).st_uid, os.fstat(file).st_gid) != (before.st_uid, before.st_gid):
            os.fchown(file, before.st_uid, before.st_gid)
    os.fchmod(file, stat.S_IMODE(before.st_mode) & 0o777)
