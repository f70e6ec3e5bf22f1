"""Removes old snapshots and the files that nobody needs any more.

What is never removed: the newest snapshot, one that somebody reads (`storage.pins`), one that a run's result names, and
rows in quarantine. Files of a write that never was committed go as well: the lock is ours, so no write is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from gpt_trader.crash_points import crash_point
from storage.catalog import Catalog
from storage.durable import sync_folder, write_file
from storage.pins import pins

_DOOMED: Final = "DOOMED"
#: Folders whose files snapshots name.
_NAMED: Final = ("bars", "actions")


@dataclass(frozen=True)
class Collected:
    """What was removed, or with a trial would be: ids of snapshots, files, and their bytes; how many ids stay."""

    snapshots: tuple[str, ...]
    files: int
    bytes: int
    kept: int


def collect(
    root: Path,
    catalog: Catalog,
    before: datetime,
    pinned_by_runs: Callable[[], set[str]],
    *,
    trial: bool,
) -> Collected:
    """Do the work of `Lake.collect`, as the holder of the lock.

    First it says what is doomed, then it looks for pins, then the history forgets what nobody holds, then files go.
    A reader pins first and looks for its snapshot among the doomed and in the history afterwards (`Lake.pinned`): one
    of the two sees the other. A crash in between leaves files, or doomed names, that the next collection removes.
    """
    doomed = _superseded(catalog, before)
    if not trial:
        _announce(root, doomed)
    doomed -= pins(root / "pins") | pinned_by_runs()
    if doomed and not trial:
        catalog.forget(doomed)
        crash_point("lake.forgotten")
    kept = [snapshot for snapshot in catalog.snapshots() if snapshot.id not in doomed]
    needed: set[str] = set()
    for identity in {snapshot.id: snapshot for snapshot in kept}.values():
        needed |= catalog.manifest(identity).paths()
    unneeded = [path for path in _stored(root) if str(path.relative_to(root)) not in needed]
    names = {snapshot.id for snapshot in kept}
    manifests = [path for path in (root / "manifests").glob("*.json") if path.stem not in names]
    freed = sum(path.stat().st_size for path in (*unneeded, *manifests))
    if not trial:
        _remove(unneeded)
        crash_point("lake.collecting")
        _remove(manifests)
        (root / _DOOMED).unlink(missing_ok=True)
    return Collected(tuple(sorted(doomed)), len(unneeded), freed, len(names))


def doomed_now(root: Path) -> set[str]:
    """Return the snapshots that a collection under way (or one that was killed) may take."""
    try:
        return set((root / _DOOMED).read_text(encoding="ascii").split())
    except FileNotFoundError:
        return set()


def _announce(root: Path, doomed: set[str]) -> None:
    write_file(
        root / _DOOMED,
        "\n".join(sorted(doomed)).encode(),
        temporary=root / "tmp",
        crash_point=lambda: crash_point("lake.before_doomed"),
    )


def _superseded(catalog: Catalog, before: datetime) -> set[str]:
    """Return the snapshots that a newer one replaced before the time; an id that came back counts as its latest."""
    snapshots = catalog.snapshots()
    kept = {s.id for s, newer in pairwise(snapshots) if newer.created_at >= before}
    return {s.id for s in snapshots} - kept - {s.id for s in snapshots[-1:]}


def _stored(root: Path) -> Iterator[Path]:
    for folder in _NAMED:
        yield from (root / folder).rglob("*.parquet")


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()
    for folder in {path.parent for path in paths}:
        sync_folder(folder)
