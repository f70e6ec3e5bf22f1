"""`data check | instrument | actions | quote | remove`, against the API's own routes over a real lake."""

from __future__ import annotations

import csv
import io
import json
import socket
import stat
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
import yaml
from fastapi import FastAPI
from starlette.middleware import Middleware

from api import errors
from api.front import Front
from api.kept_answers import KeptAnswers
from api.limits import limits_of
from api.metrics import Metrics
from api.middleware import RequestFrame
from api.principals import LocalKey
from api.routes import instruments, market, quality
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.instruments import Instrument
from gpt_trader.settings import Home, Settings
from storage.lake import Lake
from tests.cli.conftest import Command, Ended
from tests.lake_samples import exact_bars
from tests.quality_samples import labels, walk, without
from tests.waiting import eventually

KEY = "gtk_a-key-of-the-tests"
ACME = Instrument(symbol="ACME", name="Acme Corp.", calendar="XNYS")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """ACME with a hole in its days, whole in its minutes, and NOCAL without a calendar."""
    lake = Lake(Home(tmp_path / "engine").lake)
    days = walk(labels("XNYS", "1d", "2024-01-02", "2024-03-28"))
    lake.upsert(ACME, "1d", without(days, slice(20, 23)), source="csv")
    lake.upsert(ACME, "1m", walk(labels("XNYS", "1m", "2024-07-02", "2024-07-02")), source="sample")
    lake.upsert(Instrument(symbol="NOCAL"), "1d", exact_bars(9), source="csv")
    return lake


