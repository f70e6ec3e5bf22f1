"""The lake of bars: immutable Parquet files under a manifest that is replaced as one.

    CURRENT                              the history of snapshots; replacing it is the commit
    manifests/ID.json                    what a snapshot holds: files with hashes, instruments
    bars/TIMEFRAME/SYMBOL/PART-HASH.parquet   raw OHLCV and the adjustment factor; never changed once written
    quarantine/TIMEFRAME/SYMBOL/HASH.parquet  rows that are no bars, with reasons
    tmp/, lock                           a writer's unfinished files; one writer at a time

Readers take no lock: they read CURRENT, then a manifest, then files that nobody changes. Every file is checked
against its sha256 on every read: a flipped bit is otherwise read silently. Paths come from the manifest only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Final

from gpt_trader.bars import Bars
from gpt_trader.crash_points import crash_point
from gpt_trader.errors import CorruptLake, NotEnoughBars, Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Instrument, valid_symbol
from gpt_trader.raw_bars import Inspection, RawBars, inspect
from storage.catalog import Catalog, Snapshot
from storage.durable import explained, write_lock
from storage.lake_files import LakeFiles, bar_time
from storage.manifest import Entry, FileRef, Manifest
from storage.merge import merge, parts

LOCK_WAIT_SECONDS: Final = 60.0

#: How a snapshot is named: an id or a prefix of one, a time (the newest then), None for the newest.
Version = str | date | None


@dataclass(frozen=True)
class Ingest:
    """What an upsert did to one series, in rows; `snapshot_id` is the snapshot that holds the outcome.

    `remarks` says what was repaired or held back; `repaired` names damaged files that were written anew;
    `quarantine` is the file with the rows held back.
    """

    symbol: str
    timeframe: str
    source: str
    snapshot_id: str
    added: int
    restated: int
    unchanged: int
    quarantined: int
    reasons: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    quarantine: Path | None = None


@dataclass(frozen=True)
class _Parts:
    """The files of a series after a merge, and the row counts that go into `Ingest`."""

    files: tuple[FileRef, ...]
    added: int = 0
    restated: int = 0
    unchanged: int = 0
    repaired: tuple[str, ...] = ()


class Lake:
    """The bars of one engine. Instances are cheap and safe to share among threads and processes."""

    def __init__(self, root: Path, *, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        self.root = root
        self._catalog = Catalog(root)
        self._files = LakeFiles(root)
        self._lock_wait_seconds = lock_wait_seconds

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Return every snapshot, oldest first."""
        return self._catalog.snapshots()

    def current(self) -> Snapshot | None:
        """Return the newest snapshot, or None while the lake is empty."""
        return self._catalog.resolve(None)

    def snapshot(self, wanted: Version) -> Snapshot | None:
        """Return the snapshot meant (see `Version`); raise NotFound or Refused if there is no such one."""
        return self._catalog.resolve(wanted)

    def manifest(self, snapshot: Version = None) -> Manifest:
        """Return the content of a snapshot; an empty lake has an empty one."""
        return self._catalog.manifest(self._catalog.resolve(snapshot))

    def entries(self, snapshot: Version = None) -> list[Entry]:
        """Return every series, in order of symbol and timeframe."""
        series = self.manifest(snapshot).entries
        return sorted(series.values(), key=lambda e: (e.symbol, list(TIMEFRAMES).index(e.timeframe)))

    def instruments(self, snapshot: Version = None) -> list[Instrument]:
        """Return every instrument, in order of symbol."""
        known = self.manifest(snapshot).instruments
        return [known[symbol] for symbol in sorted(known)]

    def instrument(self, symbol: str, snapshot: Version = None) -> Instrument:
        """Return one instrument; raise UnknownName that lists what there is."""
        return _instrument(self.manifest(snapshot), symbol)

    def entry(self, symbol: str, timeframe: str = "1d", *, snapshot: Version = None) -> Entry:
        """Return one series of a snapshot; raise UnknownName that says what there is and how to ingest more."""
        return _entry(self.manifest(snapshot), symbol, timeframe)

    def raw_bars(self, symbol: str, timeframe: str = "1d", *, snapshot: Version = None) -> RawBars:
        """Return one series as its source gave it, with adjustment factors; errors as `bars`."""
        return self._read(self.entry(symbol, timeframe, snapshot=snapshot))

    def bars(
        self, symbol: str, timeframe: str = "1d", *, snapshot: Version = None, adjusted: bool = True
    ) -> Bars:
        """Return one series, prices adjusted (raw price × factor) unless `adjusted` is off.

        `logical_hash` is that of the series as stored. Raises UnknownName (no such symbol, or not in this
        timeframe), NotFound (no such snapshot), CorruptLake (a file is not what the manifest says).
        """
        manifest = self.manifest(snapshot)
        entry = _entry(manifest, symbol, timeframe)
        return self._read(entry).as_bars(
            manifest.instruments[entry.symbol], timeframe, adjusted=adjusted, logical_hash=entry.logical_hash
        )

    def verified_paths(self, entries: Sequence[Entry]) -> list[Path]:
        """Return the files of the series for a reader of its own (SQL), each checked against its sha256.

        A file that this lake object has checked before is checked again only if its inode, size or time changed.
        """
        return [self._files.verified_path(entry, file) for entry in entries for file in entry.files]

    def upsert(self, instrument: Instrument, timeframe: str, raw: RawBars, *, source: str) -> Ingest:
        """Merge bars into a series (a new row wins over a stored one) and commit a new snapshot.

        Rows that break the bars contract are kept apart, with their reasons (`gpt_trader.raw_bars`). Nothing is
        committed when nothing changes. Facts of the instrument that `instrument` names win, others stay as they are.
        Safe against a crash at any moment and against other writers: they wait for each other.

        Raises BadBars (no row is usable), NotEnoughBars (no row at all, and none stored), Conflict (another writer
        does not end), CorruptLake (the stored part is damaged and `raw` does not cover it), GptTraderError (the
        disk is full or refuses); the current snapshot stays as it was.
        """
        _checked(instrument.symbol, timeframe)
        inspection = inspect(raw, timeframe)
        lock = self.root / "lock"
        with explained("bars", self.root), write_lock(lock, wait_seconds=self._lock_wait_seconds):
            crash_point("lake.locked")
            self._files.clear_unfinished()
            return self._upsert(instrument, timeframe, inspection, source)

    def _upsert(self, instrument: Instrument, timeframe: str, found: Inspection, source: str) -> Ingest:
        symbol = instrument.symbol
        manifest = self.manifest()
        stored = manifest.entries.get((symbol, timeframe))
        if stored is None and not len(found.clean):
            raise NotEnoughBars(f"source {source} gave no bars of {symbol} {timeframe}")
        quarantine = None
        if len(found.quarantined):
            quarantine = self._files.write_quarantine(symbol, timeframe, found.quarantined)
        crash_point("lake.after_quarantine")
        merged = self._merged(symbol, timeframe, found.clean, stored)
        crash_point("lake.after_files")
        changed = stored is None or merged.files != stored.files
        entry = Entry(symbol, timeframe, source, merged.files) if changed or stored is None else stored
        updated = manifest.with_series(entry, _facts(manifest.instruments.get(symbol), instrument))
        snapshot = self.current()
        if snapshot is None or changed or updated.id != snapshot.id:
            snapshot = self._catalog.commit(updated)
        return Ingest(
            symbol,
            timeframe,
            source,
            snapshot.id,
            merged.added,
            merged.restated,
            merged.unchanged,
            len(found.quarantined),
            found.quarantined.counts(),
            tuple(found.remarks()),
            merged.repaired,
            quarantine,
        )

    def _merged(self, symbol: str, timeframe: str, new: RawBars, stored: Entry | None) -> _Parts:
        """Merge part by part and write the files that change; parts without new rows are not even read."""
        files = {file.part: file for file in stored.files} if stored else {}
        done = _Parts(())
        for part, rows in parts(new, timeframe):
            before = files.get(part)
            kept, repaired = (
                self._kept(stored, before, rows) if stored and before else (RawBars.empty(), False)
            )
            merged = merge(kept, rows)
            logical_hash = merged.rows.logical_hash
            same = before is not None and logical_hash == before.logical_hash
            if before is None or repaired or not same:
                files[part] = self._files.write_bars(symbol, timeframe, part, merged.rows, logical_hash)
            done = replace(
                done,
                added=done.added + (0 if repaired else merged.added),
                restated=done.restated + (len(rows) if repaired and not same else merged.restated),
                unchanged=done.unchanged + (len(rows) if repaired and same else merged.unchanged),
                repaired=(*done.repaired, before.path) if repaired and before else done.repaired,
            )
        return replace(done, files=tuple(files[part] for part in sorted(files)))

    def _kept(self, entry: Entry, file: FileRef, new: RawBars) -> tuple[RawBars, bool]:
        """Return the stored rows of a part; none, and True, if they are damaged and the new ones cover them."""
        try:
            return self._files.read(entry, file), False
        except CorruptLake:
            covers = bar_time(new.time[0]) <= file.first and bar_time(new.time[-1]) >= file.last
            if covers and len(new) >= file.rows:
                return RawBars.empty(), True
            raise

    def _read(self, entry: Entry) -> RawBars:
        rows = self._files.read(entry, entry.files[0])
        for file in entry.files[1:]:
            rows = RawBars.joined(rows, self._files.read(entry, file))
        return rows


