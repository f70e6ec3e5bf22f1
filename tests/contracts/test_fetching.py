"""Fetching into the lake: nothing twice, no hole, goes on where it ended, one failure keeps nobody else back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from gpt_trader.adapters.base import Source
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import BadBars, Denied, GptTraderError, NotEnoughBars, SourceUnavailable
from gpt_trader.instruments import Instrument
from gpt_trader.quality import Policy
from gpt_trader.raw_bars import RawBars
from gpt_trader.requests import DataRequest
from gpt_trader.settings import Settings
from storage.lake import Lake
from storage.lake_writing import Arrival
from tasks.fetching import THREADS, Fetching, Outcome
from tasks.ingest_plan import Series, planned
from tasks.quality import admission, verdicts_of
from tasks.resampled import make_of_finer
from tests.lake_samples import changed, equal
from tests.scripted_source import ScriptedSource, ascending
from tests.waiting import eventually

MINUTE = np.timedelta64(60_000_000, "us")
DAY = np.timedelta64(86_400_000_000, "us")
NOW = datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def minutes(n: int = 1000) -> RawBars:
    return ascending(n, MINUTE, "2024-01-02T00:00")


def fetched(
    lake: Lake, source: Source, symbols: Sequence[str] = ("ABC",), **options: object
) -> list[Outcome]:
    """Fetch minutes of the symbols; options are those of the request, `now` and `admit`."""
    now, admit = options.pop("now", NOW), options.pop("admit", None)
    request = DataRequest(symbols=symbols, source="sample", **{"timeframes": ("1m",), **options})
    wanted = [Series(s, t, "scripted") for s in symbols for t in request.timeframes]
    told: list[int] = []
    found = Fetching(request, lake, lambda _: source, now).run(
        wanted, lambda n, _: told.append(n), admit=admit
    )
    assert told == list(range(1, len(wanted) + 1))
    return found


def test_pages_become_one_series_and_one_snapshot(lake: Lake):
    outcome = fetched(lake, ScriptedSource({"ABC": minutes()}))[0]
    assert (outcome.added, outcome.restated, outcome.error) == (1000, 0, None)
    assert equal(lake.raw_bars("ABC", "1m"), minutes())
    assert len(lake.snapshots()) == 1


def test_many_series_come_side_by_side_and_are_all_there(lake: Lake):
    bars = {f"S{n}": minutes(200 + n) for n in range(40)}
    outcomes = fetched(lake, ScriptedSource(bars), list(bars))
    assert [outcome.series.symbol for outcome in outcomes] == list(bars)
    assert [outcome.added for outcome in outcomes] == [len(raw) for raw in bars.values()]
    assert all(equal(lake.raw_bars(symbol, "1m"), raw) for symbol, raw in bars.items())
    assert len(lake.snapshots()) < 10


def test_the_next_ingest_asks_for_what_is_new_alone(lake: Lake):
    fetched(lake, ScriptedSource({"ABC": minutes(900)}))
    source = ScriptedSource({"ABC": minutes(1000)})
    outcome = fetched(lake, source)[0]
    assert (outcome.added, outcome.unchanged) == (100, 6)
    assert source.rows == 106
    assert equal(lake.raw_bars("ABC", "1m"), minutes(1000))


def test_nothing_new_makes_no_snapshot(lake: Lake):
    source = ScriptedSource({"ABC": minutes()})
    fetched(lake, source)
    assert fetched(lake, source)[0].added == 0
    assert len(lake.snapshots()) == 1


def test_what_came_before_a_failure_is_kept_and_gone_on_from(lake: Lake):
    lost = SourceUnavailable("the line is cut")
    outcome = fetched(lake, ScriptedSource({"ABC": minutes()}, fails={"ABC": (7, lost)}))[0]
    assert outcome.error is lost
    assert len(lake.raw_bars("ABC", "1m")) == 700
    whole = ScriptedSource({"ABC": minutes()})
    assert fetched(lake, whole)[0].added == 300
    assert whole.rows == 306
    assert equal(lake.raw_bars("ABC", "1m"), minutes())


def test_an_earlier_start_fills_up_to_what_is_stored(lake: Lake):
    source = ScriptedSource({"ABC": minutes(5000)})
    fetched(lake, source, start=date(2024, 1, 4))
    stored = len(lake.raw_bars("ABC", "1m"))
    fetched(lake, source, start=date(2024, 1, 2))
    assert stored == 5000 - 2 * 1440
    assert equal(lake.raw_bars("ABC", "1m"), minutes(5000))


def test_an_earlier_part_that_breaks_off_leaves_no_hole(lake: Lake):
    fetched(lake, ScriptedSource({"ABC": minutes(5000)}), start=date(2024, 1, 4))
    before = lake.raw_bars("ABC", "1m")
    broken = ScriptedSource({"ABC": minutes(5000)}, fails={"ABC": (3, SourceUnavailable("cut"))})
    assert fetched(lake, broken, start=date(2024, 1, 2))[0].error is not None
    assert equal(lake.raw_bars("ABC", "1m"), before)


def test_one_failure_keeps_nobody_else_back(lake: Lake):
    source = ScriptedSource({"ABC": minutes(), "XYZ": minutes()}, fails={"ABC": (0, SourceUnavailable("no"))})
    outcomes = fetched(lake, source, ["ABC", "NONE", "XYZ"])
    assert [outcome.error is None for outcome in outcomes] == [False, False, True]
    assert "does not list NONE" in str(outcomes[1].error)
    assert equal(lake.raw_bars("XYZ", "1m"), minutes())


def test_a_fault_of_ours_is_raised_and_stops_every_thread(lake: Lake):
    source = ScriptedSource(
        {f"S{n}": minutes() for n in range(20)}, fails={"S3": (2, ZeroDivisionError("bug"))}
    )
    with pytest.raises(ZeroDivisionError):
        fetched(lake, source, [f"S{n}" for n in range(20)])


def test_a_bar_that_is_still_forming_is_left_out(lake: Lake):
    forming = datetime(2024, 1, 2, 16, 39, 30, tzinfo=UTC)  # the last of 1,000 minutes is that of 16:39
    outcome = fetched(lake, ScriptedSource({"ABC": minutes()}), now=forming)[0]
    assert outcome.added == 999
    assert any("still forming" in remark for remark in outcome.remarks)


def test_actions_come_with_the_bars(lake: Lake):
    split = CorporateActions.of({date(2024, 1, 2): 2.0})
    fetched(lake, ScriptedSource({"ABC": minutes()}, corporate=split))
    stored = lake.actions("ABC")
    assert stored is not None
    assert stored.logical_hash == split.logical_hash


def test_refetching_finds_what_was_restated_and_a_verdict_says_when(lake: Lake):
    fetched(lake, ScriptedSource({"ABC": minutes()}))
    before = lake.current()
    assert before is not None
    restated = ScriptedSource({"ABC": changed(minutes(), 500, close=600.5)})
    assert fetched(lake, restated)[0].restated == 0
    outcomes = fetched(lake, restated, refetch=True)
    assert (outcomes[0].restated, outcomes[0].unchanged) == (1, 999)
    verdict = verdicts_of(Settings(), lake, outcomes, before.id)["ABC", "1m"]
    found = [finding for finding in verdict.findings if finding.rule == "restated"]
    assert [finding.first for finding in found] == [minutes().time[500]]


def test_replacing_leaves_nothing_of_what_was_stored(lake: Lake):
    fetched(lake, ScriptedSource({"ABC": minutes()}))
    shifted = ascending(500, MINUTE, "2024-01-02T00:00:30")
    fetched(lake, ScriptedSource({"ABC": shifted}), replace=True)
    assert equal(lake.raw_bars("ABC", "1m"), shifted)


def policy(**rules: str) -> Settings:
    return Settings(quality=Policy.model_validate({"rules": rules}))


def test_the_policy_may_hold_rows_back(lake: Lake):
    spiked = changed(minutes(), 500, close=6000.0, high=6001.0)
    gate = admission(policy(outliers="quarantine"), lake)
    outcome = fetched(lake, ScriptedSource({"ABC": spiked}, page=1000), admit=gate)[0]
    assert (outcome.added, outcome.quarantined) == (999, 1)
    assert outcome.reasons == {"quality rule outliers": 1}
    assert minutes().time[500] not in lake.raw_bars("ABC", "1m").time


def test_the_policy_may_refuse_a_series_and_what_is_stored_stays(lake: Lake):
    whole = minutes()
    gate = admission(policy(gaps="block"), lake)
    holed = whole[np.delete(np.arange(1000), np.arange(400, 430))]
    outcome = fetched(lake, ScriptedSource({"ABC": holed}, page=1000), admit=gate)[0]
    assert isinstance(outcome.error, BadBars)
    assert "the quality policy blocks gaps" in outcome.error.detail
    assert lake.current() is None


def test_a_policy_that_only_warns_costs_no_gate(lake: Lake):
    assert admission(Settings(), lake) is None


def test_an_error_of_the_commit_ends_its_series_alone(lake: Lake):
    def admit(arrivals: list[Arrival]) -> list[Arrival | GptTraderError]:
        return [BadBars("no") if a.instrument.symbol == "ABC" else a for a in arrivals]

    source = ScriptedSource({"ABC": minutes(), "XYZ": minutes()})
    outcomes = fetched(lake, source, ["ABC", "XYZ"], admit=admit)
    assert [str(outcome.error) for outcome in outcomes] == ["no", "None"]


# Sources that misbehave


@dataclass
class Paged(ScriptedSource):
    """Gives these pages as they are, in this order, without a look at the range."""

    given: tuple[RawBars, ...] = ()

    def pages(self, symbol: str, timeframe: str, start: object = None, end: object = None):
        del symbol, timeframe, start, end
        yield from self.given


def paged(*given: RawBars, **options: object) -> Paged:
    return Paged({"ABC": minutes()}, given=given, **options)


NONE = RawBars.empty()


@pytest.fixture(params=[0.0, 60.0], ids=["a commit a page", "one commit"])
def commits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether pages meet in one commit depends on how fast they come: it must not matter."""
    monkeypatch.setattr("tasks.fetching.COMMIT_SECONDS", request.param)


