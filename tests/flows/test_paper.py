"""Paper sessions as flows: to the end, killed and gone on with, day by day, twice at once (faults rows 15, 16)."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import make_url, text

from gpt_trader.crash_points import KILLED
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import VALUES, RawBars
from gpt_trader.settings import Home
from storage.alerts import AlertStore
from storage.database import engine_for
from storage.lake import Lake
from storage.session_rows import Session
from storage.sessions import SessionStore
from tests.flows.conftest import Engine, kill
from tests.lake_samples import some_bars
from tests.session_checks import check_against_the_backtest
from tests.waiting import eventually

SYMBOLS = ("AAA", "BBB", "CCC")
Figure = Callable[[str], None]

#: The first test waits for a server, a database and two processes that import everything.
pytestmark = [pytest.mark.house, pytest.mark.timeout(400)]


def part(raw: RawBars, begin: int, end: int) -> RawBars:
    return RawBars(**{name: getattr(raw, name)[begin:end] for name in ("time", *VALUES)})


def whole_series(n: int = 90) -> dict[str, RawBars]:
    """Return n daily bars by symbol, without a split."""
    found = {}
    for seed, symbol in enumerate(SYMBOLS, 3):
        raw = some_bars(n, seed=seed)
        columns = {name: getattr(raw, name) for name in ("time", *VALUES)}
        found[symbol] = RawBars(**{**columns, "factor": np.ones(n)})
    return found


@dataclass
class Job:
    """A flow under way in a child of the driver."""

    pid: int
    out: Path


@dataclass
class Paper:
    """A home with a lake, and a process that runs flows in it."""

    engine: Engine
    folder: Path
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)
    number: int = 0

    def __post_init__(self) -> None:
        url = make_url(self.engine.environment["GPT_TRADER_DATABASE_URL"])
        self.database: Database = engine_for(url.set(drivername="postgresql+psycopg"))
        self.store = SessionStore(self.database)
        self.lake = Lake(Home(self.folder / "home").lake)

    def driver(self, at: int = 0) -> subprocess.Popen[str]:
        """Return a driver, ready for its next job."""
        while len(self.drivers) <= at:
            home = self.folder / "home"
            environment = {
                **self.engine.environment,
                "GPT_TRADER_HOME": str(home),
                "PREFECT_HOME": str(home / "prefect"),
                "PREFECT_LOGGING_LEVEL": "WARNING",
            }
            log = (self.folder / f"driver-{len(self.drivers)}.log").open("w")
            with log:
                one = subprocess.Popen(
                    [sys.executable, "-P", "-m", "tests.flows.paper_driver"],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            self.drivers.append(one)
            assert self.said(one) == {"ready": True}
        return self.drivers[at]

    def said(self, driver: subprocess.Popen[str]) -> dict[str, Any]:
        assert driver.stdout is not None
        line = driver.stdout.readline()
        assert line, "".join(path.read_text()[-3000:] for path in self.folder.glob("driver-*.log"))
        found: dict[str, Any] = json.loads(line)
        return found

    def begin(self, flow: str, request: Mapping[str, Any], *, crash_at: str = "", at: int = 0) -> Job:
        self.number += 1
        out, driver = self.folder / f"out-{self.number}", self.driver(at)
        job = {"flow": flow, "request": dict(request), "out": str(out), "crash_at": crash_at}
        assert driver.stdin is not None
        driver.stdin.write(json.dumps(job) + "\n")
        driver.stdin.flush()
        return Job(self.said(driver)["pid"], out)

    def end(self, job: Job, *, at: int = 0) -> dict[str, Any]:
        """Wait for a job; return how it ended, or its exit status if it was killed."""
        status = self.said(self.drivers[at])["status"]
        if status:
            return {"state": "KILLED", "status": status}
        found: dict[str, Any] = json.loads(job.out.read_text())
        return found

    def run(self, flow: str, request: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        return self.end(self.begin(flow, request, **more))

    def session(self, session_id: str) -> Session:
        return self.store.get(UUID(session_id))

    def newest(self) -> Session:
        return self.store.list(limit=1)[0]

    def bring(self, bars: Mapping[str, RawBars], begin: int, end: int) -> None:
        """Put a stretch of bars into the lake."""
        for symbol, raw in bars.items():
            self.lake.upsert(Instrument(symbol=symbol), "1d", part(raw, begin, end), source="sample")

    def let_the_lease_run_out(self, session_id: UUID) -> None:
        """Have the lease of a run that was killed be over by now (15 s, otherwise)."""
        with self.database.begin() as connection:
            connection.execute(
                text(
                    "UPDATE sessions SET lease_until = clock_timestamp() - interval '1 s' WHERE session_id = :id"
                ),
                {"id": session_id},
            )

    def check_against_the_backtest(self, session_id: UUID) -> int:
        """Check a ledger against a replay and the backtest; return its fills."""
        return check_against_the_backtest(self.database, session_id)

    def close(self) -> None:
        for driver in self.drivers:
            assert driver.stdin is not None
            assert driver.stdout is not None
            driver.stdin.close()
            try:
                driver.wait(20)
            except subprocess.TimeoutExpired:
                driver.kill()
                driver.wait()
            driver.stdout.close()
        with self.database.begin() as connection:  # the next test's daily run is not to find them
            connection.execute(text("UPDATE sessions SET ended_at = now() WHERE ended_at IS NULL"))
        self.database.dispose()


@pytest.fixture(scope="module")
def paper(engine_parts: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paper]:
    one = Paper(engine_parts, tmp_path_factory.mktemp("paper"))
    one.bring(whole_series(), 0, 90)
    yield one
    one.close()


@pytest.fixture
def daily(engine_parts: Engine, tmp_path: Path) -> Iterator[Paper]:
    """A home whose lake has the first 50 bars."""
    one = Paper(engine_parts, tmp_path)
    one.bring(whole_series(), 0, 50)
    yield one
    one.close()


def legs(symbols: Sequence[str] = SYMBOLS) -> list[dict[str, Any]]:
    chosen = [(2, 5), (3, 8), (2, 9)]
    return [
        {"symbol": symbol, "strategy": "ma_crossover", "params": {"fast": fast, "slow": slow}}
        for symbol, (fast, slow) in zip(symbols, chosen, strict=False)
    ]


REPLAY = {"legs": legs(), "start": "2020-01-20", "end": "2020-03-20"}


def test_a_session_is_traded_to_the_end_of_its_range(paper: Paper) -> None:
    ended = paper.run("paper_trade", REPLAY)
    assert ended["state"] == "COMPLETED", ended
    summary = ended["summary"]
    assert summary["state"] == "completed"
    assert summary["certificate"]["verdict"] == "equal"
    assert (summary["bars"], summary["fills"] > 4) == (61, True)
    session = paper.session(summary["session_id"])
    assert session.session_id == UUID(ended["run_id"])
    assert (session.ledger_hash, session.lease_holder) == (summary["ledger_hash"], None)
    assert paper.check_against_the_backtest(session.session_id) == summary["fills"]
    again = paper.run("paper_certificate", {"session": summary["session_id"]})
    assert again["summary"]["certificate"] == summary["certificate"]


def test_a_session_whose_run_is_killed_goes_on_where_it_was(paper: Paper) -> None:
    paper.driver(1)  # ready for the second run; and the tables are there, if this test is the first
    known = {each.session_id for each in paper.store.list(limit=1)}
    job = paper.begin("paper_trade", {**REPLAY, "speed": 86_400 * 4})

    def under_way() -> bool:
        newest = paper.store.list(limit=1)  # none yet, if this test is the first
        return bool(newest) and newest[0].session_id not in known and newest[0].steps > 3

    eventually(under_way, seconds=60, what="a session under way")
    session = paper.newest()
    second = paper.begin("paper_trade", {"session": str(session.session_id)}, at=1)
    refused = paper.end(second, at=1)
    assert refused["state"] == "FAILED"
    assert "one at a time may" in refused["message"]
    kill(job.pid)
    assert paper.end(job)["state"] == "KILLED"
    stopped = paper.session(str(session.session_id))
    assert 3 < stopped.steps < 61
    paper.let_the_lease_run_out(session.session_id)
    with paper.database.begin() as connection:  # at that speed it would take seconds more
        connection.execute(
            text(
                "UPDATE sessions SET request = (jsonb_set(request::jsonb, '{speed}', '\"max\"'))::json "
                "WHERE session_id = :id"
            ),
            {"id": session.session_id},
        )
    ended = paper.run("paper_trade", {"session": str(session.session_id)})
    assert ended["state"] == "COMPLETED", ended
    assert ended["summary"]["bars"] == 61
    assert ended["summary"]["certificate"]["replay_equal"]
    paper.check_against_the_backtest(session.session_id)


def begun_by_schedule(paper: Paper) -> UUID:
    ended = paper.run("paper_trade", {"legs": legs(), "feed": "schedule"})
    assert ended["state"] == "COMPLETED", ended
    assert ended["summary"]["bars"] == 0
    return UUID(ended["run_id"])


def a_day(paper: Paper, session_id: UUID, **more: Any) -> dict[str, Any]:
    return paper.run("paper_daily", {"sessions": [str(session_id)], "refresh": False}, **more)


def test_the_daily_run_trades_what_is_new_once_each(daily: Paper, figure: Figure) -> None:
    """Row 16: days that were missed are caught up, and a second run of a day finds nothing to do."""
    session_id, series = begun_by_schedule(daily), whole_series()
    seen = []
    for begin, end in ((50, 51), (51, 55), (55, 55)):
        daily.bring(series, begin, end) if end > begin else None
        ended = a_day(daily, session_id)
        assert ended["state"] == "COMPLETED", ended
        (one,) = ended["summary"]["each"]
        seen.append((one["bars"], one["certificate"], one["error"]))
    assert seen == [(1, "equal", None), (4, "equal", None), (0, "equal", None)]
    times = [event.data["time"] for event in daily.store.events(session_id, types=["bars"])]
    expected = [f"{time}Z" for time in series["AAA"].time[50:55].astype("datetime64[s]").astype(str)]
    assert times == expected
    held = daily.store.lease(session_id, "somebody else")
    daily.bring(series, 55, 56)
    refused = a_day(daily, session_id)
    assert refused["state"] == "FAILED"
    assert "is traded by somebody else" in refused["message"]
    daily.store.release(held)
    assert daily.session(str(session_id)).steps == 5
    late = late_bar_is_missed(daily, session_id, series)
    figure(
        f"daily runs after a missed stretch: bars traded {len(times)} of 5, each once; a bar that came a day late: "
        f"written down as missed {late} of 1, traded 0"
    )


def late_bar_is_missed(daily: Paper, session_id: UUID, series: Mapping[str, RawBars]) -> int:
    """Bring a symbol's bar after the next moment was traded; return how often it is written down."""
    daily.bring({symbol: series[symbol] for symbol in ("AAA", "BBB")}, 56, 57)
    (one,) = a_day(daily, session_id)["summary"]["each"]
    assert (one["bars"], one["missed"]) == (2, 0)
    daily.bring({"CCC": series["CCC"]}, 56, 57)
    daily.bring(series, 57, 58)
    for bars in (1, 0):
        (one,) = a_day(daily, session_id)["summary"]["each"]
        assert (one["bars"], one["missed"], one["certificate"]) == (bars, 1, "equal")
    events = daily.store.events(session_id, types=["missed"])
    at = [f"{time}Z" for time in series["CCC"].time[56:57].astype("datetime64[s]").astype(str)]
    assert [(e.data["symbol"], e.data["time"], e.data["after"]) for e in events] == [("CCC", at[0], at[0])]
    certificate = daily.session(str(session_id)).certificate
    assert certificate is not None
    assert certificate["first_missed"]["symbol"] == "CCC"
    told = [each for each in AlertStore(daily.database).list() if each.about == f"session:{session_id}"]
    assert [(each.rule, each.count) for each in told if each.rule == "missed_bars"] == [("missed_bars", 1)]
    daily.check_against_the_backtest(session_id)
    return len(events)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_month_of_daily_paper_trading_with_kills_is_the_backtest(daily: Paper, figure: Figure) -> None:
    """Three symbols, 30 days, each day's run killed at random until one ends; some days are missed, some run twice."""
    chance, session_id, series = random.Random(6), begun_by_schedule(daily), whole_series()
    places = ("session.before_send", "session.after_send", "session.before_close")
    places += ("ledger.before_commit", "ledger.after_commit")
    kills = runs = missed = twice = 0
    for day in range(50, 80):
        daily.bring(series, day, day + 1)
        if day < 79 and chance.random() < 0.15:
            missed += 1
            continue
        while True:
            runs += 1
            place = chance.choice(["", *places, "SIGKILL"])
            if place == "SIGKILL":
                job, at = daily.begin("paper_daily", {"sessions": [str(session_id)], "refresh": False}), day
                before = daily.session(str(session_id)).seq
                eventually(
                    lambda b=before, j=job: daily.session(str(session_id)).seq > b or j.out.exists(),
                    seconds=60,
                    what=f"a commit on day {at}",
                )
                kill(job.pid)
                ended = daily.end(job)
            else:
                ended = a_day(daily, session_id, crash_at=place)
            if ended["state"] == "COMPLETED":
                break
            assert ended.get("status") in (KILLED, -9), ended
            kills += 1
            daily.let_the_lease_run_out(session_id)
        if chance.random() < 0.2:
            twice += 1
            (again,) = a_day(daily, session_id)["summary"]["each"]
            assert again["bars"] == 0
    session = daily.session(str(session_id))
    fills = daily.check_against_the_backtest(session_id)
    assert session.certificate is not None
    figure(
        f"a month by the daily flow, 3 symbols, {session.steps} bars, {fills} fills: {runs} runs, {kills} killed, "
        f"{missed} days missed, {twice} run twice: certificate {session.certificate['verdict']}, ledger equal to an "
        "uninterrupted one and to the backtest"
    )
    assert (session.steps, session.certificate["verdict"]) == (30, "equal")
    assert kills > 10
    assert fills > 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_daily_runs_at_once_trade_each_bar_once(daily: Paper, figure: Figure) -> None:
    """Row 16: started twice."""
    session_id, series, refused = begun_by_schedule(daily), whole_series(), 0
    for day in range(50, 60):
        daily.bring(series, day, day + 1)
        request = {"sessions": [str(session_id)], "refresh": False}
        jobs = [daily.begin("paper_daily", request, at=at) for at in (0, 1)]
        ended = [daily.end(job, at=at) for at, job in enumerate(jobs)]
        refused += sum(each["state"] == "FAILED" for each in ended)
        assert any(each["state"] == "COMPLETED" for each in ended), ended
        assert daily.session(str(session_id)).steps == day - 49
    daily.check_against_the_backtest(session_id)
    figure(f"10 days, each run started twice at once: 10 bars traded once each, {refused} of 20 runs refused")
