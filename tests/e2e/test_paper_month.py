"""A month of daily paper trading by its deployment in a whole house, and a cron that was missed (faults rows 15, 16).

A cron cannot be made to run faster, so what it would do is done in its place: a run of the deployment, with the
schedule's own parameters, once for each day of the month. All else is the house as it is.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Engine
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import VALUES, RawBars
from storage.lake import Lake
from storage.session_rows import Session
from storage.sessions import SessionStore
from tests.api.sockets import Plain
from tests.e2e.house import FINAL, House
from tests.flows.conftest import kill
from tests.lake_samples import some_bars
from tests.session_checks import check_against_the_backtest
from tests.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

#: What happens to a day's run, and how often: nothing, the run's process dies, the worker too, the API, Prefect.
DEATHS = {"": 6, "run": 5, "worker": 2, "api": 2, "prefect": 1}

DAYS = range(50, 80)


class Month:
    """Three symbols of a house's lake, to which bars come day by day, and a session by schedule that trades them."""

    def __init__(self, house: House, ledgers: Engine, seed: int, prefix: str) -> None:
        self.house, self.ledgers = house, ledgers
        self.store, self._lake = SessionStore(ledgers), Lake(house.home.lake)
        self._bars: dict[str, RawBars] = {}
        for place, symbol in enumerate(f"{prefix}{letter}" for letter in "ABC"):
            raw = some_bars(DAYS.stop, seed=seed + place)
            columns = {name: getattr(raw, name) for name in ("time", *VALUES)}
            self._bars[symbol] = RawBars(**{**columns, "factor": np.ones(len(raw.time))})
        self.bring(0, DAYS.start)
        legs = [
            word
            for symbol, slow in zip(self._bars, (5, 8, 9), strict=True)
            for word in ("--leg", f"{symbol}:ma_crossover:fast=2,slow={slow}")
        ]
        opened = house.json("paper", "start", "--schedule", *legs, "--name", prefix, "--follow")
        self.id = str(opened["session_id"])

    def bring(self, begin: int, end: int) -> None:
        """Put a stretch of bars into the lake, as from files: a refresh finds nothing to do."""
        for symbol, raw in self._bars.items():
            part = RawBars(**{name: getattr(raw, name)[begin:end] for name in ("time", *VALUES)})
            self._lake.upsert(Instrument(symbol=symbol), "1d", part, source="csv")

    def day(self, at: datetime | None = None) -> str:
        """Have the deployment run as its schedule has it (due `at`: now); return the run's id."""
        deployment = self.house.prefect("GET", "/deployments/name/paper_daily/paper_daily")
        (schedule,) = [each for each in deployment["schedules"] if each["slug"] == "daily"]
        due = {"scheduled_time": (at or datetime.now(UTC)).isoformat()}
        state = {"type": "SCHEDULED", "state_details": due}
        body = {"parameters": schedule["parameters"], "state": state, "tags": ["auto-scheduled"]}
        made = self.house.prefect("POST", f"/deployments/{deployment['id']}/create_flow_run", json=body)
        return str(made["id"])

    def ended(self, run_id: str) -> bool:
        """Return whether a run has ended; not while Prefect is away."""
        return (self.house.state(run_id) or "") in FINAL

    @property
    def row(self) -> Session:
        return self.store.get(UUID(self.id))

    def traded(self, day: int) -> bool:
        last = str(self._bars[next(iter(self._bars))].time[day].astype("datetime64[D]"))
        return str(self.row.bar or "")[:10] >= last


class Watching(threading.Thread):
    """A client of the WebSocket that comes back after each cut, behind what it has."""

    def __init__(self, house: House, session_id: str) -> None:
        super().__init__(daemon=True)
        self._house, self._session_id = house, session_id
        self._last: tuple[str | None, int] = (None, 0)
        self._over = threading.Event()
        self.fills: list[str] = []
        self.offsets: list[int] = []
        self.connections = 0
        self.start()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._follow()
            except (OSError, ConnectionClosed, InvalidHandshake):
                self._over.wait(0.1)

    def _follow(self) -> None:
        key = (self._house.home.root / "key").read_text(encoding="ascii").strip()
        epoch, offset = self._last
        with Plain(self._house.record.api_url, key) as client:
            self.connections += 1
            answer = client.subscribe("trades.live", {"epoch": epoch, "offset": offset})
            assert answer["type"] == "subscribed", answer
            for each in answer["publications"]:
                self._take(each)
            while not self._over.is_set():
                try:
                    message = client.take(1)
                except TimeoutError:
                    continue
                if message["type"] == "publication":
                    self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        self._last = (message["epoch"], message["offset"])
        self.offsets.append(message["offset"])
        if message["event"] == "fill" and message["data"]["session_id"] == self._session_id:
            self.fills.append(message["data"]["execution_id"])

    def close(self) -> None:
        self._over.set()
        self.join(30)
        assert not self.is_alive()


@contextmanager
def watching(house: House, session_id: str) -> Iterator[Watching]:
    one = Watching(house, session_id)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def ledgers(house: House) -> Iterator[Engine]:
    with house.database() as engine:
        yield engine


