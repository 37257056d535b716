r"""Child processes that do not outlive their parent."""

import inspect
import os


def die_with_parent(parent: int) -> None:
    r"""Has Linux kill this process when its parent ends, however that ends, and also while this
    process is stopped; elsewhere does nothing. To be called by the child.

    Args:
        parent (int): The process ID of the parent.
    """
    # All names are imported here: prelude() takes the function out of its module.
    import ctypes
    import os
    import signal
    import sys

    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # It has ended before.
            os._exit(1)


def prelude() -> str:
    r"""Returns the first lines of a child's program: importing bitgnn takes seconds, in which the
    parent may end, and :func:`die_with_parent` must not wait for that."""
    return f"{inspect.getsource(die_with_parent)}\ndie_with_parent({os.getpid()})\n"
