"""The result store: every finished run, in one SQLite file, keyed by its full configuration."""

import errno
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6267_6E6E  # "bgnn" in the file's header: tells our stores from other databases
BUSY_SECONDS = 30.0
COLUMNS = ("dataset", "split_kind", "model", "precision", "seed")

_CREATE = f"""
CREATE TABLE runs (
    key TEXT NOT NULL PRIMARY KEY,
    dataset TEXT NOT NULL,
    split_kind TEXT NOT NULL,
    model TEXT NOT NULL,
    precision TEXT NOT NULL,
    seed INTEGER NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX runs_by_configuration ON runs ({", ".join(COLUMNS)});
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


def default_path() -> Path:
    r"""Returns the store used when none is named: :obj:`$BITGNN_STORE`, else
    :obj:`bitgnn-results.sqlite` in the current folder.
    """
    return Path(os.environ.get("BITGNN_STORE") or "bitgnn-results.sqlite")


class Store:
    r"""An embedded store of run records, one transaction a record.

    A record is on the disk once :meth:`put` returns: killing the process at any moment loses at
    most the run in flight. Identical configuration gives identical numbers, so a key that is
    already stored keeps its first record.

    Args:
        path (str or Path, optional): The SQLite file, made (with its folder) if absent.
            (default: :func:`default_path`)
        readonly (bool, optional): If set to :obj:`True`, the store must exist, and may lie where
            nothing can be written. (default: :obj:`False`)

    Raises:
        ValueError: If :obj:`path` is not a result store, is one of a newer version, or cannot be
            opened; also by methods, if a record is damaged.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, readonly: bool = False) -> None:
        self.path = Path(path) if path is not None else default_path()
        with self._explained():
            if readonly and not self.path.is_file():
                raise FileNotFoundError(errno.ENOENT, "there is no such file")
            locked = readonly and not self._can_write()
            if not readonly:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._connect(self._mode() if locked else None)
        try:
            with self._explained():
                if not locked:
                    self._open()
                elif not self._is_ours():
                    raise sqlite3.DatabaseError("it is empty")
        except BaseException:
            self._db.close()
            raise

    def get(self, key: str) -> dict[str, Any] | None:
        r"""Returns the record stored under :obj:`key`, or :obj:`None`."""
        with self._explained():
            found = self._db.execute("SELECT record FROM runs WHERE key = ?", (key,)).fetchone()
        return None if found is None else self._read(key, found[0])

    def put(self, record: dict[str, Any]) -> bool:
        r"""Stores a record; numbers that are not finite become :obj:`None`.

        Returns:
            Whether it is new. The first record of a key stays as it is.
        """
        return self.put_all([record]) == 1

    def put_all(self, records: Iterable[dict[str, Any]]) -> int:
        r"""Stores records, all of them or, if that fails, none; see :meth:`put`.

        Returns:
            How many are new.
        """
        query = (
            f"INSERT INTO runs (key, {', '.join(COLUMNS)}, record) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
        )
        with self._explained(), self._transaction("IMMEDIATE"):
            return sum(
                self._db.execute(
                    query,
                    [
                        record["key"],
                        *(record["spec"][name] for name in COLUMNS),
                        _to_json(record),
                    ],
                ).rowcount
                for record in records
            )

    def mean_seconds(self, dataset: str, model: str) -> dict[str, float]:
        r"""Returns how long runs of a data set and model took on average, by precision."""
        query = (
            "SELECT precision, avg(json_extract(record, '$.seconds')) FROM runs "
            "WHERE dataset = ? AND model = ? AND json_valid(record) "
            "AND json_type(record, '$.seconds') IN ('integer', 'real') GROUP BY precision"
        )
        with self._explained():
            return dict(self._db.execute(query, (dataset, model)).fetchall())

    def records(self, **filters: Any) -> list[dict[str, Any]]:
        r"""Returns the records that match every filter, ordered by configuration, then seed.

        Args:
            **filters: :obj:`dataset`, :obj:`split_kind`, :obj:`model`, :obj:`precision` or
                :obj:`seed`, each a value or a collection of allowed values.
        """
        clauses, values = [], []
        for name, wanted in filters.items():
            if name not in COLUMNS:
                raise ValueError(f"Cannot filter records by '{name}' (allowed: {list(COLUMNS)})")
            choices = [wanted] if isinstance(wanted, str | int) else list(wanted)
            clauses.append(f"{name} IN ({', '.join('?' * len(choices))})")
            values += choices
        where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
        query = f"SELECT key, record FROM runs {where} ORDER BY {', '.join(COLUMNS)}, key"
        with self._explained():
            found = self._db.execute(query, values).fetchall()
        return [self._read(key, text) for key, text in found]

    def damaged(self, key: Any, problem: object) -> ValueError:
        r"""Returns the error for a record that cannot be used.

        Args:
            key (str): Its key.
            problem (object): Why.
        """
        return ValueError(
            f"'{self.path}' holds a damaged record, '{key!s:.12}' ({problem}): download the "
            f"store again, or delete the record (DELETE FROM runs WHERE key = '{key}') and run "
            "again"
        )

    def close(self) -> None:
        r"""Closes the file; closing twice does nothing."""
        self._db.close()

    def __len__(self) -> int:
        with self._explained():
            return int(self._db.execute("SELECT count(*) FROM runs").fetchone()[0])

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.path}')"

    def _connect(self, mode: str | None) -> sqlite3.Connection:
        # isolation_level=None: sqlite3 opens no transaction by itself, a statement is one.
        options: dict[str, Any] = {"timeout": BUSY_SECONDS, "isolation_level": None}
        if mode is None:
            return sqlite3.connect(self.path, **options)
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?{mode}", uri=True, **options)

    def _can_write(self) -> bool:
        return os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)

    def _mode(self) -> str:
        # SQLite makes files beside a store to read it, unless it is told that nobody changes it.
        # Where they are there already, they may hold what was written last.
        log = self.path.with_name(f"{self.path.name}-wal")
        return "mode=ro" if log.is_file() and log.stat().st_size else "immutable=1"

    def _read(self, key: Any, text: Any) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(text)
            if not isinstance(record, dict) or not isinstance(record.get("spec"), dict):
                raise ValueError("it lacks 'spec'")
            if record.get("key") != key:
                raise ValueError("its 'key' is another one")
        except (ValueError, TypeError, RecursionError) as error:
            raise self.damaged(key, error) from None
        return record

    def _open(self) -> None:
        # Looks before it touches: a database of another program must stay as it is. In a
        # transaction, as another process may be making the store between two questions.
        with self._transaction("DEFERRED"):
            made = self._is_ours()
        if not made:
            # Two processes may meet at a new file: the second waits here and finds it made.
            with self._transaction("IMMEDIATE"):
                if not self._is_ours():
                    for statement in _CREATE.strip().rstrip(";").split(";"):
                        self._db.execute(statement)
        self._use_write_ahead_log()
        # FULL syncs the log at each commit; a run takes seconds, the sync milliseconds.
        self._db.execute("PRAGMA synchronous = FULL")

    def _use_write_ahead_log(self) -> None:
        # The one statement that does not wait for another process by itself.
        patience = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > patience:
                    raise
                time.sleep(0.01)

    def _is_ours(self) -> bool:
        """Whether the file is a store that this version reads; False if it is empty."""
        owner, version, tables = (
            self._db.execute(query).fetchone()[0]
            for query in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if owner == version == tables == 0:
            return False
        if owner != APPLICATION_ID:
            raise ValueError(
                f"'{self.path}' is a database of another program, not a bitgnn result store; "
                "name another file"
            )
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"'{self.path}' is a result store of version {version}, this bitgnn reads version "
                f"{SCHEMA_VERSION}; update bitgnn or name another file"
            )
        return True

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self._db.execute(f"BEGIN {kind}")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite may have rolled back by itself.
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what SQLite and the file system raise into one line that names the file."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            if "file is not a database" in str(error):
                problem = "it is not a database; name another file, or move this one away"
            elif "locked" in str(error):
                problem = f"another process held it for {BUSY_SECONDS:.0f} s; try again later"
            else:
                problem = getattr(error, "strerror", None) or str(error)
                if isinstance(error, PermissionError) or any(
                    said in problem for said in ("unable to open", "readonly")
                ):
                    problem += "; it must be a file, in a folder that you may write to"
            raise ValueError(f"Cannot use '{self.path}' as result store: {problem}") from error


def _to_json(record: dict[str, Any]) -> str:
    return json.dumps(_finite(record), allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    """JSON knows neither nan nor inf; a diverged run may hold both."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
