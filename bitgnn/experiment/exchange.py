r"""A result store as a text file: what one machine has run, another goes on from."""

import gzip
import json
import os
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.store import Store
from bitgnn.files import write_whole


def export_records(
    store: Store, path: str | os.PathLike[str], keys: Collection[str] | None = None
) -> int:
    r"""Writes the records of a store, one line of JSON each, without their curves.

    The same records give the same file, so that it can be kept under version control.

    Args:
        store (Store): The store.
        path (str or Path): The file, replaced if it is there; compressed if its name ends with
            :obj:`.gz`.
        keys ([str], optional): Which records. (default: :obj:`None`, all)

    Returns:
        How many records were written.
    """
    wanted = [record for record in store.records() if keys is None or record["key"] in keys]
    lines = [_line({**record, "curves": {}}) for record in wanted]
    content = "".join(lines).encode()
    path = Path(path)
    write_whole(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return len(lines)


def import_records(store: Store, path: str | os.PathLike[str]) -> int:
    r"""Puts what :func:`export_records` has written into a store: all of it, or nothing.

    Args:
        store (Store): The store.
        path (str or Path): The file.

    Returns:
        How many of the records are new; the first record of a key stays as it is.

    Raises:
        ValueError: If the file is damaged, a line is no record, or one of another version of
            bitgnn, whose numbers are not those that this one would give.
    """
    lines = enumerate(_read(Path(path)).splitlines(), start=1)
    return store.put_all([_record(line, f"'{path}', line {number}") for number, line in lines])


def _read(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"'{path}' is damaged ({error}): download it again, or run without it"
            ) from None
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is no text ({error}): name a file of records") from None


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(line)
        key, spec = record["key"], RunSpec.from_dict(record["spec"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{place} is no record of a run ({error}): name a file that `export_records` wrote"
        ) from None
    if key != spec.key:
        raise ValueError(
            f"{place}: {spec} was run by another version of bitgnn, which may give other numbers; "
            "run it again with this one"
        )
    return record
