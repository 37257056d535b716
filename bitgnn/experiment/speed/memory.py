"""What the system knows of the memory of a process. Linux tells; others do not."""

import ctypes
import gc
from pathlib import Path

PROC = Path("/proc")


def resident(what: str, pid: int | str = "self") -> float | None:
    r"""Returns a number of mebibytes, or :obj:`None` if the system does not tell or the process is
    gone.

    Args:
        what (str): What is asked for, as Linux calls it: :obj:`"VmRSS"`, the highest of it so far,
            :obj:`"VmHWM"`, or what no file backs, :obj:`"RssAnon"`.
        pid (int or str, optional): The process. (default: this one)
    """
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), None)


def give_back() -> None:
    """Gives freed memory back, so that what was used before does not serve what is measured."""
    gc.collect()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def forget_peak() -> None:
    """Makes the highest memory so far that of now."""
    path = PROC / "self" / "clear_refs"
    if path.exists():
        path.write_text("5")
