import os
import platform
import subprocess
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import bitgnn
from bitgnn.kernels import native


def passport(device: str | torch.device = "cpu") -> dict[str, Any]:
    r"""Returns under which versions and on which machine a number comes about.

    Args:
        device (str or torch.device, optional): The device that computes.
            (default: :obj:`"cpu"`)
    """
    return {
        "bitgnn": bitgnn.__version__,
        "torch": torch.__version__,
        "torch_geometric": package_version("torch_geometric"),
        "python": platform.python_version(),
        "commit": commit(),
        "machine": machine(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "kernels": native.isa(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def package_version(name: str) -> str | None:
    """Returns the version of an installed package, or :obj:`None`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def commit() -> str | None:
    """Returns the commit of the checkout that runs, marked if files differ from it; an
    installed package has none."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40",
               "--exclude=*"]  # fmt: skip
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, no commit yet, another's checkout
        return None
    return found.stdout.strip()


@cache
def machine() -> str:
    """Returns the operating system, the processor and the number of cores."""
    return f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} cores"


def device_name(device: str | torch.device) -> str:
    """Returns the name of a device, with the model of a GPU."""
    device = torch.device(device)
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"
