"""Shell → result: our command with the engine up, against a plain backtesting.py script doing the same work.

Both are started as a user starts them, in turns: `python -P benchmarks/shell.py [--rounds 20]`. The same work:
SMA(10) over SMA(30), long only, daily AAPL sample (adjusted), next-open fills, 0.1 % commission; final equities must
agree. Ours also keeps the run, writes an HTML report and a picture; the script prints its statistics and draws nothing.
Targets: median ≤ 1.5 s, below the script's, p99 ≤ 2 × median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = (
    *("--output", "json", "backtest", "--symbol", "AAPL", "--strategy", "ma_crossover"),
    *("--commission", "0.001", "--slippage", "0", "--capital", "10000"),
)
SCRIPT = """
import warnings
warnings.simplefilter("ignore")
import pandas as pd
from importlib import resources
from backtesting import Strategy
from backtesting.lib import FractionalBacktest

path = resources.files("bokeh_sampledata") / "_data" / "stocks.csv.gz"
frame = pd.read_csv(path)
frame = frame[frame["Ticker"] == "AAPL"].set_index("Date")
frame.index = pd.to_datetime(frame.index)
factor = frame["Adj Close"] / frame["Close"]
for name in ("Open", "High", "Low", "Close"):
    frame[name] = frame[name] * factor

class Cross(Strategy):
    def init(self):
        close = self.data.Close.s
        self.above = self.I(lambda: (close.rolling(10).mean() > close.rolling(30).mean()).astype(float))

    def next(self):
        if self.above[-1]:
            if not self.position:
                self.buy(size=1 - 1e-12)
        elif self.position:
            self.position.close()

stats = FractionalBacktest(frame, Cross, cash=10_000, commission=0.001, fractional_unit=1e-9).run()
print(stats["Equity Final [$]"])
print(stats)
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=20)
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="gt-bench-") as folder:
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("GPT_TRADER_", "PREFECT_"))
            },
            "GPT_TRADER_HOME": f"{folder}/home",
        }
        ports = {"GPT_TRADER_API_PORT": "0", "GPT_TRADER_PREFECT_PORT": "0"}
        script = Path(folder) / "script.py"
        script.write_text(SCRIPT)
        command = [str(ROOT / "gpt-trader"), *OURS]
        timed(command, {**environment, **ports})  # starts the engine, ingests, warms up
        try:
            ours, theirs = [], []
            for _ in range(rounds):
                seconds, printed = timed(command, environment)
                ours.append(seconds)
                equity = json.loads(printed)["metrics"]["final_equity"]
                seconds, printed = timed([sys.executable, str(script)], environment)
                theirs.append(seconds)
                if abs(float(printed.split()[0]) / equity - 1) > 1e-6:
                    raise SystemExit(f"they did not do the same work: {equity} and {printed.split()[0]}")
        finally:
            subprocess.run(
                [str(ROOT / "gpt-trader"), "down"], env=environment, check=True, capture_output=True
            )
    show(ours, theirs)


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr}")
    return seconds, done.stdout


def show(ours: list[float], theirs: list[float]) -> None:
    print(f"shell → result, seconds, {len(ours)} rounds in turns")
    for name, values in (("gpt-trader backtest, engine up", ours), ("backtesting.py script", theirs)):
        median, last = (
            statistics.median(values),
            sorted(values)[min(len(values) - 1, int(0.99 * len(values)))],
        )
        print(f"  {name:32} median {median:6.3f}  p99 {last:6.3f}  p99/median {last / median:5.2f}")
    print(f"  ours / script {statistics.median(ours) / statistics.median(theirs):.2f}")


if __name__ == "__main__":
    main()