@pytest.mark.usefixtures("commits")
@pytest.mark.parametrize(
    "given",
    [
        pytest.param((NONE, NONE, minutes()), id="empty ones first"),
        pytest.param((minutes()[:400], NONE, minutes()[400:]), id="an empty one between"),
        pytest.param((minutes(), NONE), id="an empty one at the end"),
        pytest.param((minutes()[600:], minutes()[:300], minutes()[300:600]), id="out of order"),
        pytest.param(tuple(minutes()[n : n + 50] for n in range(950, -1, -50)), id="backwards"),
        pytest.param((minutes()[:500], minutes()[499:], minutes()[999:]), id="each begins with the last bar"),
        pytest.param((minutes(), minutes(), minutes()), id="all over again"),
        pytest.param((minutes()[::-1],), id="a page that descends"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("live", [True, False])
def test_however_pages_come_the_series_is_whole(lake: Lake, given: tuple[RawBars, ...], live: bool):
    split = CorporateActions.of({date(2024, 1, 2): 2.0})
    outcome = fetched(lake, paged(*given, live=live, corporate=split))[0]
    assert (outcome.error, outcome.added, outcome.restated) == (None, 1000, 0)
    assert equal(lake.raw_bars("ABC", "1m"), minutes())
    stored = lake.actions("ABC")
    assert stored is not None
    assert stored.logical_hash == split.logical_hash
    again = fetched(lake, paged(*given, live=live, corporate=split), refetch=True)[0]
    assert (again.error, again.added, again.restated) == (None, 0, 0)


@pytest.mark.usefixtures("commits")
def test_of_pages_that_overlap_the_later_one_counts(lake: Lake):
    restated = changed(minutes()[490:], 5, close=595.5)
    outcome = fetched(lake, paged(minutes()[:500], restated))[0]
    assert outcome.error is None
    assert equal(lake.raw_bars("ABC", "1m"), RawBars.joined(minutes()[:490], restated))


@pytest.mark.parametrize("given", [(), (NONE,), (NONE, NONE, NONE)], ids=["no page", "one", "several"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_source_without_bars_is_an_error_of_its_series(
    lake: Lake, given: tuple[RawBars, ...], replace: bool
):
    outcome = fetched(lake, paged(*given))[0]
    assert isinstance(outcome.error, NotEnoughBars)
    assert "source scripted gave no bars of ABC 1m" in outcome.error.detail
    assert lake.current() is None
    fetched(lake, ScriptedSource({"ABC": minutes()}))
    nothing = fetched(lake, paged(*given), replace=replace)[0]
    assert (nothing.error is None, nothing.added) == (not replace, 0)
    assert equal(lake.raw_bars("ABC", "1m"), minutes()), "nothing came that could replace them"


def test_a_new_series_of_a_bar_that_is_still_forming_waits(lake: Lake):
    outcome = fetched(lake, paged(minutes(1)), now=datetime(2024, 1, 2, 0, 0, 30, tzinfo=UTC))[0]
    assert isinstance(outcome.error, NotEnoughBars)
    assert any("still forming" in remark for remark in outcome.remarks)
    assert lake.current() is None


@pytest.mark.usefixtures("commits")
def test_replacing_page_by_page_keeps_every_page(lake: Lake):
    fetched(lake, ScriptedSource({"ABC": minutes()}))
    shifted = ascending(500, MINUTE, "2024-01-02T00:00:30")
    outcome = fetched(lake, ScriptedSource({"ABC": shifted}, page=50), replace=True)[0]
    assert (outcome.error, outcome.added) == (None, 500)
    assert equal(lake.raw_bars("ABC", "1m"), shifted)


@pytest.mark.usefixtures("commits")
@pytest.mark.parametrize("replace", [False, True])
def test_a_symbol_twice_in_one_request_is_there_once(lake: Lake, replace: bool):
    source = ScriptedSource({"ABC": minutes()})
    outcomes = fetched(lake, source, ["ABC", "ABC", "ABC"], replace=replace)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert equal(lake.raw_bars("ABC", "1m"), minutes())
    assert len(verdicts_of(Settings(), lake, outcomes, None)) == 1


def test_a_plan_names_a_symbol_once(lake: Lake):
    source = ScriptedSource({"ABC": minutes()})
    found = plan(lake, source, symbols=("ABC", "abc", "XYZ", "ABC"), timeframes=("1m",))
    assert [series.symbol for series in found.fetch] == ["ABC", "XYZ"]
    request = DataRequest(symbols=("ABC", "ABC"), source="resample")
    made = planned(request, lake.manifest(), "scripted", lambda _: source)
    assert [series.symbol for series in made.resample] == ["ABC"]


def test_hundreds_of_series_some_of_which_fail(lake: Lake):
    bars = {f"S{n}": minutes(21 + n % 7) for n in range(300)}
    fails = {f"S{n}": (n % 3, SourceUnavailable(f"lost {n}")) for n in range(0, 300, 10)}
    outcomes = fetched(lake, ScriptedSource(bars, page=10, fails=fails), list(bars))
    assert [outcome.series.symbol for outcome in outcomes] == list(bars)
    for outcome in outcomes:
        symbol = outcome.series.symbol
        most, failure = fails.get(symbol, (99, None))
        assert outcome.error is failure
        kept = min(len(bars[symbol]), 10 * most)
        assert outcome.added == kept
        if kept:
            assert equal(lake.raw_bars(symbol, "1m"), bars[symbol][:kept])
    assert len(lake.snapshots()) < 10


@dataclass
class Broken(ScriptedSource):
    """Raises `wrong` where `part` of ABC is asked for."""

    part: str = "instrument"
    wrong: BaseException = field(default_factory=RuntimeError)

    def _fail(self, part: str, symbol: str) -> None:
        if (part, symbol) == (self.part, "ABC"):
            raise self.wrong

    def instrument(self, symbol: str) -> Instrument:
        self._fail("instrument", symbol)
        return super().instrument(symbol)

    def actions(self, symbol: str) -> CorporateActions | None:
        self._fail("actions", symbol)
        return super().actions(symbol)

    def pages(self, symbol: str, *asked: object):
        self._fail("pages", symbol)
        yield from super().pages(symbol, *asked)


def fetching_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


parts = pytest.mark.parametrize("part", ["instrument", "actions", "pages"])


@parts
@pytest.mark.parametrize("wrong", [Denied("no key"), SourceUnavailable("no line"), BadBars("no bars")])
def test_a_refusal_of_any_part_of_a_source_ends_its_series_alone(
    lake: Lake, part: str, wrong: GptTraderError
):
    source = Broken({"ABC": minutes(), "XYZ": minutes()}, part=part, wrong=wrong)
    outcomes = fetched(lake, source, ["ABC", "XYZ"])
    assert [outcome.error for outcome in outcomes] == [wrong, None]
    assert lake.manifest().entries.keys() == {("XYZ", "1m")}


@parts
@pytest.mark.parametrize("wrong", [RuntimeError("bug"), OSError("gone"), SystemExit(3), MemoryError()])
def test_a_fault_of_any_part_is_raised_and_every_thread_ends(lake: Lake, part: str, wrong: BaseException):
    source = Broken({"ABC": minutes(), "XYZ": minutes()}, part=part, wrong=wrong)
    with pytest.raises(type(wrong)) as raised:
        fetched(lake, source, ["XYZ", "ABC"])
    assert raised.value is wrong
    assert fetching_threads() == []


@dataclass
class Interrupting(ScriptedSource):
    """Interrupts the main thread, as Ctrl-C does, when its third page is asked for."""

    def pages(self, symbol: str, *asked: object):
        for number, page in enumerate(super().pages(symbol, *asked)):
            if (symbol, number) == ("S0", 3):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            yield page


def test_an_interrupt_ends_every_thread_and_keeps_what_was_committed(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tasks.fetching.COMMIT_BARS", 1)
    bars = {f"S{n}": minutes() for n in range(20)}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fetched(lake, Interrupting(bars, page=10), list(bars))
    finally:
        signal.signal(signal.SIGINT, before)
    eventually(lambda: not fetching_threads(), what="the end of a thread that was just being started")
    for symbol, timeframe in lake.manifest().entries:
        kept = lake.raw_bars(symbol, timeframe)
        assert len(kept) % 10 == 0
        assert equal(kept, minutes()[: len(kept)])
    assert fetched(lake, ScriptedSource(bars), ["S0"])[0].error is None
    assert equal(lake.raw_bars("S0", "1m"), minutes())


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "wrong", [GptTraderError("the disk is full"), OSError("no disk"), KeyboardInterrupt()]
)
def test_a_commit_that_fails_while_the_queue_is_full_ends_all(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, wrong: BaseException
):
    """Every thread waits for room then, and nobody will ever take a page again."""
    monkeypatch.setattr("tasks.fetching.COMMIT_BARS", 1)
    bars = {f"S{n}": minutes() for n in range(20)}
    source = ScriptedSource(bars, page=10)
    request = DataRequest(symbols=tuple(bars), source="sample", timeframes=("1m",))
    fetching = Fetching(request, lake, lambda _: source, NOW)

    def admit(arrivals: list[Arrival]) -> list[Arrival | GptTraderError]:
        del arrivals
        eventually(fetching._pages.full, what="a full queue")
        raise wrong

    with pytest.raises(type(wrong)) as raised:
        fetching.run([Series(symbol, "1m", "scripted") for symbol in bars], lambda *_: None, admit)
    assert raised.value is wrong
    assert fetching_threads() == []
    assert len(source.asked) == THREADS, "nobody began another series"
    assert lake.current() is None


def test_a_lake_that_cannot_be_written_fails_all(lake: Lake):
    (lake.root / "lock").mkdir(parents=True)
    bars = {f"S{n}": minutes() for n in range(20)}
    with pytest.raises(GptTraderError, match="bars"):
        fetched(lake, ScriptedSource(bars, page=10), list(bars))
    assert fetching_threads() == []
    assert lake.current() is None


def test_whoever_is_told_may_fail(lake: Lake):
    source = ScriptedSource({f"S{n}": minutes() for n in range(20)}, page=10)
    wanted = [Series(symbol, "1m", "scripted") for symbol in source.bars]
    request = DataRequest(symbols=tuple(source.bars), source="sample", timeframes=("1m",))

    def tell(done: int, outcome: Outcome) -> None:
        raise ConnectionError(f"{done} {outcome.series.symbol}")

    with pytest.raises(ConnectionError, match="1 S"):
        Fetching(request, lake, lambda _: source, NOW).run(wanted, tell)
    assert fetching_threads() == []


def test_nothing_wanted_is_nothing_done(lake: Lake):
    assert Fetching(DataRequest(), lake, lambda _: ScriptedSource({}), NOW).run([], lambda *_: None) == []
    assert lake.current() is None
    assert fetching_threads() == []


def plan(lake: Lake, source: Source, **options: object):
    return planned(DataRequest(**options), lake.manifest(), "scripted", lambda _: source)


def test_a_plan_makes_what_the_source_lacks_of_finer_bars(lake: Lake):
    source = ScriptedSource({"ABC": minutes()})
    source.timeframes = ("1m", "15m", "1d")
    found = plan(lake, source, symbols=("ABC",), timeframes=("1d", "1h", "1m"))
    assert found.fetch == (Series("ABC", "1m", "scripted"), Series("ABC", "1d", "scripted"))
    assert found.resample == (Series("ABC", "1h", "resample"),)
    alone = plan(lake, source, symbols=("ABC",), timeframes=("1h", "4h"))
    assert alone.fetch == (Series("ABC", "15m", "scripted"),)
    assert alone.resample == (Series("ABC", "1h", "resample"), Series("ABC", "4h", "resample"))


def test_without_finer_bars_the_source_is_asked_and_says_what_it_has(lake: Lake):
    source = ScriptedSource({"ABC": minutes()})
    source.timeframes = ("1d",)
    assert plan(lake, source, symbols=("ABC",), timeframes=("1h",)).fetch == (
        Series("ABC", "1h", "scripted"),
    )
    outcome = fetched(lake, source, timeframes=("1h",))[0]
    assert "source scripted has 1d bars" in str(outcome.error)


def test_a_refresh_asks_each_series_own_source_and_says_what_it_cannot(lake: Lake):
    fetched(lake, ScriptedSource({"ABC": minutes(3000), "XYZ": minutes(3000)}), ["ABC", "XYZ"])
    assert make_of_finer(lake, Series("ABC", "1h", "resample")).added == 50
    lake.upsert(lake.instrument("XYZ"), "1d", ascending(3, DAY, "2024-01-02"), source="csv")
    found = plan(lake, ScriptedSource({}), refresh=True)
    assert set(found.fetch) == {Series("ABC", "1m", "scripted"), Series("XYZ", "1m", "scripted")}
    assert found.resample == (Series("ABC", "1h", "resample"),)
    assert found.skipped == ("XYZ 1d came from a file: ingest the new file to bring it up to date",)
    with pytest.raises(GptTraderError, match="NONE is not in the lake: nothing to refresh"):
        plan(lake, ScriptedSource({}), refresh=True, symbols=("NONE",))


def test_what_is_made_of_finer_bars_goes_on_with_them(lake: Lake):
    fetched(lake, ScriptedSource({"ABC": minutes(150)}))
    assert make_of_finer(lake, Series("ABC", "1h", "resample")).added == 2
    fetched(lake, ScriptedSource({"ABC": minutes(200)}))
    again = make_of_finer(lake, Series("ABC", "1h", "resample"))
    assert (again.added, again.unchanged) == (1, 2)
    assert "made of 1m bars" in again.remarks
    lacking = make_of_finer(lake, Series("ABC", "1m", "resample")).error
    assert "the lake has no finer bars of it" in str(lacking)
