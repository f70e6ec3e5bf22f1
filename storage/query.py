"""SQL over the lake: an in-memory DuckDB that can read the files of one snapshot and nothing else.

Parquet is the truth, DuckDB a lens: a connection lives as long as a query, holds no file open for writing, and sees
one view a timeframe over exactly the files that the manifest names:

- `bars_1d`, `bars_1m`, …: symbol, time (UTC), open, high, low, close (adjusted), volume, raw_open, raw_high,
  raw_low, raw_close, factor
- `series`: symbol, timeframe, source, rows, first, last; `instruments`: the facts of each

Never open a connection before a process forks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from gpt_trader.errors import Problem, Refused
from gpt_trader.instruments import TIMEFRAMES, Instrument
from storage.lake import Lake, Version
from storage.manifest import Entry

DEFAULT_LIMIT: Final = 10_000
DEFAULT_TIMEOUT_SECONDS: Final = 30.0
_MAX_SQL: Final = 100_000

#: Columns of `series` and `instruments` that are no text.
_TYPES: Final = {
    "rows": pa.int64(),
    "bars_a_year": pa.float64(),
    "session_minutes": pa.float64(),
    "fractional": pa.bool_(),
    "shortable": pa.bool_(),
    "edited": pa.list_(pa.string()),
}

#: Set in this order on every connection; the last one makes them final.
_SETTINGS: Final = (
    "SET threads = 1",
    "SET memory_limit = '1GB'",
    "SET TimeZone = 'UTC'",
    "SET temp_directory = ''",  # nothing spills into a folder
    "SET python_enable_replacements = false",  # SQL must not see variables of this program
    "SET autoload_known_extensions = false",
    "SET autoinstall_known_extensions = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)

_VIEW: Final = """
    CREATE VIEW {name} AS
    SELECT symbol, time, open * factor AS open, high * factor AS high, low * factor AS low, close * factor AS close,
           volume, open AS raw_open, high AS raw_high, low AS raw_low, close AS raw_close, factor
    FROM read_parquet([{paths}])
"""


@contextmanager
def connect(lake: Lake, snapshot: Version = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection whose views show one snapshot; closed at the end.

    For SQL of our own: a user's goes through `query`, because what may be read here may be written over by COPY.
    Every file is checked against the manifest's sha256 first
    (CorruptLake). Raises NotFound or Refused for a snapshot that there is not.
    """
    entries = lake.entries(snapshot)
    paths = {entry: lake.verified_paths([entry]) for entry in entries}
    with duckdb.connect(":memory:") as connection:
        _describe(connection, lake, entries, snapshot)
        files = [_quoted(path) for found in paths.values() for path in found]
        connection.execute(f"SET allowed_paths = [{', '.join(files)}]")
        for setting in _SETTINGS:
            connection.execute(setting)
        for timeframe in TIMEFRAMES:
            shown = [
                _quoted(path) for entry in entries if entry.timeframe == timeframe for path in paths[entry]
            ]
            if shown:
                connection.execute(_VIEW.format(name=f"bars_{timeframe}", paths=", ".join(shown)))
        yield connection


def query(
    lake: Lake,
    sql: str,
    *,
    snapshot: Version = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
) -> pa.Table:
    """Run one SELECT of a user and return at most `limit` rows.

    The table's schema metadata says under `truncated` ("true" or "false") whether there were more. Raises Refused
    for anything but one reading statement, for SQL that fails, and for a query that takes longer than `timeout`
    seconds or more than 1 GB.
    """
    if limit < 1:
        raise Refused.of(Problem("limit", limit, "must be at least 1"))
    with connect(lake, snapshot) as connection:
        statement = _one_reading_statement(connection, sql)
        timer = threading.Timer(timeout, connection.interrupt)
        timer.start()
        try:
            reader = connection.sql(statement).to_arrow_reader(min(limit + 1, 100_000))
            return _first_rows(reader, limit)
        except duckdb.InterruptException:
            raise Refused.of(Problem("sql", sql, f"took longer than {timeout:g} s: narrow it down")) from None
        except (duckdb.Error, pa.ArrowException) as error:
            raise _failed(connection, sql, error) from None
        finally:
            timer.cancel()


def _one_reading_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    if len(sql) > _MAX_SQL:
        raise Refused.of(Problem("sql", sql, f"has {len(sql)} characters, more than {_MAX_SQL}"))
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise _failed(connection, sql, error) from None
    if len(statements) != 1:
        raise Refused.of(Problem("sql", sql, f"give one statement, not {len(statements)}"))
    # Not even EXPLAIN: EXPLAIN ANALYZE COPY … TO a file of the lake would write it.
    if statements[0].type != duckdb.StatementType.SELECT:
        kind = statements[0].type.name
        raise Refused.of(
            Problem("sql", sql, f"{kind} is not a query: the lake is read-only", allowed="SELECT")
        )
    return statements[0]


def _first_rows(reader: pa.RecordBatchReader, limit: int) -> pa.Table:
    batches, rows = [], 0
    for batch in reader:
        batches.append(batch)
        rows += batch.num_rows
        if rows > limit:
            break
    table = pa.Table.from_batches(batches, schema=reader.schema).slice(0, limit)
    return table.replace_schema_metadata({"truncated": "true" if rows > limit else "false"})


def _describe(
    connection: duckdb.DuckDBPyConnection, lake: Lake, entries: list[Entry], snapshot: Version
) -> None:
    """Make the small tables `series` and `instruments`; before the connection is locked."""
    facts = [i.model_dump(mode="json") for i in lake.instruments(snapshot)]
    instruments = {name: [fact[name] for fact in facts] for name in Instrument.model_fields}
    series = {
        name: [getattr(entry, name) for entry in entries]
        for name in ("symbol", "timeframe", "source", "rows", "first", "last")
    }
    for table, columns in (("series", series), ("instruments", instruments)):
        typed = {name: pa.array(values, _TYPES.get(name, pa.string())) for name, values in columns.items()}
        connection.register("given", pa.table(typed))
        connection.execute(f"CREATE TABLE {table} AS FROM given")
        connection.unregister("given")
    for name in ("first", "last"):
        connection.execute(f"ALTER TABLE series ALTER {name} TYPE TIMESTAMPTZ")


def _failed(connection: duckdb.DuckDBPyConnection, sql: str, error: Exception) -> Refused:
    """Return the refusal: DuckDB's complaint and the tables there are."""
    tables = "series, instruments"
    if not isinstance(error, duckdb.OutOfMemoryException):
        names = (
            connection.cursor().execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        )
        tables = ", ".join([*sorted(name for (name,) in names), tables])
    reason = str(error).strip().split("\n\n")[0][:500]
    return Refused.of(Problem("sql", sql, f"the query failed: {reason}", allowed=f"tables {tables}"))


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