@pytest.fixture
def url(lake: Lake) -> Iterator[str]:
    """The address of a server with the routes in question."""
    app = FastAPI(middleware=[Middleware(RequestFrame, metrics=Metrics())])
    for router in (market.router, market.kept, instruments.router, quality.router):
        app.include_router(router)
    errors.install(app)
    app.router.routes.insert(0, Front(app.router.routes))
    settings = Settings()
    app.state.context = SimpleNamespace(
        lake=lake,
        home=Home(lake.root.parent),
        settings=settings,
        authenticators=(LocalKey(KEY),),
        limits=limits_of(settings),
        answers=KeptAnswers(),
    )
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        eventually(lambda: server.started or not thread.is_alive(), what="the server's start")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def data(cli: Command, url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `data …` against the server; a first word that is an option is a global one."""
    monkeypatch.setenv("GPT_TRADER_SERVER", url)
    monkeypatch.setenv("GPT_TRADER_API_KEY", KEY)

    def run(line: str, *words: object, output: str = "table") -> Ended:
        return cli("--output", output, "data", *line.split(), *words)

    return run


def told(data: Command, *words: object) -> Any:
    """Return what a command printed as JSON."""
    done = data(*words, output="json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def refused(ended: Ended, said: str, code: int = 2) -> None:
    assert (ended.code, ended.out) == (code, ""), ended
    assert said in ended.err
    assert "Traceback" not in ended.err


# check


def test_a_check_shows_a_row_a_series_and_what_was_found(data: Command) -> None:
    """Findings are no failure."""
    done = data("check")
    assert (done.code, done.err) == (0, "")
    heads = done.out.splitlines()
    assert heads[0].split() == ["symbol", "bar", "verdict", "bars", "expected", "calendar", "findings"]
    rows = {tuple(line.split()[:2]): line.split() for line in heads[2:5]}
    assert rows["ACME", "1m"] == ["ACME", "1m", "ok", "390", "390", "XNYS", "none"]
    assert rows["ACME", "1d"] == ["ACME", "1d", "warn", "58", "61", "XNYS", "gaps", "1"]
    assert rows["NOCAL", "1d"][4] == "–"
    assert "2024-01-31T00:00:00Z" in done.out
    assert "note: " in done.out, "a series without a calendar says that its gaps were not judged"


def test_a_check_in_every_format(data: Command) -> None:
    verdicts = told(data, "check --symbol acme")
    assert [(each["timeframe"], each["status"]) for each in verdicts] == [("1m", "ok"), ("1d", "warn")]
    assert yaml.safe_load(data("check --symbol ACME", output="yaml").out) == verdicts
    (row,) = csv.DictReader(io.StringIO(data("check --symbol ACME", output="csv").out))
    finding = verdicts[1]["findings"][0]
    assert row == {"symbol": "ACME", "timeframe": "1d"} | {
        name: str(value) for name, value in finding.items()
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--symbol ACME --timeframe 1d", [("ACME", 58, 1)]),
        ("--symbol NOCAL --symbol ACME --timeframe 1d", [("ACME", 58, 1), ("NOCAL", 9, 0)]),
        ("--symbol ACME --timeframe 1d --end 2024-01-30", [("ACME", 20, 0)]),
        ("--symbol ACME --timeframe 1d --start 2024-02-05", [("ACME", 38, 0)]),
        ("--timeframe 1w", []),
    ],
)
def test_a_check_of_some(data: Command, words: str, expected: list[tuple[str, int, int]]) -> None:
    found = told(data, f"check {words}")
    gaps = [[each for each in verdict["findings"] if each["rule"] == "gaps"] for verdict in found]
    assert [(v["symbol"], v["bars"], len(g)) for v, g in zip(found, gaps, strict=True)] == expected


def test_a_check_of_an_older_version(data: Command, lake: Lake) -> None:
    old = lake.snapshots()[0].id
    lake.upsert(ACME, "1d", walk(labels("XNYS", "1d", "2024-01-02", "2024-03-28")), source="csv")
    assert [each["status"] for each in told(data, "check --symbol ACME")] == ["ok", "ok"]
    assert [each["status"] for each in told(data, f"check --as-of {old}")] == ["warn"]


def test_a_table_shows_some_findings_and_says_how_to_see_all(data: Command, lake: Lake) -> None:
    days = walk(labels("XNYS", "1d", "2019-01-02", "2023-12-29"))
    holes = without(days, *range(10, 10 + 25 * 10, 10))
    lake.upsert(Instrument(symbol="HOLES", calendar="XNYS"), "1d", holes, source="csv")
    done = data("check --symbol HOLES")
    assert done.out.count("gaps ") == 21, "once in the list of series"
    assert "5 more: --output json, or --html FILE, shows all" in done.out
    assert len(told(data, "check --symbol HOLES")[0]["findings"]) == 25


def test_an_empty_lake(data: Command, lake: Lake) -> None:
    for timeframe, symbol in (("1m", "ACME"), ("1d", "ACME"), ("1d", "NOCAL")):
        lake.remove(symbol, timeframe)
    assert data("check").out == "the lake has nothing to check\n"
    assert told(data, "check") == []
    assert data("check", output="csv").out == ""


def test_a_page_is_written_beside_the_table(data: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("of yesterday")
    done = data("check --symbol ACME --html", page)
    assert done.code == 0
    assert f"page: {page}" in done.err
    assert "ACME" in done.out
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "2024-01-31" in text
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".html"] == ["page.html"]
    assert json.loads(data("check --html", page, output="json").out)


@pytest.mark.parametrize("file", ["no/such/folder/x.html", "/proc/x.html", "/dev/null/x", ".", "/", ".."])
def test_a_page_that_cannot_be_written_is_said(
    data: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    refused(data("check --html", file), "cannot be written")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "--symbol", "../../x"], "a symbol is 1 to 32"),
        (["check", "--symbol", ""], "a symbol is 1 to 32"),
        (["check", "--symbol", "ACMEE"], "did you mean 'ACME'"),
        (["check", "--timeframe", "2d"], "'2d' is not known"),
        (["check", "--start", "soon"], "start"),
        (["check", "--start", "2024-02-01", "--end", "2024-01-01"], "is after end"),
        (["check", "--as-of", "ffffffff"], "no snapshot ffffffff"),
        (["instrument", "../../x"], "a symbol is 1 to 32"),
        (["instrument", "ACMEE"], "did you mean 'ACME'"),
        (["instrument", "😀"], "a symbol is 1 to 32"),
        (["instrument", "ACME", "--as-of", "2001-01-01"], "no snapshot at 2001-01-01"),
        (["instrument", "ACMEE", "--set", "tick=1"], "did you mean 'ACME'"),
        (["instrument", "ACME", "--set", "tick"], "is not NAME=VALUE"),
        (["instrument", "ACME", "--set", "tick="], "is not NAME=VALUE"),
        (["instrument", "ACME", "--set", "tick=1", "--set", "tick=2"], "is given twice"),
        (["instrument", "ACME", "--set", "tik=1"], "did you mean 'tick'"),
        (["instrument", "ACME", "--set", "tick=0"], "greater than 0"),
        (["instrument", "ACME", "--set", "tick=nan"], "finite number"),
        (["instrument", "ACME", "--set", "bars_a_year=inf"], "less than or equal to 366"),
        (["instrument", "ACME", "--set", "fractional=perhaps"], "fractional"),
        (["instrument", "ACME", "--set", "calendar=XNYSE"], "did you mean 'XNYS'"),
        (["instrument", "ACME", "--unset", "tik"], "did you mean 'tick'"),
        (["instrument", "ACME", "--set", "tick=1", "--unset", "tick"], "is set by the same command"),
        (["instrument", "ACME", "--set", "tick=1", "--as-of", "2026-01-01"], "facts are set in the newest"),
        (["actions", "ACMEE"], "did you mean 'ACME'"),
        (["actions", "ACME", "--as-of", "ffffffff"], "no snapshot"),
        (["actions", "ACME", "--file", "no-such.csv"], "does not exist"),
        (["actions", "ACME", "--file", "/tmp"], "does not exist"),
        (["quote", "ACMEE"], "did you mean 'ACME'"),
        (["quote", "..", "--source", "sample"], "a symbol is 1 to 32"),
        (["quote", "ACME", "--source", "yahooo"], "did you mean 'yahoo'"),
        (["quote", "ACME", "--source", "sample"], "gives no quotes"),
        (["remove", "ACMEE"], "did you mean 'ACME'"),
        (["remove", "ACME", "--timeframe", "1w"], "ACME is not stored as 1w bars"),
        (["remove", "ACME", "--timeframe", "2d"], "'2d' is not known"),
        (["remove", "ACME/../x"], "a symbol is 1 to 32"),
    ],
)
def test_what_is_refused_changes_nothing(data: Command, lake: Lake, words: list[str], said: str) -> None:
    before = lake.snapshots()
    refused(data(*words), said)
    assert lake.snapshots() == before
    document = json.loads(data(*words, output="json").err)
    assert said in json.dumps(document, ensure_ascii=False)


# instrument


def test_an_instrument_is_shown_with_its_series(data: Command) -> None:
    done = data("instrument acme")
    assert done.code == 0
    assert [line.split() for line in done.out.splitlines()[:3]] == [
        ["symbol", "ACME"],
        ["venue", "unknown"],
        ["calendar", "XNYS"],
    ]
    assert "Acme Corp." in done.out
    assert "set by hand" not in done.out
    assert told(data, "instrument ACME")["instrument"] == ACME.model_dump(mode="json")
    rows = list(csv.DictReader(io.StringIO(data("instrument ACME", output="csv").out)))
    assert [(row["timeframe"], row["bars"]) for row in rows] == [("1m", "390"), ("1d", "58")]


def test_facts_are_set_and_left_to_the_sources_again(data: Command, lake: Lake) -> None:
    words = "--set tick=0.25 --set shortable=false --set name=7203 --set venue=XTKS --set calendar=24/7"
    done = data(f"instrument acme {words}")
    assert done.code == 0, done.err
    assert "set by hand: bars_a_year, calendar, name, session_minutes, shortable, tick, venue" in done.out
    found = lake.instrument("ACME")
    assert (str(found.tick), found.shortable, found.name, found.venue) == ("0.25", False, "7203", "XTKS")
    assert (found.calendar, found.bars_a_year, found.session_minutes) == ("24/7", 365, 1440)
    left = told(data, "instrument ACME --unset calendar --unset tick --set bars_a_year=250")["instrument"]
    assert left["edited"] == ["bars_a_year", "name", "session_minutes", "shortable", "venue"]
    assert (left["bars_a_year"], left["tick"], left["calendar"]) == (250.0, "0.25", "24/7")


@pytest.mark.parametrize(
    "name", ["[bold]x[/bold]", "[/]", "=cmd|'/C calc'!A0", "a=b", "tick=1", "Ünïcode 😀"]
)
def test_a_name_is_text_and_nothing_else(data: Command, lake: Lake, name: str) -> None:
    done = data("instrument ACME --set", f"name={name}")
    assert done.code == 0, done.err
    assert lake.instrument("ACME").name == name
    assert name in done.out


def test_an_older_version_is_shown(data: Command, lake: Lake) -> None:
    old = lake.snapshots()[0].id
    data("instrument ACME --set tick=0.25")
    assert told(data, f"instrument ACME --as-of {old[:8]}")["instrument"]["tick"] == "0.01"
    assert len(told(data, f"instrument ACME --as-of {old}")["series"]) == 1


# actions

GOOD = "ex_date,split,dividend\n2024-02-01,,0.25\n2024-01-10,4,\n"


def test_actions_are_replaced_from_a_file(data: Command, lake: Lake, tmp_path: Path) -> None:
    assert "no split and no dividend of ACME is known" in data("actions acme").out
    assert told(data, "actions ACME") == []
    file = tmp_path / "actions.csv"
    file.write_text("\ufeff" + GOOD, encoding="utf-8")
    done = data("actions acme --file", file)
    assert done.code == 0, done.err
    assert [line.split() for line in done.out.splitlines()[2:]] == [
        ["2024-01-10", "4", "0"],
        ["2024-02-01", "1", "0.25"],
    ]
    stored = lake.actions("ACME")
    expected = CorporateActions.of({date(2024, 1, 10): 4.0}, {date(2024, 2, 1): 0.25})
    assert stored is not None
    assert stored.logical_hash == expected.logical_hash
    old = lake.snapshots()[-2].id
    assert told(data, f"actions ACME --as-of {old}") == []
    assert data("actions ACME", output="csv").out.splitlines() == [
        "ex_date,split,dividend",
        "2024-01-10,4.0,0.0",
        "2024-02-01,1.0,0.25",
    ]
    again = tmp_path / "again.csv"
    again.write_text(data("actions ACME", output="csv").out)
    before = lake.snapshots()
    assert data("actions ACME --file", again).code == 0
    assert lake.snapshots() == before, "what a listing prints is what a file may hold"
    again.write_text("ex_date\n")
    assert told(data, "actions ACME --file", again) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has other columns than expected"),
        ("date,split\n2024-01-10,2\n", "allowed: ex_date, split, dividend"),
        ("ex_date,ratio\n2024-01-10,2\n", "has other columns"),
        ("ex_date,split,split\n2024-01-10,2,3\n", "has other columns"),
        ("ex_date;split\n2024-01-10;2\n", "has other columns"),
        ("ex_date,split\n2024-01-10,2,0.5\n", "row 1 has more cells than columns"),
        ("ex_date,split\n2024-01-10,2\n2024-01-11,2,5\n", "row 2 has more cells"),
        ("ex_date,split\nyesterday,2\n", "items.0.ex_date"),
        ("ex_date,split\n,2\n", "items.0.ex_date"),
        ("ex_date,split\n2024-01-10,0\n", "items.0.split"),
        ("ex_date,split\n2024-01-10,nan\n", "items.0.split"),
        ("ex_date,dividend\n2024-01-10,\n2024-01-11,-1\n", "items.1.dividend"),
        ("ex_date,split\n2024-01-10,2\n2024-01-10,3\n", "two rows have the same ex_date"),
        ('ex_date,split\n"2024-01-10,2\n', "is no CSV in UTF-8"),
        (b"ex_date,split\n2024-01-10,\xff\n", "is no CSV in UTF-8"),
        (b"PAR1\x00\x15\x04", "other columns"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_nothing_changes(
    data: Command, lake: Lake, tmp_path: Path, content: str | bytes, said: str
) -> None:
    file = tmp_path / "actions.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    before = lake.snapshots()
    refused(data("actions ACME --file", file), said)
    assert lake.snapshots() == before


# quote and remove


def test_a_quote_of_bars_from_a_file_is_the_newest_close(data: Command, lake: Lake) -> None:
    close = lake.raw_bars("NOCAL").close[-1]
    found = told(data, "quote nocal")
    assert (found["kind"], found["source"], found["last"]) == ("bar", "csv", close)
    shown = data("quote NOCAL").out
    assert "2019-12-10T00:00:00Z" in shown
    assert "bid" not in shown, "what nobody said is not shown"


def test_a_series_is_removed_and_older_versions_keep_it(data: Command, lake: Lake) -> None:
    old = lake.current()
    assert old is not None
    done = data("remove acme")
    new = lake.current()
    assert new is not None
    assert (done.code, done.out) == (0, f"removed ACME 1d; snapshot {new.id}\n")
    assert [each["timeframe"] for each in told(data, "instrument ACME")["series"]] == ["1m"]
    assert told(data, f"show ACME --as-of {old.id} --limit 100")["bars"] == 58
    assert told(data, "remove ACME --timeframe 1m")["timeframe"] == "1m"
    refused(data("remove ACME --timeframe 1m"), "ACME is not stored as 1m bars")


def test_without_the_right_key_nothing_is_said(data: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_TRADER_API_KEY", "gtk_wrong-key-hunter2")
    for words in ("check", "instrument ACME", "actions ACME", "quote ACME", "remove ACME"):
        denied = data(words)
        assert (denied.code, denied.out) == (4, "")
        assert "hunter2" not in denied.err


def test_a_page_is_as_private_as_any_new_file(data: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    data("check --html", page)
    other = tmp_path / "other"
    other.touch()
    assert stat.S_IMODE(page.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)
