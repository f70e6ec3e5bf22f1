"""Shell → result: our command with the engine up, against a plain backtesting.py script doing the same work.

All are started as a user starts them, in turns: `python -P benchmarks/shell.py [--rounds 20]`. The same work:
SMA(10) over SMA(30), long only, daily AAPL sample (adjusted), next-open fills, 0.1 % commission; final equities must
agree. Like is set beside like: numbers alone (ours `--no-report`, the script prints its statistics), and with a report
(ours: HTML and PNG; the script: its own interactive HTML plot). Ours also keeps the run, either way.
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

backtest = FractionalBacktest(frame, Cross, cash=10_000, commission=0.001, fractional_unit=1e-9)
stats = backtest.run()
print(stats["Equity Final [$]"])
print(stats)
"""

#: Run after the script: what makes its report.
PLOT = "import sys\nbacktest.plot(filename=sys.argv[1], open_browser=False)\n"


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
        script, plotting = Path(folder) / "script.py", Path(folder) / "plotting.py"
        script.write_text(SCRIPT)
        plotting.write_text(SCRIPT + PLOT)
        ours = [str(ROOT / "gpt-trader"), *OURS]
        timed(ours, {**environment, **ports})  # starts the engine, ingests, warms up
        commands = {
            "numbers: gpt-trader --no-report": [*ours, "--no-report"],
            "numbers: backtesting.py script": [sys.executable, str(script)],
            "report: gpt-trader": ours,
            "report: backtesting.py with plot": [sys.executable, str(plotting), f"{folder}/plot.html"],
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        try:
            for _ in range(rounds):
                equities = []
                for name, command in commands.items():
                    seconds, printed = timed(command, environment)
                    taken[name].append(seconds)
                    equities.append(equity_in(printed))
                if max(equities) / min(equities) - 1 > 1e-6:
                    raise SystemExit(f"they did not do the same work: {equities}")
        finally:
            subprocess.run(
                [str(ROOT / "gpt-trader"), "down"], env=environment, check=True, capture_output=True
            )
    show(taken)


def equity_in(printed: str) -> float:
    return float(
        json.loads(printed)["metrics"]["final_equity"]
        if printed.startswith("{")
        else printed.split(maxsplit=1)[0]
    )


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr}")
    return seconds, done.stdout


def show(taken: dict[str, list[float]]) -> None:
    print(f"shell → result, seconds, {len(next(iter(taken.values())))} rounds in turns")
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, values in taken.items():
        last = sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]
        print(
            f"  {name:34} median {medians[name]:6.3f}  p99 {last:6.3f}  p99/median {last / medians[name]:5.2f}"
        )
    ours, theirs, ours_report, theirs_report = medians.values()
    print(f"  ours / script: numbers {ours / theirs:.2f}, with report {ours_report / theirs_report:.2f}")


if __name__ == "__main__":
    main()
