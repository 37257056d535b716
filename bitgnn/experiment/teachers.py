r"""Finished 32-bit runs that others learn from, one safetensors file each, below the cache.

They are no results: a file that is missing, damaged, older than the checksum or another's is made
anew by training.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from bitgnn.data.locate import cache_dir, writable
from bitgnn.files import write_whole
from bitgnn.tensor_file import CHECKSUM, from_bytes, to_bytes
from bitgnn.training import Teacher
from bitgnn.training.distributed import Group

STATE = "state."


@dataclass(frozen=True)
class TeacherRun:
    r"""A finished run that others learn from.

    Args:
        teacher (Teacher, optional): What it leaves to them; :obj:`None` if it diverged.
        val (float, optional): Its validation metric, in percent.
        seconds (float): How long it took.
    """

    teacher: Teacher | None
    val: float | None
    seconds: float


def teachers_dir() -> Path:
    """Returns the folder of the files; see :func:`bitgnn.data.locate.cache_dir`."""
    return cache_dir() / "teachers"


def has_teacher(key: str) -> bool:
    """Whether there is a file for a run.

    Args:
        key (str): The key of the run.
    """
    return _path(key).is_file()


def save_teacher(key: str, run: TeacherRun) -> None:
    """Keeps a finished run for others to learn from.

    Args:
        key (str): The key of the run.
        run (TeacherRun): The run.
    """
    tensors = {}
    if run.teacher is not None:
        state = {f"{STATE}{name}": value for name, value in run.teacher.state.items()}
        tensors = {"logits": run.teacher.logits, **state}
    about = {"key": key, "val": json.dumps(run.val), "seconds": json.dumps(run.seconds)}
    writable(teachers_dir())
    write_whole(_path(key), to_bytes(tensors, about))


def load_teacher(key: str) -> TeacherRun | None:
    """Returns the run that was kept under a key; :obj:`None` if there is no sound file of it.

    Args:
        key (str): The key of the run.
    """
    try:
        content = _path(key).read_bytes()
    except OSError:
        return None
    try:
        return _parse(content, key)
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        warnings.warn(
            f"Teacher '{_path(key)}' is not used ({error}): it is trained again", stacklevel=2
        )
        return None


def _parse(content: bytes, key: str) -> TeacherRun:
    tensors, about = from_bytes(content)
    if CHECKSUM not in about:
        raise ValueError("it has no checksum")
    if about["key"] != key:
        raise ValueError("it is another run's")
    val, seconds = json.loads(about["val"]), json.loads(about["seconds"])
    if not (val is None or isinstance(val, float)) or not isinstance(seconds, float):
        raise ValueError(f"its validation metric and seconds are no numbers: {val}, {seconds}")
    if not tensors:
        return TeacherRun(None, val, seconds)
    logits: Tensor = tensors.pop("logits")
    state = {name.removeprefix(STATE): value for name, value in tensors.items()}
    return TeacherRun(Teacher(logits, state), val, seconds)


def share_teacher(key: str, group: Group) -> None:
    """Gives all processes of a group what the first one keeps under a key, on its machine or on
    another.

    Args:
        key (str): The key of the run.
        group (Group): The processes.
    """
    content = group.read(_path(key).read_bytes() if group.rank == 0 else None)
    if group.rank > 0 and content is not None and load_teacher(key) is None:
        writable(teachers_dir())
        write_whole(_path(key), content)


def _path(key: str) -> Path:
    return teachers_dir() / f"{key}.safetensors"
