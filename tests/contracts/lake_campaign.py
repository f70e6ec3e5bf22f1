"""Writers, readers and collection at once, until a deadline: what each process does, and what it found wrong.

Each of four writers owns every fourth row of two series and one day of corporate actions, and numbers its updates: all
of its rows hold one number in any snapshot, and nobody but itself changes it.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import NotFound
from gpt_trader.raw_bars import RawBars, inspect
from storage.lake import Lake, Version
from storage.lake_writing import Arrival
from tests.contracts.lake_workers import volumes, whole_batch
from tests.lake_samples import AAPL, IBM, some_bars

WRITERS = 4
_DAILY = some_bars(40)
_INTRADAY = some_bars(40, timeframe="4h", start="2019-12-29")


@dataclass
class Found:
    """What a process did: `done` of what it is there for, `met` collections; what was wrong, in words."""

    done: int = 0
    met: int = 0
    last: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """What a process is told."""

    root: Path
    deadline: float
    seed: int
    kept: str

    @property
    def going(self) -> bool:
        return time.monotonic() < self.deadline


def start(root: Path) -> str:
    """Fill a lake with update 0 of every writer; return the snapshot's id."""
    for writer in range(WRITERS):
        whole_batch(Lake(root).upsert_many(update(writer, 0)))
    return Lake(root).snapshots()[-1].id


def update(writer: int, number: int) -> list[Arrival]:
    """Return what a writer's update of that number brings."""
    day = date(2020, 2, 1) + timedelta(days=writer)
    actions = CorporateActions.of(dividends={day: float(number)})
    return [
        Arrival(AAPL, "1d", inspect(_own(_DAILY, writer, number), "1d"), "sample", actions),
        Arrival(IBM, "4h", inspect(_own(_INTRADAY, writer, number), "4h"), "sample"),
    ]


def view(lake: Lake, snapshot: Version) -> tuple[list[int], str]:
    """Return each writer's number in a snapshot, and what is wrong with it (empty: nothing)."""
    daily = lake.raw_bars("AAPL", snapshot=snapshot).volume
    intraday = lake.raw_bars("IBM", "4h", snapshot=snapshot).volume
    actions = lake.actions("AAPL", snapshot=snapshot)
    cash = [] if actions is None else actions.dividend.tolist()
    found = [
        {*daily[writer::WRITERS], *intraday[writer::WRITERS], *cash[writer : writer + 1]}
        for writer in range(WRITERS)
    ]
    wrong = "" if all(len(numbers) == 1 for numbers in found) and len(cash) == WRITERS else f"mixed: {found}"
    return [int(min(numbers)) for numbers in found], wrong


def run(root: Path, seconds: float, seed: int, kept: str, results: Path) -> None:
    """Fork all of them, wait for all, and leave their findings in `results`; raise if one failed."""
    parts: dict[str, Callable[[Part, Found], None]] = {
        **{f"writer {w}": (lambda part, found, w=w: _write(part, found, w)) for w in range(WRITERS)},
        "long reader": _read_long,
        "short reader": _read_short,
        "collection": _collect,
    }
    deadline = time.monotonic() + seconds
    children = {}
    for name, work in parts.items():
        pid = os.fork()
        if pid == 0:
            found = Found()
            work(Part(root, deadline, seed, kept), found)
            (results / name).write_text(json.dumps(asdict(found)))
            os._exit(0)
        children[pid] = name
    failed = [name for pid, name in children.items() if os.waitpid(pid, 0)[1]]
    if failed:
        raise RuntimeError(f"{', '.join(failed)} failed")


def _own(raw: RawBars, writer: int, number: int) -> RawBars:
    return volumes(raw, number)[writer::WRITERS]


def _write(part: Part, found: Found, writer: int) -> None:
    lake, dice = Lake(part.root), random.Random(part.seed + writer)
    while part.going:
        found.last += 1
        arrivals = update(writer, found.last)
        dice.shuffle(arrivals)
        whole_batch(lake.upsert_many(arrivals))
        found.done += 1
        with lake.pinned() as snapshot:
            assert snapshot is not None
            seen = view(lake, snapshot.id)[0][writer]
        if seen != found.last:
            found.wrong.append(f"writer {writer} reads {seen} after its update {found.last}")


def _read_long(part: Part, found: Found) -> None:
    """Read one snapshot many times over while newer ones replace it and old ones are collected."""
    lake, dice, before = Lake(part.root), random.Random(part.seed), [0] * WRITERS
    while part.going:
        with lake.pinned() as snapshot:
            assert snapshot is not None
            first, wrong = view(lake, snapshot.id)
            for _ in range(dice.randrange(2, 40)):
                # a lake object of its own reads manifest and history anew, as another process would
                again, wrong_now = view(Lake(part.root), snapshot.id)
                found.done += 1
                wrong = wrong or wrong_now or ("" if again == first else f"{first} became {again}")
        found.wrong += [wrong] if wrong else []
        found.wrong += [] if _later(first, before) else [f"{first} after {before}"]
        before = first


def _read_short(part: Part, found: Found) -> None:
    """Read without a pin: the newest must always be there, one by its id is whole until it is collected."""
    lake, before = Lake(part.root), [0] * WRITERS
    while part.going:
        rows = lake.raw_bars("IBM", "4h").volume
        numbers = [set(rows[writer::WRITERS].tolist()) for writer in range(WRITERS)]
        found.wrong += [] if all(len(one) == 1 for one in numbers) else [f"mixed: {numbers}"]
        newest = [int(min(one)) for one in numbers]
        found.wrong += [] if _later(newest, before) else [f"{newest} after {before}"]
        before = newest
        current = lake.current()
        assert current is not None
        found.done += 1
        for _ in range(20):
            try:
                _, wrong = view(lake, current.id)
            except NotFound:
                found.met += 1
                break
            found.wrong += [wrong] if wrong else []
            found.done += 1


def _collect(part: Part, found: Found) -> None:
    lake = Lake(part.root)
    while part.going:
        found.done += len(lake.collect(datetime.now(UTC), lambda: {part.kept}).snapshots)
        numbers, wrong = view(lake, part.kept)
        found.wrong += (
            [] if (numbers, wrong) == ([0] * WRITERS, "") else [f"kept for a run: {numbers} {wrong}"]
        )


def _later(now: list[int], before: list[int]) -> bool:
    return all(new >= old for new, old in zip(now, before, strict=True))
