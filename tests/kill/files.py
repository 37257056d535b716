"""What is in a folder after a kill: everything whole, and after a success nothing temporary."""

import json
import re
import sqlite3
from pathlib import Path

from bitgnn.tensor_file import CHECKSUM, from_bytes

TEMPORARY = re.compile(r"\..*\.\d+-\d+-[0-9a-f]{8}")
LOGS = ("-wal", "-shm", "-journal")


def check_whole(folder: Path) -> None:
    """Raises if a file is not whole, but for temporary ones."""
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and not any(map(TEMPORARY.fullmatch, relative.parts)):
            _check(path)


def temporary(folder: Path) -> list[Path]:
    """The temporary files and folders, and the logs of databases."""
    return [
        path
        for path in folder.rglob("*")
        if TEMPORARY.fullmatch(path.name) or path.name.endswith(LOGS)
    ]


def _check(path: Path) -> None:
    content = path.read_bytes()
    if path.suffix == ".json":
        json.loads(content)
    elif path.suffix == ".safetensors":
        assert CHECKSUM in from_bytes(content)[1], path
    elif path.suffix == ".png":
        assert content.endswith(b"IEND\xaeB`\x82"), path
    elif path.suffix == ".html":
        assert content.rstrip().endswith(b"</html>"), path
    elif path.suffix == ".csv":
        assert content.endswith(b"\n"), path
    elif path.suffix == ".sqlite":
        database = sqlite3.connect(path)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",), path
        database.close()
    else:
        assert path.name == "output.txt" or path.name.endswith(LOGS), f"what is {path}?"
