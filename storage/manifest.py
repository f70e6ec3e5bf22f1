"""What a snapshot of the lake holds: a value, its sealed JSON, and its content id.

The id is a hash of *what* is stored (instruments and logical hashes), not of how: two lakes with the same bars have
the same snapshot id, whatever version of Parquet wrote their files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import orjson

from gpt_trader.errors import CorruptLake
from gpt_trader.instruments import Instrument

#: 2 added corporate actions, the origins of bars, and the facts of an instrument that were set by hand.
SCHEMA_VERSION: Final = 2
_READ: Final = frozenset({1, 2})
_PATH: Final = re.compile(r"[0-9A-Za-z][\w.\-=^]*(/[0-9A-Za-z][\w.\-=^]*)*")


@dataclass(frozen=True)
class FileRef:
    """One immutable Parquet file: where (relative to the lake), its bytes' sha256, and what it holds.

    `part` is the calendar year of an intraday file, of minutes also the newest month, and "all" for a whole series (see
    `storage.parts`). `first` and `last` are bar times, UTC ISO 8601.
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
class Origin:
    """Where a span of bars came from: bar times, UTC ISO 8601, both inclusive. Of several spans the last one counts."""

    source: str
    first: str
    last: str


@dataclass(frozen=True)
class Entry:
    """One series: the files that hold it, oldest first, and where its bars came from, the latest change last."""

    symbol: str
    timeframe: str
    source: str
    files: tuple[FileRef, ...]
    origins: tuple[Origin, ...] = ()

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
    """The content of one snapshot: series by (symbol, timeframe), instruments and files of corporate actions by symbol.

    A symbol without a file of actions is one whose sources know nothing of such; a file without rows says "none".
    """

    entries: Mapping[tuple[str, str], Entry] = field(default_factory=dict)
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    actions: Mapping[str, FileRef] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Snapshot id: the first 32 hex digits of a sha256 over instruments and logical hashes."""
        content: dict[str, Any] = {
            "entries": {f"{s}/{t}": entry.logical_hash for (s, t), entry in self.entries.items()},
            "instruments": self._facts,
        }
        if self.actions:  # left out while there are none: ids of the first schema version stay what they were
            content["actions"] = {symbol: file.logical_hash for symbol, file in self.actions.items()}
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """The instruments as JSON-ready values, in order of symbol."""
        return {s: facts_of(self.instruments[s]) for s in sorted(self.instruments)}

    def with_series(self, entry: Entry, instrument: Instrument) -> Manifest:
        """Return the manifest with one series put in or replaced."""
        return replace(
            self,
            entries={**self.entries, (entry.symbol, entry.timeframe): entry},
            instruments={**self.instruments, instrument.symbol: instrument},
        )

    def without_series(self, symbol: str, timeframe: str) -> Manifest:
        """Return the manifest without one series; its instrument stays, with the facts that were set by hand."""
        kept = {key: entry for key, entry in self.entries.items() if key != (symbol, timeframe)}
        return replace(self, entries=kept)

    def with_instrument(self, instrument: Instrument) -> Manifest:
        """Return the manifest with an instrument's facts replaced."""
        return replace(self, instruments={**self.instruments, instrument.symbol: instrument})

    def with_actions(self, symbol: str, file: FileRef) -> Manifest:
        """Return the manifest with an instrument's corporate actions replaced."""
        return replace(self, actions={**self.actions, symbol: file})

    def paths(self) -> set[str]:
        """Return every file that the snapshot needs, relative to the lake."""
        files = [file for entry in self.entries.values() for file in entry.files]
        return {file.path for file in (*files, *self.actions.values())}

    def to_bytes(self) -> bytes:
        """Return the manifest as sealed JSON, series and instruments in order of name."""
        series = sorted(self.entries.values(), key=lambda e: (e.symbol, e.timeframe))
        rows = [
            {
                "symbol": entry.symbol,
                "timeframe": entry.timeframe,
                "source": entry.source,
                "logical_hash": entry.logical_hash,
                # asdict copies deeply: most of a commit's time
                "files": [vars(file) for file in entry.files],
                "origins": [vars(origin) for origin in entry.origins],
            }
            for entry in series
        ]
        actions = {symbol: vars(self.actions[symbol]) for symbol in sorted(self.actions)}
        return seal({"snapshot": self.id, "entries": rows, "instruments": self._facts, "actions": actions})

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Manifest:
        """Read sealed JSON; raise CorruptLake, naming `where`, if it is not what was written."""
        values = unseal(content, where)
        entries = {}
        for row in values["entries"]:
            files = tuple(_file(file, where) for file in row["files"])
            if not files:
                raise CorruptLake(f"{where} has a series without a file: it is not a manifest of ours")
            origins = tuple(Origin(**origin) for origin in row.get("origins", ())) or (
                Origin(row["source"], files[0].first, files[-1].last),
            )
            entry = Entry(row["symbol"], row["timeframe"], row["source"], files, origins)
            entries[entry.symbol, entry.timeframe] = entry
        instruments = {s: Instrument.model_validate(i) for s, i in values["instruments"].items()}
        actions = {s: _file(file, where) for s, file in values.get("actions", {}).items()}
        return cls(entries, instruments, actions)


def facts_of(instrument: Instrument) -> dict[str, Any]:
    """Return an instrument JSON-ready; what was set by hand is named only where something was."""
    return instrument.model_dump(mode="json", exclude=None if instrument.edited else {"edited"})


def _file(values: dict[str, Any], where: str) -> FileRef:
    file = FileRef(**values)
    if not _PATH.fullmatch(file.path):
        raise CorruptLake(f"{where} names a file outside of the lake: it is not a manifest of ours")
    return file


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
    if version not in _READ:
        raise CorruptLake(
            f"{where} has schema version {version}; this program reads 1 to {SCHEMA_VERSION}: use the gpt-trader that "
            "wrote it, or a newer one"
        )
    return body


_RESTORE: Final = (
    "Restore it from a backup, or move the lake's folder away and ingest again: gpt-trader data ingest"
)


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