def die(month: Month, how: str, run_id: str, chance: random.Random) -> bool:
    """Let a part of the house die at a random moment of a day's run; return whether one did before the run's end."""
    before, house = month.row.seq, month.house
    if how in ("run", "worker"):
        found = eventually(
            lambda: processes(house, run_id) or month.ended(run_id), seconds=240, what="the run's process"
        )
        if not isinstance(found, tuple):
            return False
        worker, child = found
        aim = before + chance.randint(0, 4)
        eventually(lambda: month.row.seq >= aim or month.ended(run_id), seconds=240, what="its first commits")
        kill(child)
        if how == "worker":
            kill(worker)
            house.await_part_after("worker", worker, seconds=240)
    elif how:
        house.kill_part(how, seconds=240)
    return bool(how)


def processes(house: House, run_id: str) -> tuple[int, int] | None:
    """Return the pids of a run's worker and of its own process, once it has one."""
    try:
        claim = json.loads((house.home.state / "running" / f"{run_id}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return claim["child"] and (claim["worker"]["pid"], claim["child"]["pid"])


def test_a_month_by_the_deployment_with_random_deaths_is_the_backtest(
    house: House, ledgers: Engine, figure: Callable[[str], None]
) -> None:
    """A client of the WebSocket is there all along."""
    seed = 26
    chance = random.Random(seed)
    month = Month(house, ledgers, seed, "MON")
    deaths: Counter[str] = Counter()
    states: Counter[str] = Counter()
    missed = 0
    with watching(house, month.id) as client:
        for day in DAYS:
            month.bring(day, day + 1)
            last = day == DAYS[-1]
            if not last and chance.random() < 0.1:
                missed += 1
                continue
            run_id = month.day()
            how = "" if last else chance.choices(list(DEATHS), list(DEATHS.values()))[0]
            struck = die(month, how, run_id, chance)
            eventually(lambda r=run_id: month.ended(r), seconds=240, what=f"the end of day {day}'s run")
            ended = str(house.state(run_id))
            states[ended] += 1
            # What died with its run counts where the run was not done already.
            deaths[how] += struck and (how not in ("run", "worker") or ended == "CRASHED")
            # A run that died while it held the session: the house goes on with it once the lease has run out.
            eventually(lambda: month.row.lease_until is None, seconds=240, what=f"day {day} without a holder")
        eventually(lambda: month.traded(DAYS[-1]), seconds=240, what="the last day")
        fills = [
            each.data["execution_id"]
            for each in month.store.events(UUID(month.id), types=["fill"], limit=10_000)
        ]
        eventually(lambda: len(client.fills) >= len(fills), seconds=60, what="what the stream has to tell")
    certificate = house.json("paper", "replay", month.id)
    row = month.row
    assert check_against_the_backtest(ledgers, UUID(month.id)) == len(fills)
    lost, twice = len(set(fills) - set(client.fills)), len(client.fills) - len(set(client.fills))
    figure(
        f"a month by the deployment (seed {seed}), 3 symbols, {row.steps} bars, {len(fills)} fills: died "
        f"{dict(+deaths)}, {missed} days missed, runs {dict(states)}; certificate {certificate['verdict']}, ledger "
        f"equal to an uninterrupted one and to the backtest; a WebSocket client over {client.connections} "
        f"connections: fills lost {lost}, twice {twice}"
    )
    assert (row.steps, certificate["verdict"], certificate["missed"]) == (len(DAYS), "equal", 0)
    assert client.fills == fills
    assert client.offsets == sorted(set(client.offsets))
    assert sum(deaths.values()) >= 8
    assert len(fills) > 4
    house.json("paper", "stop", month.id)


def test_a_cron_that_was_missed_for_hours_and_days_is_caught_up_once(
    house: House, ledgers: Engine, figure: Callable[[str], None]
) -> None:
    """The worker is away, runs are late: four of today, hours apart, one of each of the three days before."""
    month = Month(house, ledgers, 31, "CRO")
    month.bring(DAYS.start, DAYS.start + 5)
    now = datetime.now(UTC)
    late = [now - timedelta(days=days) for days in (3, 2, 1)] + [
        now - timedelta(hours=h) for h in (4, 3, 2, 1)
    ]
    worker = house.pid("worker")
    os.kill(worker, signal.SIGSTOP)
    run_ids = [month.day(at) for at in late]
    house.kill_part("worker", seconds=240)
    assert house.pid("worker") != worker
    for run_id in run_ids:
        eventually(lambda r=run_id: month.ended(r), seconds=300, what="a late run's end")
    states = Counter(str(house.state(each)) for each in run_ids)
    times = [each.data["time"] for each in month.store.events(UUID(month.id), types=["bars"])]
    check_against_the_backtest(ledgers, UUID(month.id))
    figure(
        f"a cron missed for 3 days and 4 hours: {len(late)} late runs of {len(late)} ended {dict(states)}, bars traded "
        f"{len(times)} of 5, each once"
    )
    assert len(times) == len(set(times)) == 5
    assert states == Counter({"COMPLETED": len(late)})
    house.json("paper", "stop", month.id)
