"""Which snapshots there are, which one is current, and how a new one takes over.

`CURRENT` is one sealed JSON file with the whole history, newest last: replacing it is the commit. Content lives in
`manifests/ID.json`, immutable. A lake that returns to earlier content gets the earlier id again, with a new time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Final

from gpt_trader.crash_points import crash_point
from gpt_trader.errors import CorruptLake, NotFound, Problem, Refused
from storage.durable import write_file
from storage.manifest import Manifest, seal, unseal

_ID: Final = re.compile(r"[0-9a-f]{1,64}")
_SHORTEST_PREFIX: Final = 6

_FileVersion = tuple[int, int, int]


@dataclass(frozen=True)
class Snapshot:
    """One version of the lake: its content id, when it became current (UTC), and the id before it."""

    id: str
    created_at: datetime
    parent: str | None


class Catalog:
    """The snapshots of one lake. Reading is safe at any time; `commit` belongs to the holder of the lock."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._current = root / "CURRENT"
        self._temporary = root / "tmp"
        self._read: tuple[_FileVersion, tuple[Snapshot, ...]] | None = None
        self._manifests: dict[tuple[str, _FileVersion], Manifest] = {}

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Return every snapshot, oldest first; an empty lake has none."""
        try:
            version = _version(self._current)
            known = self._read
            if known and known[0] == version:
                return known[1]
            history = unseal(self._current.read_bytes(), str(self._current))["history"]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise CorruptLake(f"{self._current} cannot be read: {error.strerror}") from None
        found, parent = [], None
        for identity, created_at in history:
            found.append(Snapshot(identity, datetime.fromisoformat(created_at), parent))
            parent = identity
        self._read = (version, tuple(found))
        return tuple(found)

    def resolve(self, wanted: str | date | None) -> Snapshot | None:
        """Return the snapshot meant by an id, a prefix of one, or a time (the newest at that time).

        None means the newest, and gives None for an empty lake. Raises NotFound if nothing matches, Refused if a
        prefix is too short or matches several, or a time has no zone.
        """
        snapshots = self.snapshots()
        if wanted is None:
            return snapshots[-1] if snapshots else None
        if isinstance(wanted, str) and _ID.fullmatch(wanted.strip().lower()):
            return _by_prefix(wanted.strip().lower(), snapshots)
        moment = _moment(wanted)
        for snapshot in reversed(snapshots):
            if snapshot.created_at <= moment:
                return snapshot
        raise NotFound(f"no snapshot at {_said(moment)}: {_what_there_is(snapshots)}")

    def manifest(self, snapshot: Snapshot | None) -> Manifest:
        """Return the content of a snapshot (None: an empty lake's); raise CorruptLake if it is damaged."""
        if snapshot is None:
            return Manifest()
        path = self.path(snapshot.id)
        try:
            version = _version(path)
            known = self._manifests.get((snapshot.id, version))
            if known is not None:
                return known
            manifest = Manifest.from_bytes(path.read_bytes(), str(path))
        except OSError as error:
            raise CorruptLake(
                f"{path} cannot be read ({error.strerror}): restore it from a backup, or ingest into a new home"
            ) from None
        if manifest.id != snapshot.id:
            raise CorruptLake(f"{path} holds snapshot {manifest.id}, not the one of its name")
        self._remember(manifest, version)
        return manifest

    def holds(self, snapshot: Snapshot) -> bool:
        """Return whether the snapshot is in the history as it is on disk now."""
        return any(known.id == snapshot.id for known in self.snapshots())

    def forget(self, doomed: set[str]) -> None:
        """Take snapshots out of the history, durably; the newest stays whatever `doomed` says."""
        kept = [s for s in self.snapshots()[:-1] if s.id not in doomed]
        self._write_history([*kept, self.snapshots()[-1]])

    def commit(self, manifest: Manifest) -> Snapshot:
        """Make `manifest` the current snapshot, durably; until CURRENT is replaced readers see the old one.

        A manifest whose content is the current snapshot's (a damaged file was written anew) makes no new one.
        """
        snapshots = self.snapshots()
        now = datetime.now(UTC)
        if snapshots:  # a clock set back must not make the newest snapshot look older than its parent
            now = max(now, snapshots[-1].created_at + timedelta(microseconds=1))
        snapshot = Snapshot(manifest.id, now, snapshots[-1].id if snapshots else None)
        write_file(
            self.path(manifest.id),
            manifest.to_bytes(),
            temporary=self._temporary,
            crash_point=lambda: crash_point("lake.before_manifest"),
        )
        self._remember(manifest, _version(self.path(manifest.id)))
        crash_point("lake.after_manifest")
        if snapshots and snapshots[-1].id == manifest.id:
            return snapshots[-1]
        self._write_history([*snapshots, snapshot])
        crash_point("lake.committed")
        return snapshot

    def _write_history(self, snapshots: Sequence[Snapshot]) -> None:
        history = [(s.id, s.created_at.isoformat()) for s in snapshots]
        write_file(
            self._current,
            seal({"snapshot": snapshots[-1].id, "history": history}),
            temporary=self._temporary,
            crash_point=lambda: crash_point("lake.before_current"),
        )

    def path(self, identity: str) -> Path:
        """Return where the content of a snapshot is kept."""
        return self._root / "manifests" / f"{identity}.json"

    def _remember(self, manifest: Manifest, version: _FileVersion) -> None:
        """Keep the manifests read last: parsing one of 500 symbols takes longer than reading a symbol's bars."""
        recent = list(self._manifests.items())[-7:]
        self._manifests = {**dict(recent), (manifest.id, version): manifest}


def _version(path: Path) -> _FileVersion:
    """Return what changes when a file is replaced: inode, time and size."""
    state = path.stat()
    return state.st_ino, state.st_mtime_ns, state.st_size


def _by_prefix(prefix: str, snapshots: tuple[Snapshot, ...]) -> Snapshot:
    matching = {s.id: s for s in snapshots if s.id.startswith(prefix)}
    if prefix in matching:
        return matching[prefix]
    if len(prefix) < _SHORTEST_PREFIX:
        raise Refused.of(
            Problem("snapshot", prefix, f"give at least {_SHORTEST_PREFIX} digits of an id, or a time")
        )
    if not matching:
        raise NotFound(f"no snapshot {prefix}: {_what_there_is(snapshots)}")
    if len(matching) > 1:
        raise Refused.of(Problem("snapshot", prefix, "several ids start so", allowed=", ".join(matching)))
    return next(iter(matching.values()))


def _moment(wanted: str | date) -> datetime:
    """Return the time meant: a time with its zone, UTC for a string that names none, the end of a bare date."""
    value: date | str = wanted
    if isinstance(value, str):
        try:
            text = value.strip()
            value = date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
        except ValueError:
            raise Refused.of(
                Problem(
                    "snapshot",
                    wanted,
                    "is neither a snapshot id nor a time",
                    allowed="3f9c1a, 2026-01-31T12:00Z",
                )
            ) from None
        if isinstance(value, datetime) and value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
    if not isinstance(value, datetime):
        return datetime.combine(value, clock.max, tzinfo=UTC)
    if value.tzinfo is None:
        raise Refused.of(Problem("snapshot", value, "is a time without a zone: give one with tzinfo"))
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise Refused.of(Problem("snapshot", wanted, "is before the year 1 or after 9999 in UTC")) from None


def _what_there_is(snapshots: tuple[Snapshot, ...], shown: int = 5) -> str:
    if not snapshots:
        return "the lake is empty; fill it with gpt-trader data ingest"
    newest = ", ".join(f"{s.id[:12]} of {_said(s.created_at)}" for s in reversed(snapshots[-shown:]))
    return f"there are {len(snapshots)}, since {_said(snapshots[0].created_at)}; the newest: {newest}"


def _said(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
