r"""Finished 32-bit runs that others learn from, one safetensors file each, below the cache.

They are no results: a file that is missing, damaged or another's is made anew by training.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open

from bitgnn.data.locate import cache_dir, writable
from bitgnn.files import write_whole
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
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    about = {"key": key, "val": json.dumps(run.val), "seconds": json.dumps(run.seconds)}
    writable(teachers_dir())
    write_whole(_path(key), safetensors.torch.save(tensors, about))


def load_teacher(key: str) -> TeacherRun | None:
    """Returns the run that was kept under a key; :obj:`None` if there is no sound file of it.

    Args:
        key (str): The key of the run.
    """
    try:
        with safe_open(_path(key), "pt") as file:
            about = file.metadata() or {}
            if about.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        val, seconds = json.loads(about["val"]), json.loads(about["seconds"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    if not tensors:
        return TeacherRun(None, val, seconds)
    logits = tensors.pop("logits", None)
    if logits is None:
        return None
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
