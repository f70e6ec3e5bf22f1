"""How bars get into the lake: merged part by part, written to new files, committed as one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.crash_points import crash_point
from gpt_trader.errors import CorruptLake, GptTraderError, NotEnoughBars
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import Inspection, RawBars
from storage.lake_files import LakeFiles, bar_time
from storage.manifest import Entry, FileRef, Manifest, Origin
from storage.merge import merge
from storage.parts import meetings, parts


@dataclass(frozen=True)
class Arrival:
    """Bars that have come from a source, inspected, on their way into one series.

    `actions` None: the source knows nothing of splits and dividends, and what is stored of them stays. `replaces`: the
    bars are the whole series, nothing that is stored of it stays.
    """

    instrument: Instrument
    timeframe: str
    found: Inspection
    source: str
    actions: CorporateActions | None = None
    replaces: bool = False


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


class Writing:
    """One write of several arrivals, by the holder of the lake's lock: puts files down, keeps the manifest to come.

    `manifest` is what shall be committed; `outcomes` has an Ingest or the reason why not for each arrival, in order.
    """

    def __init__(self, files: LakeFiles, manifest: Manifest) -> None:
        self._files = files
        self.manifest = manifest
        self.outcomes: list[Ingest | GptTraderError] = []

    def put(self, arrivals: Sequence[Arrival]) -> None:
        """Write what each arrival changes; one that cannot be merged leaves its series as it was."""
        for arrival in arrivals:
            try:
                self.outcomes.append(self._put(arrival))
            except (CorruptLake, NotEnoughBars) as error:
                self.outcomes.append(error)
        crash_point("lake.after_files")

    def _put(self, arrival: Arrival) -> Ingest:
        symbol, timeframe, found = arrival.instrument.symbol, arrival.timeframe, arrival.found
        stored = None if arrival.replaces else self.manifest.entries.get((symbol, timeframe))
        if stored is None and not len(found.clean):
            raise NotEnoughBars(f"source {arrival.source} gave no bars of {symbol} {timeframe}")
        quarantine = None
        if len(found.quarantined):
            quarantine = self._files.write_quarantine(symbol, timeframe, found.quarantined)
        crash_point("lake.after_quarantine")
        merged = self._merged(symbol, timeframe, found.clean, stored)
        changed = stored is None or merged.files != stored.files
        entry = (
            Entry(symbol, timeframe, arrival.source, merged.files) if changed or stored is None else stored
        )
        if changed:
            entry = replace(entry, origins=_origins(stored, arrival.source, found.clean))
        known = self.manifest.instruments.get(symbol)
        facts = arrival.instrument if known is None else known.updated(arrival.instrument)
        self.manifest = self.manifest.with_series(entry, facts)
        repaired = merged.repaired + self._put_actions(symbol, arrival.actions)
        return Ingest(
            symbol,
            timeframe,
            arrival.source,
            "",
            merged.added,
            merged.restated,
            merged.unchanged,
            len(found.quarantined),
            found.quarantined.counts(),
            (*found.remarks(), *_mixed(stored, arrival.source)),
            repaired,
            quarantine,
        )

    def _put_actions(self, symbol: str, new: CorporateActions | None) -> tuple[str, ...]:
        """Merge actions into those that are stored; return the damaged file that was written anew, if there was one."""
        if new is None:
            return ()
        kept = self.manifest.actions.get(symbol)
        merged = new
        repaired: tuple[str, ...] = ()
        if kept is not None:
            try:
                merged = self._files.read_actions(symbol, kept).merged(new)
            except CorruptLake:  # a source names all it knows: the new list stands for the damaged one
                repaired = (kept.path,)
        if kept is None or repaired or merged.logical_hash != kept.logical_hash:
            self.manifest = self.manifest.with_actions(symbol, self._files.write_actions(symbol, merged))
        return repaired

    def _merged(self, symbol: str, timeframe: str, new: RawBars, stored: Entry | None) -> _Parts:
        """Merge with as few files as can be, and write those that change; the others are not even read."""
        files = {file.part: file for file in stored.files} if stored else {}
        if not len(new):
            return _Parts(tuple(files.values()))
        month = max(bar_time(new.time[-1]), stored.last if stored else "")[:7]
        done = _Parts(())
        for met, rows in meetings(tuple(files.values()), new, timeframe, month):
            try:
                kept, damaged = self._kept(stored, met, rows)
            except CorruptLake:
                if len(rows):
                    raise
                continue  # nothing comes to it: it stays where it is, damaged
            merged = merge(kept, rows)
            same = not damaged and merged.added == merged.restated == 0
            if not same or not len(rows):
                for file in met:
                    del files[file.part]
                whole = {file.part: file for file in met if file not in damaged}
                written = self._written(symbol, timeframe, dict(parts(merged.rows, timeframe, month)), whole)
                files |= written
                same = {file.part: file.logical_hash for file in met} == {
                    part: file.logical_hash for part, file in written.items()
                }
            done = replace(
                done,
                added=done.added + (0 if damaged else merged.added),
                restated=done.restated + (len(rows) if damaged and not same else merged.restated),
                unchanged=done.unchanged + (len(rows) if damaged and same else merged.unchanged),
                repaired=(*done.repaired, *(file.path for file in damaged)),
            )
        return replace(done, files=tuple(files[part] for part in sorted(files)))

    def _written(
        self, symbol: str, timeframe: str, rows: dict[str, RawBars], whole: dict[str, FileRef]
    ) -> dict[str, FileRef]:
        """Write the parts that are not the same in a file that is `whole`."""
        written = {}
        for part, of_part in rows.items():
            digest, before = of_part.logical_hash, whole.get(part)
            unchanged = before is not None and before.logical_hash == digest
            written[part] = (
                before
                if before is not None and unchanged
                else self._files.write_bars(symbol, timeframe, part, of_part, digest)
            )
        return written

    def _kept(
        self, entry: Entry | None, files: Sequence[FileRef], new: RawBars
    ) -> tuple[RawBars, list[FileRef]]:
        """Return the stored rows of files, and which of them are damaged, so that the new rows stand for theirs.

        Raises CorruptLake where they do not cover them.
        """
        kept: list[RawBars] = []
        damaged: list[FileRef] = []
        if entry is None:
            return RawBars.empty(), damaged
        for file in files:
            try:
                kept.append(self._files.read(entry, file))
            except CorruptLake:
                if not len(new):
                    raise
                covers = bar_time(new.time[0]) <= file.first and bar_time(new.time[-1]) >= file.last
                if not covers or len(new) < file.rows:
                    raise
                damaged.append(file)
        return RawBars.joined(*kept), damaged


def _origins(stored: Entry | None, source: str, new: RawBars) -> tuple[Origin, ...]:
    """Return where the bars of a series come from after new ones came in: a source that goes on is one span."""
    first, last = bar_time(new.time[0]), bar_time(new.time[-1])
    before = stored.origins if stored else ()
    if before and before[-1].source == source and not _bars_between(before, first, last):
        first, last = min(first, before[-1].first), max(last, before[-1].last)
        before = before[:-1]
    seen = [origin for origin in before if not (first <= origin.first and origin.last <= last)]
    return (*seen, Origin(source, first, last))


def _bars_between(before: tuple[Origin, ...], first: str, last: str) -> bool:
    """Return whether another source's bars lie between the newest span and the bars from `first` to `last`."""
    *others, newest = before
    start, end = min(newest.last, last), max(newest.first, first)
    return any(
        other.source != newest.source and other.first < end and start < other.last
        for other in others
        if start < end
    )


def _mixed(stored: Entry | None, source: str) -> tuple[str, ...]:
    """Say that bars of another source were in the series: two sources rarely agree on volume, or on the close."""
    if stored is None or stored.source in (source, "csv") or source == "csv":
        return ()
    return (f"bars of source {stored.source} were stored before: the series now has bars of both",)
