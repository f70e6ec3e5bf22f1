"""An ingest from a vendor that fails in every way it can, killed over and over: in the end every bar is there, once.

Row 1 and 2 of the fault matrix. The vendor is the loopback fake of Alpaca, the ingest a process of its own.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from gpt_trader.calendars import calendar, expected_labels
from storage.lake import Lake
from tests.fakes.alpaca_server import KEY, SECRET, AlpacaServer, Fault, asset, row

ROOT = Path(__file__).parents[2]
SYMBOLS = ("AAPL", "MSFT", "IBM")

#: Ingests the minutes of three stocks; commits every page that has come, so that a kill falls between many commits.
INGEST = """
import sys
from datetime import date
from pathlib import Path
from gpt_trader.adapters.alpaca import AlpacaSource
from gpt_trader.adapters.patience import Patience, RateLimit
from gpt_trader.requests import DataRequest
from pydantic import SecretStr
from storage.lake import Lake
from tasks import fetching
from tasks.ingest_plan import Series
fetching.COMMIT_SECONDS, fetching.COMMIT_BARS = 0.02, 500
url, root, *symbols = sys.argv[1:]
key, secret = sys.stdin.readline().split()
account = {"key": SecretStr(key), "secret": SecretStr(secret)}
source = AlpacaSource(account, url, patience=Patience(first_wait=0.01), limit=RateLimit(10_000, 1))
request = DataRequest(symbols=symbols, source="alpaca", start=date(2024, 1, 2))
done = fetching.Fetching(request, Lake(Path(root)), lambda _: source).run(
    [Series(symbol, "1m", "alpaca") for symbol in symbols], lambda *_: None
)
errors = [str(outcome.error) for outcome in done if outcome.error]
sys.exit("; ".join(errors) or None)
"""


@pytest.fixture
def vendor() -> Iterator[AlpacaServer]:
    with AlpacaServer().serving() as fake:
        labels = expected_labels(
            calendar("XNYS"),
            "1m",
            datetime(2024, 1, 2, tzinfo=UTC).date(),
            datetime(2024, 3, 28, tzinfo=UTC).date(),
        )
        for place, symbol in enumerate(SYMBOLS):
            fake.assets.append(asset(symbol))
            fake.bars[symbol, "1Min"] = [
                row(label.item().replace(tzinfo=UTC), 100.0 + place + (n % 97) / 10)
                for n, label in enumerate(labels)
            ]
        fake.page_size = 1_500
        yield fake


def faults(dice: random.Random) -> list[Fault]:
    """Return what goes wrong on the way: limits of rate, server errors, cut and lost answers."""
    kinds = (
        Fault(status=429, headers={"Retry-After": "0"}, path="/v2/stocks"),
        Fault(status=500, path="/v2/stocks"),
        Fault(status=503, path="/v2/stocks"),
        Fault(kind="cut", path="/v2/stocks"),
        Fault(kind="lost", path="/v2/stocks"),
        Fault(kind="cut", path="/v2/stocks", later_page=True),
    )
    return [dice.choice(kinds) for _ in range(dice.randrange(4))]


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_a_killed_ingest_ends_with_every_bar_once(
    vendor: AlpacaServer, tmp_path: Path, kills: int, figure: Callable[[str], None]
) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    lake = tmp_path / "lake"
    for _ in range(kills):
        vendor.faults.extend(faults(dice))
        process = _started(vendor, lake)
        try:
            process.wait(timeout=dice.uniform(0.8, 2.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        _whole_so_far(lake, vendor, f"seed {seed}")
    vendor.faults.clear()
    process = _started(vendor, lake)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, f"seed {seed}: {said}"
    wrong = {symbol: _differences(lake, vendor, symbol) for symbol in SYMBOLS}
    figure(f"{kills} kills, bad, duplicate or missing bars: {wrong}, seed {seed}")
    assert set(wrong.values()) == {0}, f"seed {seed}"


def _started(vendor: AlpacaServer, lake: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", INGEST, vendor.url, str(lake), *SYMBOLS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(f"{KEY} {SECRET}\n")
    process.stdin.flush()
    return process


def _whole_so_far(root: Path, vendor: AlpacaServer, said: str) -> None:
    """Whatever is stored is the vendor's, without a hole, from its first bar on."""
    lake = Lake(root)
    for symbol, timeframe in lake.manifest().entries:
        stored = lake.raw_bars(symbol, timeframe)
        given = _times(vendor, symbol)[: len(stored)]
        assert np.array_equal(stored.time, given), said


def _differences(root: Path, vendor: AlpacaServer, symbol: str) -> int:
    stored = Lake(root).raw_bars(symbol, "1m")
    given = _times(vendor, symbol)
    if not np.array_equal(stored.time, given):
        return abs(len(stored) - len(given)) or int((stored.time != given).sum())
    closes = np.array([each["c"] for each in vendor.bars[symbol, "1Min"]])
    return int((stored.close != closes).sum())


def _times(vendor: AlpacaServer, symbol: str) -> np.ndarray[tuple[int, ...], np.dtype[np.datetime64]]:
    return np.array([each["t"].removesuffix("Z") for each in vendor.bars[symbol, "1Min"]], "datetime64[us]")
