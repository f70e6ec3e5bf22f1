"""Fetching into the lake: nothing twice, no hole, goes on where it ended, one failure keeps nobody else back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from gpt_trader.adapters.base import Source
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import BadBars, GptTraderError, SourceUnavailable
from gpt_trader.quality import Policy
from gpt_trader.raw_bars import RawBars
from gpt_trader.requests import DataRequest
from gpt_trader.settings import Settings
from storage.lake import Lake
from storage.lake_writing import Arrival
from tasks.fetching import Fetching, Outcome
from tasks.ingest_plan import Series, planned
from tasks.quality import admission, verdicts_of
from tasks.resampled import make_of_finer
from tests.lake_samples import changed, equal
from tests.scripted_source import ScriptedSource, ascending

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
