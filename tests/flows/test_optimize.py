"""The optimize flow: the same outcome after being killed on its way, with nothing done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.house

ROOT = Path(__file__).parents[2]

#: Searches a strategy's space in chunks, as the flow does, and prints the hash of the rows; may kill itself on its way.
SWEEP = """
import hashlib, sys
from pathlib import Path
import numpy as np
from gpt_trader.backtesting.execution import load_vectorbt
from gpt_trader.bars import Bars
from gpt_trader.instruments import Instrument
from gpt_trader.optimization.search import searched
from gpt_trader.optimization.space import search_space
from gpt_trader.optimization.study import Screened, Study
from gpt_trader.requests import OptimizeRequest
from gpt_trader.strategies.registry import strategy_type
from tasks import optimize
optimize.CHUNK = 20
method, done, stop = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
random = np.random.default_rng(1)
close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, 600)))
time = np.datetime64("2010-01-04", "us") + np.arange(600) * np.timedelta64(1, "D")
bars = Bars(Instrument(symbol="T"), "1d", time, close, close * 1.01, close * 0.99, close, close, logical_hash="t")
request = OptimizeRequest(
    symbol="T",
    strategy="ma_crossover",
    space={"fast": {"low": 2, "high": 21}, "slow": {"low": 22, "high": 41}},
    method=method,
    trials=None if method == "grid" else 120,
    patience=100 if method == "random" else None,
)
strategy = strategy_type("ma_crossover")
space = search_space(strategy, request)
study = Study(bars, 0, strategy, space, request)
original = Study.screen
def counted(self, numbers):
    with done.open("a") as log:
        log.write(f"{hash(tuple(numbers))}\\n")
    return original(self, numbers)
Study.screen = counted
place = 0
def screen(numbers):
    global place
    parts = []
    for part in optimize.chunks(numbers):
        parts.append(optimize.screen.fn(study, part, place))
        if place == stop:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        place += 1
    return Screened.of(parts)
rows = searched(study, screen).screened
print(hashlib.sha256(rows.number.tobytes() + rows.state.tobytes() + rows.rows.tobytes()).hexdigest())
"""


def swept(method: str, home: Path, log: Path, stop: int = -1) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GPT_TRADER_", "PREFECT_"))}
    return subprocess.run(
        [sys.executable, "-P", "-c", SWEEP, method, str(log), str(stop)],
        cwd=ROOT,
        env={
            **environment,
            "GPT_TRADER_HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(home / "p"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "stops", "chunks"),
    [("grid", (2, 5, 9, 13, 17), 20), ("random", (3,), 6), ("tpe", (0, 1, 1, 4), 6)],
)
def test_killed_several_times_it_redoes_nothing_and_ends_bit_equal(
    tmp_path: Path, method: str, stops: tuple[int, ...], chunks: int
) -> None:
    undisturbed = swept(method, tmp_path / "a", tmp_path / "a.log")
    assert undisturbed.returncode == 0, undisturbed.stderr
    for stop in stops:
        assert swept(method, tmp_path / "b", tmp_path / "b.log", stop).returncode == -signal.SIGKILL
    resumed = swept(method, tmp_path / "b", tmp_path / "b.log")
    assert resumed.stdout == undisturbed.stdout
    done = (tmp_path / "b.log").read_text().split()
    assert len(done) == len(set(done)) == chunks