def _checked(symbol: str, timeframe: str) -> str:
    """Return the symbol as an id; raise Refused before anything of it reaches a path."""
    if timeframe not in TIMEFRAMES:
        raise UnknownName.among("timeframe", timeframe, list(TIMEFRAMES))
    try:
        return valid_symbol(symbol)
    except ValueError as error:
        raise Refused.of(Problem("symbol", symbol, str(error))) from None


def _instrument(manifest: Manifest, symbol: str) -> Instrument:
    known = manifest.instruments.get(_checked(symbol, "1d"))
    if known is None:
        raise _unknown(manifest, symbol)
    return known


def _entry(manifest: Manifest, symbol: str, timeframe: str) -> Entry:
    wanted = _checked(symbol, timeframe)
    entry = manifest.entries.get((wanted, timeframe))
    if entry is not None:
        return entry
    stored = [t for t in TIMEFRAMES if (wanted, t) in manifest.entries]
    if not stored:
        raise _unknown(manifest, wanted)
    hint = f"bring it in with: gpt-trader data ingest --symbol {wanted} --timeframe {timeframe}"
    raise UnknownName.among(
        "timeframe", timeframe, stored, message=f"{wanted} is not stored as {timeframe} bars; {hint}"
    )


def _unknown(manifest: Manifest, symbol: str) -> UnknownName:
    hint = (
        f"bring it in with: gpt-trader data ingest --symbol {symbol}, or from a file of yours with: "
        f"gpt-trader data ingest --source csv --file FILE --symbol {symbol}"
    )
    return UnknownName.among(
        "symbol", symbol, sorted(manifest.instruments), message=f"{symbol} is not in the lake; {hint}"
    )


def _facts(stored: Instrument | None, given: Instrument) -> Instrument:
    if stored is None:
        return given
    return stored.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})
