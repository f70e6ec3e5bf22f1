"""The check of a strategy over REST: the document, users' files in a process of their own, refusals."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from api.check_process import CheckProcesses, Task, TooManyChecks
from gpt_trader.backtesting.findings import StrategyCheck
from gpt_trader.errors import Refused
from gpt_trader.strategies.user import stored_id
from tests.api.conftest import Engine
from tests.api.test_health_and_errors import problem
from tests.bars_factory import bars_of

HEAD = """
import os, sys
import numpy as np
from pydantic import Field
from gpt_trader.strategies.base import Strategy

"""
TOMORROW = (
    HEAD
    + """
class Mine(Strategy):
    n: int = Field(default=3, ge=1)

    def targets(self, bars, first=0):
        print("nothing of this is to be seen")
        wanted = np.zeros(len(bars))
        wanted[:-1] = bars.close[1:] > bars.close[:-1]
        wanted[:first] = 0
        return wanted
"""
)


def does(code: str) -> str:
    """A strategy whose `targets` does this."""
    return HEAD + f"\nclass Mine(Strategy):\n    def targets(self, bars, first=0):\n        {code}\n"


def stored(engine: Engine, source: str) -> str:
    answer = engine.http.post("/strategies", json={"filename": "mine.py", "source": source})
    assert answer.status_code == 201, answer.text
    return stored_id(source.encode(), "Mine")


def check(engine: Engine, name: str, **body: Any) -> httpx.Response:
    return engine.http.post(f"/strategies/{name}/check", json={"symbol": "ACME", **body})


def test_a_registered_strategy_is_checked_within_two_seconds(engine_api: Engine) -> None:
    started = time.monotonic()
    answer = check(engine_api, "ma-crossover", params={"fast": 5, "slow": 12}, start="2020-03-01")
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - started < 10, "measured 0.6 s; the machine may be busy"
    found = StrategyCheck.model_validate(answer.json())
    assert (found.verdict, found.findings) == ("ok", ())
    assert (found.symbol, found.bars, found.history) == ("ACME", 240, 60)
    assert found.params == {"fast": 5, "slow": 12}
    assert found.snapshot_id == engine_api.context.lake.current().id  # type: ignore[union-attr]
    assert found.warmup is not None
    assert found.warmup.suffices is True


def test_a_stored_file_that_looks_ahead_is_told_with_bar_and_column(engine_api: Engine) -> None:
    found = check(engine_api, stored(engine_api, TOMORROW)).json()
    assert found["verdict"] == "problems"
    (finding,) = found["findings"]
    assert (finding["check"], finding["severity"], finding["column"]) == ("look-ahead", "error", "close")
    assert finding["bar"].startswith("2020-")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("return bars.close / 0 if len(bars) > 200 else bars.nothing", "AttributeError"),
        ("raise RuntimeError('x' * 5000)", "RuntimeError: xxx"),
        ("sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_what_raises_is_a_finding_with_its_line(engine_api: Engine, code: str, said: str) -> None:
    (finding,) = check(engine_api, stored(engine_api, does(code))).json()["findings"]
    assert finding["check"] == "runs"
    assert said in finding["message"]
    assert "line 10, in targets: `" in finding["message"]


@pytest.mark.parametrize(
    "code",
    [
        "os._exit(3)",
        "x = bytearray(3 * 2**30)",
        "os.kill(os.getpid(), 9)",
        "os.write(3, b'{}' * 2**20); os._exit(0)",
    ],
)
def test_a_strategy_takes_nothing_but_its_own_process_with_it(engine_api: Engine, code: str) -> None:
    answer = check(engine_api, stored(engine_api, does(code)))
    if answer.status_code == 200:  # out of memory is an exception like any other
        assert "MemoryError" in answer.json()["findings"][0]["message"]
    else:
        assert "ended the process of its check" in problem(answer, 422, "refused-input")["detail"]
    assert check(engine_api, "momentum").status_code == 200


def test_it_sees_no_environment_and_writes_no_file(engine_api: Engine) -> None:
    path = engine_api.home.root / "written"
    code = f"raise RuntimeError(repr(sorted(os.environ)) + repr(open({str(path)!r}, 'w').write('x' * 9000)))"
    (finding,) = check(engine_api, stored(engine_api, does(code))).json()["findings"]
    assert "OSError" in finding["message"]
    assert not path.exists() or path.read_text() == ""
    (finding,) = check(
        engine_api, stored(engine_api, does("raise RuntimeError(repr(sorted(os.environ)))"))
    ).json()["findings"]
    assert "GPT_TRADER" not in finding["message"]
    assert "OPENBLAS_NUM_THREADS" in finding["message"]


def test_wrong_input_is_refused_by_field(engine_api: Engine) -> None:
    unknown = problem(check(engine_api, "momentun"), 404, "not-found")
    assert unknown["errors"][0]["nearest"] == "momentum"
    problem(check(engine_api, stored_id(b"gone", "Mine")), 404, "not-found")
    symbol = problem(check(engine_api, "momentum", symbol="ACMEE"), 422, "unknown-name")
    assert (symbol["errors"][0]["field"], symbol["errors"][0]["nearest"]) == ("symbol", "ACME")
    params = problem(check(engine_api, "momentum", params={"lokback": 3}), 422, "refused-input")
    assert params["errors"][0] == {
        "field": "params.lokback", "value": 3, "message": "is not a known field",
        "allowed": "lookback, threshold, hold", "nearest": "lookback",
    } | {"allowed": params["errors"][0]["allowed"]}  # fmt: skip
    problem(check(engine_api, "momentum", start="2030-01-01"), 422, "not-enough-bars")
    problem(check(engine_api, "momentum", start="2021-01-01", end="2020-01-01"), 422, "refused-input")
    assert "1d" in problem(check(engine_api, "momentum", timeframe="1day"), 422, "refused-input")["detail"]
    problem(check(engine_api, "momentum", snapshot="f" * 32), 404, "not-found")
    bad = stored(engine_api, HEAD + "x = 1 / 0\nclass Mine(Strategy):\n    pass\n")
    assert "line 7, does not run" in problem(check(engine_api, bad), 422, "refused-input")["detail"]


def test_it_needs_the_scope_research(engine_api: Engine) -> None:
    headers = {"Authorization": "Bearer key-of-eve"}
    answer = engine_api.http.post("/strategies/momentum/check", json={}, headers=headers)
    problem(answer, 403, "denied")


def task(source: str) -> Task:
    return Task("mine", source.encode(), "Mine", {}, "long", bars_of([1, 2, 3, 4]), 0, None)


async def test_one_that_takes_too_long_is_ended() -> None:
    processes = CheckProcesses(seconds=1.5)
    with pytest.raises(Refused, match=r"was not checked within 1\.5 s: give a shorter range"):
        await processes.checked(task(does("\n        while True: pass")))


async def test_no_more_than_so_many_at_once() -> None:
    processes = CheckProcesses(at_once=1, patience=0.05)
    async with processes.place():
        with pytest.raises(TooManyChecks, match="1 checks are running"):
            async with processes.place():
                pass
    async with processes.place():
        pass
