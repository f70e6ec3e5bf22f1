"""What a sweep adds to a process at its peak (VmHWM), by itself or with all that follows it up to its report, in MB.

    python -m benchmarks.sweep_memory [BARS FASTS SLOWS [concluded]]

Without arguments the largest grid. Run in a process of its own: what was at its peak before is not added again.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from benchmarks.optimize import study_of, walking_bars
from gpt_trader.optimization.page import render_html
from gpt_trader.optimization.result import OptimizeResult, choose, summary
from gpt_trader.optimization.search import searched
from gpt_trader.optimization.study import Screened
from gpt_trader.optimization.verdict import judged
from storage.run_folders import write_parquet
from tasks.optimize import chunks, trials_table


def most() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1_000


def sweep(bars: int, fasts: int, slows: int, *, concluded: bool) -> None:
    """Search a grid in chunks, as the flow does; conclude it: choose, judge, hash, write the table and the report."""
    study, numbers = study_of(walking_bars(bars), fasts, slows)
    screened = searched(study, lambda them: Screened.of(map(study.screen, chunks(them)))).screened
    assert screened.counts()["run"] == len(numbers)
    if not concluded:
        return
    objective, best, backtests, verified = choose(study, screened, snapshot_id="")
    verdict = judged(study, screened, objective, best[0], backtests[0].equity)
    result = OptimizeResult(study, screened, objective, tuple(best), tuple(backtests), verified, "", verdict)
    summary(result)
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(trials_table(result), Path(folder) / "trials.parquet")
    render_html(result, run_id="", created_at="")


def main() -> None:
    bars, fasts, slows = map(int, sys.argv[1:4] or (5040, 500, 500))
    concluded = "concluded" in sys.argv
    sweep(200, 3, 3, concluded=concluded)  # imports and compiles
    before = most()
    sweep(bars, fasts, slows, concluded=concluded)
    print(most() - before)


if __name__ == "__main__":
    main()
