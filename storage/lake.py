"""The lake of bars: immutable Parquet files under a manifest that is replaced as one.

    CURRENT                              the history of snapshots; replacing it is the commit
    manifests/ID.json                    what a snapshot holds: files with hashes, instruments
    bars/TIMEFRAME/SYMBOL/PART-HASH.parquet   raw OHLCV and the source's own adjustment ratio; never changed
    actions/SYMBOL/HASH.parquet          splits and dividends; adjusted views are computed on reading
    quarantine/TIMEFRAME/SYMBOL/HASH.parquet  rows that are no bars, with reasons
    pins/                                snapshots that somebody is reading (`storage.pins`)
    tmp/, lock                           a writer's unfinished files; one writer at a time

Readers take no lock: they read CURRENT, then a manifest, then files that nobody changes. Every file is checked
against its sha256 on every read: a flipped bit is otherwise read silently. Paths come from the manifest only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from gpt_trader.adjustments import adjusted
from gpt_trader.bars import Bars
from gpt_trader.corporate_actions import Adjustment, CorporateActions
from gpt_trader.crash_points import crash_point
from gpt_trader.errors import CorruptLake, GptTraderError, NotFound, Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Instrument, edited, valid_symbol
from gpt_trader.raw_bars import RawBars, inspect
from storage.catalog import BY_COLLECTION, Catalog, Mark, Snapshot
from storage.collection import Collected, collect, doomed_now
from storage.durable import explained, write_lock
from storage.lake_files import LakeFiles
from storage.lake_writing import Arrival, Ingest, Writing
from storage.manifest import Entry, Manifest
from storage.pins import pinned

Found = TypeVar("Found")

LOCK_WAIT_SECONDS: Final = 60.0

#: How a snapshot is named: an id or a prefix of one, a time (the newest then), None for the newest.
Version = str | date | None


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

    def mark(self) -> Mark:
        """Return what changes with every commit and collection, and for nothing else; None for an empty lake."""
        return self._catalog.mark()

    def snapshot(self, wanted: Version) -> Snapshot | None:
        """Return the snapshot meant (see `Version`); raise NotFound or Refused if there is no such one."""
        return self._catalog.resolve(wanted)

    def manifest(self, snapshot: Version = None) -> Manifest:
        """Return the content of a snapshot; an empty lake has an empty one."""
        return self._read(snapshot, lambda manifest: manifest)

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
        return self._read(snapshot, lambda manifest: self._rows(_entry(manifest, symbol, timeframe)))

    def newest_bars(self, symbol: str, timeframe: str, count: int) -> RawBars:
        """Return the newest `count` raw bars of a series, from as few files as hold them; errors as `bars`."""
        return self._read(None, lambda manifest: self._newest(_entry(manifest, symbol, timeframe), count))

    def recent(self, symbol: str, timeframe: str, count: int) -> Bars:
        """Return the newest `count` bars of a series as `bars` shows them, from as few files as hold them."""

        def read(manifest: Manifest) -> Bars:
            entry = _entry(manifest, symbol, timeframe)
            return adjusted(
                self._newest(entry, count),
                manifest.instruments[entry.symbol],
                timeframe,
                actions=self._actions(manifest, entry.symbol),
                logical_hash=entry.logical_hash,
            )

        return self._read(None, read)

    def bars(
        self,
        symbol: str,
        timeframe: str = "1d",
        *,
        snapshot: Version = None,
        adjust: Adjustment = "all",
        known_at: date | None = None,
    ) -> Bars:
        """Return one series in an adjusted view, computed here from raw bars and corporate actions.

        `adjust` and `known_at` as `gpt_trader.adjustments.factors`. `logical_hash` is that of the series as stored.
        Raises UnknownName (no such symbol, or not in this timeframe), NotFound (no such snapshot), CorruptLake (a
        file is not what the manifest says), Refused (a view that cannot be computed).
        """

        def read(manifest: Manifest) -> Bars:
            entry = _entry(manifest, symbol, timeframe)
            return adjusted(
                self._rows(entry),
                manifest.instruments[entry.symbol],
                timeframe,
                actions=self._actions(manifest, entry.symbol),
                how=adjust,
                known_at=known_at,
                logical_hash=entry.logical_hash,
            )

        return self._read(snapshot, read)

    def actions(self, symbol: str, *, snapshot: Version = None) -> CorporateActions | None:
        """Return splits and dividends; None where no source of the symbol knows of such. Errors as `bars`."""
        return self._read(snapshot, lambda m: self._actions(m, _instrument(m, symbol).symbol))

    @contextmanager
    def pinned(self, wanted: Version = None) -> Iterator[Snapshot | None]:
        """Resolve a snapshot and keep collection away from it until the end of the block; None for an empty lake.

        For whoever reads long, or will write down later that it read just this. Errors as `snapshot`.
        """
        with ExitStack() as stack:
            while (found := self._catalog.resolve(wanted)) is not None:
                stack.enter_context(pinned(self.root / "pins", found.id))
                doomed = found.id in doomed_now(self.root)
                if (
                    doomed
                ):  # by a collection under way, or by one that was killed: let it end, then see what is left
                    with self._locked():
                        pass
                if self._catalog.holds(found):
                    break
                stack.close()  # it was collected between the two: what is wanted may be another one now
                if doomed and wanted is not None:
                    raise NotFound(f"snapshot {found.id[:12]} has just been collected: {BY_COLLECTION}")
            yield found

    def verified_paths(self, entries: Sequence[Entry]) -> list[Path]:
        """Return the files of the series for a reader of its own (SQL), each checked against its sha256.

        A file that this lake object has checked before is checked again only if its inode, size or time changed.
        """
        return [self._files.verified_path(entry, file) for entry in entries for file in entry.files]

    def upsert(
        self,
        instrument: Instrument,
        timeframe: str,
        raw: RawBars,
        *,
        source: str,
        actions: CorporateActions | None = None,
    ) -> Ingest:
        """Merge bars into a series (a new row wins over a stored one) and commit a new snapshot.

        Rows that break the bars contract are kept apart, with their reasons (`gpt_trader.raw_bars`). Nothing is
        committed when nothing changes. Facts of the instrument that `instrument` names win over stored ones, but for
        those set by hand; others stay as they are. Safe against a crash at any moment and against other writers: they
        wait for each other.

        Raises BadBars (no row is usable), NotEnoughBars (no row at all, and none stored), Conflict (another writer
        does not end), CorruptLake (the stored part is damaged and `raw` does not cover it), GptTraderError (the
        disk is full or refuses); the current snapshot stays as it was.
        """
        checked(instrument.symbol, timeframe)
        arrival = Arrival(instrument, timeframe, inspect(raw, timeframe), source, actions)
        outcome = self.upsert_many([arrival])[0]
        if isinstance(outcome, GptTraderError):
            raise outcome
        return outcome

    def upsert_many(self, arrivals: Sequence[Arrival]) -> list[Ingest | GptTraderError]:
        """Merge several arrivals and commit them as one snapshot; return what happened to each, in order.

        An arrival that cannot be merged (CorruptLake, NotEnoughBars) is an error in the list and keeps nobody else
        back. Raises Conflict and GptTraderError as `upsert`; nothing of any arrival is committed then.
        """
        for arrival in arrivals:
            checked(arrival.instrument.symbol, arrival.timeframe)
        with self._locked():
            writing = Writing(self._files, self.manifest())
            writing.put(arrivals)
            identity = self._commit(writing.manifest).id if len(writing.manifest.entries) else ""
        return [
            replace(outcome, snapshot_id=identity) if isinstance(outcome, Ingest) else outcome
            for outcome in writing.outcomes
        ]

    def remove(self, symbol: str, timeframe: str) -> Snapshot:
        """Take one series out of the lake from now on; older snapshots keep it. Errors as `entry` and `upsert`."""
        with self._locked():
            manifest = self.manifest()
            entry = _entry(manifest, symbol, timeframe)
            return self._commit(manifest.without_series(entry.symbol, timeframe))

    def edit_instrument(self, symbol: str, changes: Mapping[str, Any]) -> Instrument:
        """Set facts of a stored instrument by hand: no source overrules them from now on. None takes one back.

        Raises UnknownName (no such symbol or fact), Refused (a value that a fact cannot have); otherwise as `upsert`.
        """
        with self._locked():
            manifest = self.manifest()
            updated = edited(_instrument(manifest, symbol), changes)
            self._commit(manifest.with_instrument(updated))
        return updated

    def replace_actions(self, symbol: str, actions: CorporateActions) -> None:
        """Put these splits and dividends in the place of all that is stored of them; errors as `edit_instrument`."""
        with self._locked():
            manifest = self.manifest()
            wanted = _instrument(manifest, symbol).symbol
            self._commit(manifest.with_actions(wanted, self._files.write_actions(wanted, actions)))

    def collect(
        self, before: datetime, pinned_by_runs: Callable[[], set[str]], *, trial: bool = False
    ) -> Collected:
        """Remove snapshots that were superseded before a time, and the files that no other one needs.

        Kept: the newest snapshot, every one that somebody reads, and those of `pinned_by_runs` (asked after the
        readers' pins were read: a run that ends in between is in one of the two). `trial` removes nothing.
        """
        with self._locked():
            return collect(self.root, self._catalog, before, pinned_by_runs, trial=trial)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.root / "lock"
        with explained("bars", self.root), write_lock(lock, wait_seconds=self._lock_wait_seconds):
            crash_point("lake.locked")
            self._files.begin()
            try:
                yield
            except OSError:
                self._files.take_back(self.manifest().paths())
                raise

    def _commit(self, updated: Manifest) -> Snapshot:
        """Commit what changed and return the snapshot that holds it; the current one if nothing did."""
        snapshot = self.current()
        if snapshot is None or updated != self.manifest():
            snapshot = self._catalog.commit(updated)
        return snapshot

    def _read(self, wanted: Version, read: Callable[[Manifest], Found]) -> Found:
        """Return what `read` finds in a snapshot, and look again if it was collected meanwhile."""
        while True:
            snapshot = self._catalog.resolve(wanted)
            try:
                return read(self._catalog.manifest(snapshot))
            except CorruptLake:
                if snapshot is None or self._catalog.holds(snapshot):
                    raise

    def _actions(self, manifest: Manifest, symbol: str) -> CorporateActions | None:
        file = manifest.actions.get(symbol)
        return None if file is None else self._files.read_actions(symbol, file)

    def _newest(self, entry: Entry, count: int) -> RawBars:
        needed, rows = len(entry.files), 0
        while needed and rows < count:
            needed -= 1
            rows += entry.files[needed].rows
        return self._files.read_all(entry, entry.files[needed:])[-count:]

    def _rows(self, entry: Entry) -> RawBars:
        return self._files.read_all(entry, entry.files)


def checked(symbol: str, timeframe: str) -> str:
    """Return the symbol as an id; raise Refused before anything of it reaches a path."""
    if timeframe not in TIMEFRAMES:
        raise UnknownName.among("timeframe", timeframe, list(TIMEFRAMES))
    try:
        return valid_symbol(symbol)
    except ValueError as error:
        raise Refused.of(Problem("symbol", symbol, str(error))) from None


def _instrument(manifest: Manifest, symbol: str) -> Instrument:
    known = manifest.instruments.get(checked(symbol, "1d"))
    if known is None:
        raise _unknown(manifest, symbol)
    return known


def _entry(manifest: Manifest, symbol: str, timeframe: str) -> Entry:
    wanted = checked(symbol, timeframe)
    entry = manifest.entries.get((wanted, timeframe))
    if entry is not None:
        return entry
    stored = [t for t in TIMEFRAMES if (wanted, t) in manifest.entries]
    if not stored and wanted not in manifest.instruments:
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
