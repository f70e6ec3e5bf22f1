"""What a snapshot of the lake holds: a value, its sealed JSON, and its content id.

The id is a hash of *what* is stored (instruments and logical hashes), not of how: two lakes with the same bars have
the same snapshot id, whatever version of Parquet wrote their files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import orjson

from gpt_trader.errors import CorruptLake
from gpt_trader.instruments import Instrument

SCHEMA_VERSION: Final = 1
_PATH: Final = re.compile(r"[0-9A-Za-z][\w.\-=^]*(/[0-9A-Za-z][\w.\-=^]*)*")


@dataclass(frozen=True)
class FileRef:
    """One immutable Parquet file: where (relative to the lake), its bytes' sha256, and what it holds.

    `part` is the calendar year of an intraday file and "all" for a whole series. `first` and `last` are bar times,
    UTC ISO 8601.
    """

    part: str
    path: str
    sha256: str
    logical_hash: str
    rows: int
    first: str
    last: str
    bytes: int


@dataclass(frozen=True)
class Entry:
    """One series: the files that hold it, oldest first, and the source of its latest change."""

    symbol: str
    timeframe: str
    source: str
    files: tuple[FileRef, ...]

    @cached_property
    def logical_hash(self) -> str:
        """sha256 over the logical hashes of the parts: the same bars have the same hash."""
        return hashlib.sha256("\n".join(file.logical_hash for file in self.files).encode()).hexdigest()

    @property
    def rows(self) -> int:
        """How many bars the series has."""
        return sum(file.rows for file in self.files)

    @property
    def first(self) -> str:
        """Time of the oldest bar, UTC ISO 8601."""
        return self.files[0].first

    @property
    def last(self) -> str:
        """Time of the newest bar, UTC ISO 8601."""
        return self.files[-1].last

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Manifest:
    """The content of one snapshot: series by (symbol, timeframe), instruments by symbol."""

    entries: Mapping[tuple[str, str], Entry] = field(default_factory=dict)
    instruments: Mapping[str, Instrument] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Snapshot id: the first 32 hex digits of a sha256 over instruments and logical hashes."""
        content = {
            "entries": {f"{s}/{t}": entry.logical_hash for (s, t), entry in self.entries.items()},
            "instruments": self._facts,
        }
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """The instruments as JSON-ready values, in order of symbol."""
        return {s: self.instruments[s].model_dump(mode="json") for s in sorted(self.instruments)}

    def with_series(self, entry: Entry, instrument: Instrument) -> Manifest:
        """Return the manifest with one series put in or replaced."""
        return Manifest(
            {**self.entries, (entry.symbol, entry.timeframe): entry},
            {**self.instruments, instrument.symbol: instrument},
        )

    def to_bytes(self) -> bytes:
        """Return the manifest as sealed JSON, series and instruments in order of name."""
        series = sorted(self.entries.values(), key=lambda e: (e.symbol, e.timeframe))
        rows = [
            {
                "symbol": entry.symbol,
                "timeframe": entry.timeframe,
                "source": entry.source,
                "logical_hash": entry.logical_hash,
                "files": [
                    vars(file) for file in entry.files
                ],  # asdict copies deeply: most of a commit's time
            }
            for entry in series
        ]
        return seal({"snapshot": self.id, "entries": rows, "instruments": self._facts})

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Manifest:
        """Read sealed JSON; raise CorruptLake, naming `where`, if it is not what was written."""
        values = unseal(content, where)
        entries = {}
        for row in values["entries"]:
            files = tuple(FileRef(**file) for file in row["files"])
            if not files or not all(_PATH.fullmatch(file.path) for file in files):
                raise CorruptLake(f"{where} names a file outside of the lake: it is not a manifest of ours")
            entry = Entry(row["symbol"], row["timeframe"], row["source"], files)
            entries[entry.symbol, entry.timeframe] = entry
        instruments = {s: Instrument.model_validate(i) for s, i in values["instruments"].items()}
        return cls(entries, instruments)


def seal(values: dict[str, Any]) -> bytes:
    """Return JSON with a schema version and a checksum over everything else in it."""
    body = {"schema_version": SCHEMA_VERSION, **values}
    return orjson.dumps({**body, "checksum": _checksum(body)}, option=orjson.OPT_INDENT_2)


def unseal(content: bytes, where: str) -> dict[str, Any]:
    """Return what `seal` was given; raise CorruptLake naming `where` if a bit of it has changed."""
    try:
        body = orjson.loads(content)
        if not isinstance(body, dict):
            raise TypeError("not an object")  # noqa: TRY301 - the same answer as for what is not even JSON
        claimed = body.pop("checksum")
    except (orjson.JSONDecodeError, TypeError, KeyError):
        raise CorruptLake(f"{where} is damaged: it is not what was written. {_RESTORE}") from None
    if claimed != _checksum(body):
        raise CorruptLake(f"{where} is damaged: its checksum does not match. {_RESTORE}")
    version = body["schema_version"]
    if version != SCHEMA_VERSION:
        raise CorruptLake(
            f"{where} has schema version {version}; this program reads {SCHEMA_VERSION}: use the gpt-trader that "
            "wrote it, or a newer one"
        )
    return body


_RESTORE: Final = (
    "Restore it from a backup, or move the lake's folder away and ingest again: gpt-trader data ingest"
)


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
