"""What SQL sees of one snapshot of the lake, and how one SELECT over it is run by DuckDB.

A `Lens` names verified files and holds small tables; it can be sent to another process (`storage.query_process`),
so this module imports DuckDB and Arrow and no lake. The views:

- `bars_1d`, `bars_1m`, …: symbol, time (UTC), open, high, low, close, volume (as `Lake.bars(adjust="all")`, bit for
  bit), raw_open, raw_high, raw_low, raw_close, raw_volume, factor (adjusted price = raw price × factor)
- `series`, `instruments`, `actions` (`storage.query` says what is in them)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import duckdb
import pyarrow as pa

from gpt_trader.errors import Problem, Refused

MAX_SQL: Final = 100_000
#: Rows asked of DuckDB at once.
_BATCH: Final = 100_000

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

_AS_STORED: Final = """
    SELECT symbol, time, open * factor AS open, high * factor AS high, low * factor AS low, close * factor AS close,
           volume, open AS raw_open, high AS raw_high, low AS raw_low, close AS raw_close, volume AS raw_volume, factor
    FROM read_parquet([{files}])
"""
# A join by time, not a column in the files: a new split changes no stored bar. Linear whatever the number of steps
# (a range join is not). `error` is met only by whoever reads an adjusted column of a series that has none.
_BY_STEPS: Final = """
    SELECT symbol, time, open * by_price AS open, high * by_price AS high, low * by_price AS low,
           close * by_price AS close, volume * by_volume AS volume, open AS raw_open, high AS raw_high,
           low AS raw_low, close AS raw_close, volume AS raw_volume, by_price AS factor
    FROM (
        SELECT bars.*,
               CASE WHEN refusal IS NULL THEN coalesce(price, bars.factor) ELSE error(refusal)::DOUBLE END AS by_price,
               CASE WHEN refusal IS NULL THEN steps.volume ELSE error(refusal)::DOUBLE END AS by_volume
        FROM (FROM read_parquet([{files}])) bars
        ASOF JOIN steps_{timeframe} steps ON bars.symbol = steps.symbol AND bars.time >= steps.start
    )
"""


@dataclass(frozen=True)
class Files:
    """Paths of the Parquet files of one timeframe, verified.

    `as_stored`: the stored factor adjusts the prices, and nothing the volume. `by_steps`: so do the rows of
    the table `steps_TIMEFRAME`.
    """

    as_stored: tuple[str, ...] = ()
    by_steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lens:
    """One snapshot as SQL sees it.

    `stored` names every timeframe of the snapshot, `files` those that can be read; `tables` has the tables
    that are no bars, and `steps_TIMEFRAME`: symbol, start (UTC), price (null: the stored factor), volume, refusal.
    """

    snapshot_id: str
    stored: tuple[str, ...]
    files: Mapping[str, Files] = field(default_factory=dict)
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


@contextmanager
def opened(lens: Lens) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection that can read what the lens shows and nothing else; closed at the end."""
    with duckdb.connect(":memory:") as connection:
        for name, table in lens.tables.items():
            connection.register("given", table)
            connection.execute(f"CREATE TABLE {name} AS FROM given")
            connection.unregister("given")
        allowed = [path for files in lens.files.values() for path in (*files.as_stored, *files.by_steps)]
        connection.execute(f"SET allowed_paths = [{_quoted(allowed)}]")
        for setting in _SETTINGS:
            connection.execute(setting)
        for timeframe, files in lens.files.items():
            connection.execute(f"CREATE VIEW bars_{timeframe} AS {_bars(timeframe, files)}")
        yield connection


def answer(lens: Lens, sql: str, *, limit: int, timeout: float, max_bytes: int | None = None) -> pa.Table:
    """Run one SELECT and return at most `limit` rows; columns that share a name get a number each (`a`, `a_1`).

    The table's schema metadata says under `truncated` ("true" or "false") whether there were more. Raises Refused
    for anything but one reading statement, for SQL that fails, for a query that takes longer than `timeout` seconds
    or more than 1 GB, and for an answer of more than `max_bytes`.
    """
    with opened(lens) as connection:
        statement = _one_reading_statement(connection, lens, sql)
        timer = threading.Timer(timeout, connection.interrupt)
        timer.start()
        try:
            reader = connection.sql(statement).to_arrow_reader(min(limit + 1, _BATCH))
            return _first_rows(reader, sql, limit, max_bytes)
        except duckdb.InterruptException:
            raise too_long(sql, timeout) from None
        except (duckdb.Error, pa.ArrowException) as error:
            raise _failed(lens, sql, error) from None
        finally:
            timer.cancel()


def too_long(sql: str, timeout: float) -> Refused:
    """Return the refusal of a query that did not end in time."""
    return Refused.of(Problem("sql", sql, f"took longer than {timeout:g} s: narrow it down"))


def too_large(sql: str, max_bytes: int) -> Refused:
    """Return the refusal of an answer that is too large to be sent."""
    size = f"{max_bytes / 2**20:,.0f} MiB"
    return Refused.of(
        Problem("sql", sql, f"has an answer of more than {size}: ask for fewer columns or rows")
    )


def _one_reading_statement(connection: duckdb.DuckDBPyConnection, lens: Lens, sql: str) -> duckdb.Statement:
    if len(sql) > MAX_SQL:
        raise Refused.of(Problem("sql", sql, f"has {len(sql)} characters, more than {MAX_SQL}"))
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise _failed(lens, sql, error) from None
    if len(statements) != 1:
        raise Refused.of(Problem("sql", sql, f"give one statement, not {len(statements)}"))
    # Not even EXPLAIN: EXPLAIN ANALYZE COPY … TO a file of the lake would write it.
    if statements[0].type != duckdb.StatementType.SELECT:
        kind = statements[0].type.name
        raise Refused.of(
            Problem("sql", sql, f"{kind} is not a query: the lake is read-only", allowed="SELECT")
        )
    return statements[0]


def _first_rows(reader: pa.RecordBatchReader, sql: str, limit: int, max_bytes: int | None) -> pa.Table:
    batches, rows, size = [], 0, 0
    for batch in reader:
        batches.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if max_bytes is not None and size > max_bytes:
            raise too_large(sql, max_bytes)
        if rows > limit:
            break
    table = pa.Table.from_batches(batches, schema=reader.schema).slice(0, limit)
    named = table.rename_columns(_distinct(table.column_names))
    return named.replace_schema_metadata({"truncated": "true" if rows > limit else "false"})


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names with a number behind those that came before: `a`, `a_1`; none is used twice."""
    given: list[str] = []
    for name in names:
        number, free = 0, name
        while free in given:
            number += 1
            free = f"{name}_{number}"
        given.append(free)
    return given


def _failed(lens: Lens, sql: str, error: Exception) -> Refused:
    """Return the refusal: DuckDB's complaint and the tables there are."""
    tables = ", ".join(
        [*sorted(f"bars_{timeframe}" for timeframe in lens.stored), "series, instruments, actions"]
    )
    reason = str(error).strip().split("\n\n")[0][:500]
    return Refused.of(Problem("sql", sql, f"the query failed: {reason}", allowed=f"tables {tables}"))


def _bars(timeframe: str, files: Files) -> str:
    parts = []
    if files.as_stored:
        parts.append(_AS_STORED.format(files=_quoted(files.as_stored)))
    if files.by_steps:
        parts.append(_BY_STEPS.format(files=_quoted(files.by_steps), timeframe=timeframe))
    return " UNION ALL ".join(parts)


def _quoted(paths: Sequence[str]) -> str:
    return ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
