"""The optimize flow: the same best whichever way it is asked for, and after being killed on its way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Screens the whole space of a strategy in chunks, as the flow does, and prints the hash of the rows.
SWEEP = """
import hashlib, sys
from pathlib import Path
import numpy as np
from gpt_trader.backtesting.execution import load_vectorbt
from gpt_trader.bars import Bars
from gpt_trader.instruments import Instrument
from gpt_trader.optimization.space import search_space, trial_numbers
from gpt_trader.optimization.study import Screened, Study
from gpt_trader.requests import OptimizeRequest
from gpt_trader.strategies.registry import strategy_type
from tasks import optimize
optimize.CHUNK = 20
done = Path(sys.argv[1])
random = np.random.default_rng(1)
close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, 600)))
time = np.datetime64("2010-01-04", "us") + np.arange(600) * np.timedelta64(1, "D")
bars = Bars(Instrument(symbol="T"), "1d", time, close, close * 1.01, close * 0.99, close, close, logical_hash="t")
request = OptimizeRequest(
    symbol="T",
    strategy="ma_crossover",
    space={"fast": {"low": 2, "high": 21}, "slow": {"low": 22, "high": 41}},
)
strategy = strategy_type("ma_crossover")
space = search_space(strategy, request)
study = Study(bars, 0, strategy, space, request)
parts = []
for place, numbers in enumerate(optimize.chunks(trial_numbers(space, request))):
    before = done.stat().st_size if done.exists() else 0
    original = Study.screen
    def counted(self, numbers):
        with done.open("a") as log:
            log.write(f"{numbers[0]}\\n")
        return original(self, numbers)
    Study.screen = counted
    parts.append(optimize.screen.fn(study, numbers, place))
    Study.screen = original
    if len(sys.argv) > 2 and place == int(sys.argv[2]):
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
rows = Screened.of(parts)
print(hashlib.sha256(rows.number.tobytes() + rows.state.tobytes() + rows.rows.tobytes()).hexdigest())
"""


def swept(home: Path, log: Path, *stop: int) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GPT_TRADER_", "PREFECT_"))}
    return subprocess.run(
        [sys.executable, "-P", "-c", SWEEP, str(log), *map(str, stop)],
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
def test_killed_five_times_it_redoes_nothing_and_ends_bit_equal(tmp_path: Path) -> None:
    undisturbed = swept(tmp_path / "a", tmp_path / "a.log")
    assert undisturbed.returncode == 0, undisturbed.stderr
    for stop in (2, 5, 9, 13, 17):
        assert swept(tmp_path / "b", tmp_path / "b.log", stop).returncode == -signal.SIGKILL
    resumed = swept(tmp_path / "b", tmp_path / "b.log")
    assert resumed.stdout == undisturbed.stdout
    chunks = (tmp_path / "b.log").read_text().split()
    assert len(chunks) == len(set(chunks)) == 20
