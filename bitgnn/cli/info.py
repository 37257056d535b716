import os
import platform
from importlib.util import find_spec

import torch
from rich.table import Table

import bitgnn
from bitgnn.cli import options
from bitgnn.cli.output import print_table
from bitgnn.data.locate import cache_dir, search_path
from bitgnn.experiment.format import memory
from bitgnn.experiment.passport import commit, device_name, machine, package_version
from bitgnn.experiment.store import default_path
from bitgnn.experiment.teachers import teachers_dir
from bitgnn.experiment.workers import number_of_workers
from bitgnn.kernels import native

EXTENSIONS = ("torch_scatter", "torch_sparse", "pyg_lib")


def info(root: options.Root = None) -> None:
    """Say which versions, kernels, devices and folders are in use.

    \b
    Examples:
      bitgnn info
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("bitgnn", bitgnn.__version__ + (f" ({commit()})" if commit() else ""))
    table.add_row("python", platform.python_version())
    for name in ("torch", "torch_geometric"):
        table.add_row(name, package_version(name))
    for name in EXTENSIONS:
        present = find_spec(name) is not None
        table.add_row(name, package_version(name) if present else "not installed")
    table.add_row("native kernels", native.status())
    table.add_row("machine", machine())
    gpus = [device_name(f"cuda:{index}") for index in range(torch.cuda.device_count())]
    table.add_row("devices", ", ".join(["cpu", *gpus]))
    threads = f"1 a run, {number_of_workers(None, 'cpu', 1 << 30)} runs at once"
    table.add_row("threads", f"{threads} (torch by itself: {torch.get_num_threads()})")
    for index, place in enumerate(search_path(root)):
        missing = "" if os.path.isdir(place) else " (not there yet)"
        table.add_row("data" if index == 0 else "", f"{place}{missing}")
    table.add_row("cache", str(cache_dir()))
    sizes = [path.stat().st_size for path in teachers_dir().glob("*.safetensors")]
    table.add_row("teachers", f"{len(sizes)} in the cache, {memory(sum(sizes))}")
    table.add_row("store", str(default_path()))
    print_table(table)
