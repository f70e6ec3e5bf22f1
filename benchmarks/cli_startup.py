"""What the command line itself costs: `--help`, `--version`, and its share of a backtest.

The share is measured against a server on loopback that answers at once (tests/cli/contract_server.py), so what is
left is interpreter, imports, checks, HTTP and rendering. Run: python -m benchmarks.cli_startup [REPEATS]
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cli.contract_server import Contract, serving

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "bare interpreter": [sys.executable, "-c", "pass"],
    "import typer": [sys.executable, "-c", "import typer"],
    "--version": ["--version"],
    "--help": ["--help"],
    "strategy list": ["strategy", "list"],
    "backtest, refused locally": ["backtest", "--symbol", "AAPL", "--strategy", "momentun"],
    "backtest, table": ["backtest", "--symbol", "AAPL", "--strategy", "ma_crossover", "--param", "fast=5"],
    "backtest, json": ["--output", "json", "backtest", "--symbol", "AAPL", "--strategy", "ma_crossover"],
}
LIMITS = {"--version": 0.3, "--help": 0.3}


def seconds(words: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Return wall clock and processor time of one command: the second is the one that other load leaves alone."""
    command = words if words[0] == sys.executable else [sys.executable, "-m", "gpt_trader", *words]
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=False, timeout=60)
    wall, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def main() -> int:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    late = []
    with tempfile.TemporaryDirectory() as home, serving(Contract()) as server:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "GPT_TRADER_HOME": home}
        remote = env | {"GPT_TRADER_SERVER": server.url, "GPT_TRADER_API_KEY": server.key}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
        for _ in range(repeats + 1):  # side by side, so that a slow moment meets all alike
            for name, words in CASES.items():
                sent = remote if name in ("backtest, table", "backtest, json") else env
                taken[name].append(seconds(words, sent))
    base = statistics.median(wall for wall, _ in taken["bare interpreter"][1:])
    print(f"| command ({repeats} runs each) | median ms | fastest ms | processor ms | × bare interpreter |")
    print("|---|---|---|---|---|")
    for name, values in taken.items():
        walls, processor = zip(*values[1:], strict=True)  # the first fills the page cache
        median = statistics.median(walls)
        shown = (median, min(walls), statistics.median(processor))
        print(f"| {name} | {' | '.join(f'{s * 1e3:.0f}' for s in shown)} | {median / base:.1f} |")
        if median > LIMITS.get(name, float("inf")):
            late.append(f"{name} took {median:.2f} s, allowed {LIMITS[name]} s")
    for line in late:
        print(line, file=sys.stderr)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
