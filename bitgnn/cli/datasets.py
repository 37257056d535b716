from pathlib import Path

from rich.table import Table

from bitgnn.cli import options
from bitgnn.cli.output import print_table
from bitgnn.data import TaskInfo, available
from bitgnn.data.locate import find, search_path
from bitgnn.data.ogb import OGBSource
from bitgnn.data.registry import lookup
from bitgnn.data.source import PyGSource


def datasets(root: options.Root = None) -> None:
    """List the data sets, and where the files of each are.

    \b
    Examples:
      bitgnn datasets
      bitgnn datasets --root ~/graphs
    """
    table = Table(box=None, pad_edge=False)
    for header in ("name", "family", "nodes", "edges", "features", "classes"):
        table.add_column(header, justify="left" if header in ("name", "family") else "right")
    for header in ("splits", "metric", "files"):
        table.add_column(header)
    for info in available():
        sizes = (info.nodes, info.edges, info.features, info.classes)
        table.add_row(
            info.name,
            info.family,
            *("" if size is None else str(size) for size in sizes),
            " ".join(info.splits),
            info.metric,
            _place(info, root),
        )
    print_table(table)


def _place(info: TaskInfo, root: Path | None) -> str:
    source = lookup(info.name).load
    if isinstance(source, OGBSource):
        return str(source.find(root) or "to fetch by hand")
    if not isinstance(source, PyGSource):
        return "built in"
    found = find(source.raw_files(), search_path(root))
    return "to download" if found is None else str(found)
