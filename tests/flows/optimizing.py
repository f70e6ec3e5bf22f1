"""Optimizations of strategies that say who tried what, and a Dask cluster to try it on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.flows.conftest import ROOT, Engine, free_port
from tests.waiting import eventually

#: Each trial is noted with the process that does it; some combinations are troublesome, if the file `trouble` is there.
NOTED = '''
import os
import resource
import signal
import time
from pathlib import Path

from gpt_trader.strategies.base import Strategy


class Noted(Strategy):
    """In for `number` % 40 + 1 bars, out for as many."""

    folder: str
    number: int = 0
    pace: float = 0.0
    hungry: int = -1
    deadly: int = -1

    def targets(self, bars, first=0):
        import numpy as np

        with (Path(self.folder) / "tried").open("a") as file:
            file.write(f"{self.number} {os.getpid()}\\n")
        if self.number == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.number == self.hungry:
            self._eat()
        time.sleep(self.pace)
        wanted = (np.arange(len(bars)) // (self.number % 40 + 1) % 2).astype(float)
        wanted[:first] = 0
        return wanted

    def _eat(self):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000, before[1]))
        try:
            eaten = []
            while True:
                eaten.append(bytearray(10_000_000))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
'''


@dataclass(frozen=True)
class Trial:
    """One line of the log: which combination, by which process; `after` are the chunks that had come back by then."""

    number: int
    pid: int
    after: frozenset[int]


@dataclass
class Optimizing:
    """Optimizes in a process of its own, in a home of its own, beside the session's server."""

    engine: Engine
    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def log(self) -> Path:
        return self.folder / "tried"

    @property
    def arrays(self) -> Path:
        return self.home / "cache" / "arrays"

    def request(self, numbers: int, **params: Any) -> dict[str, Any]:
        """Return a request for all of `numbers` combinations; the strategy is stored in the home."""
        sha256 = hashlib.sha256(NOTED.encode()).hexdigest()
        stored = self.home / "strategies" / f"{sha256}.py"
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(NOTED)
        return {
            "symbol": "AAPL",
            "strategy": f"user:{sha256}:Noted",
            "start": "2010-01-04",
            "end": "2011-12-30",
            "params": {"folder": str(self.folder), **params},
            "space": {"number": {"low": 0, "high": numbers - 1}},
            "top": 3,
            "report": False,
        }

    def begin(
        self,
        request: dict[str, Any],
        runner: str,
        *,
        chunk: int = 20,
        address: str | None = None,
        workers: int = 2,
    ) -> subprocess.Popen[str]:
        """Start an optimization and leave it running."""
        environment = {
            **self.engine.environment,
            "GPT_TRADER_HOME": str(self.home),
            "PREFECT_HOME": str(self.home / "prefect"),
            "GPT_TRADER_OPTIMIZE_RUNNER": runner,
            "GPT_TRADER_OPTIMIZE_WORKERS": str(workers),
            **({"GPT_TRADER_DASK_ADDRESS": address} if address else {}),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PYTHONFAULTHANDLER": "1",
        }
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "tests.flows.optimize_driver",
                json.dumps(request),
                str(chunk),
                str(self.log),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def end(self, process: subprocess.Popen[str], within: float = 180) -> dict[str, Any]:
        """Wait for an optimization and return how it ended, with what it wrote as `log`.

        Most of the time it imports, 8 s of a processor: on a busy machine that is minutes. One that does not end says
        where its threads stand.
        """
        try:
            out, err = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            _, err = process.communicate(timeout=30)
            raise AssertionError(
                f"not over within {within:g} s, {len(self.tried())} trials:\n{err}"
            ) from None
        assert process.returncode == 0, err
        ended: dict[str, Any] = json.loads(out.splitlines()[-1])
        return {**ended, "log": err}

    def run(self, request: dict[str, Any], runner: str, **options: Any) -> dict[str, Any]:
        """Optimize and return how it ended."""
        return self.end(self.begin(request, runner, **options))

    def tried(self) -> list[Trial]:
        """Return the trials so far, in order."""
        text = self.log.read_text() if self.log.exists() else ""
        trials: list[Trial] = []
        kept: frozenset[int] = frozenset()
        for line in text[: text.rfind("\n") + 1].splitlines():
            word, number = line.split()
            if word == "kept":
                kept |= {int(number)}
            else:
                trials.append(Trial(int(word), int(number), kept))
        return trials

    def forget(self) -> None:
        """Empty the log and the cache of trials."""
        self.log.unlink(missing_ok=True)
        if self.arrays.exists():
            self.arrays.rename(self.folder / f"arrays-{os.urandom(4).hex()}")

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@dataclass(frozen=True)
class DaskParts:
    """A scheduler, and the process that looks after its workers."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: subprocess.Popen[bytes]


@contextlib.contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[DaskParts]:
    """Run a scheduler with so many workers of one thread, started as a person would.

    The workers know no home of ours: theirs would be in a folder where nothing can be made.
    """
    address = f"tcp://127.0.0.1:{free_port()}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GPT_TRADER_", "PREFECT_"))}
    environment |= {"PYTHONPATH": str(ROOT), "GPT_TRADER_HOME": "/proc/none", "PREFECT_HOME": "/proc/none"}
    host, port = address.removeprefix("tcp://").split(":")
    scheduler = ["scheduler", "--host", host, "--port", port, "--no-dashboard"]
    worker = ["worker", address, "--nworkers", str(workers), "--nthreads", "1", "--no-dashboard"]
    worker += ["--host", host, "--local-directory", str(folder)]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "dask.log").open("ab"))
        parts = []
        for arguments in (scheduler, worker):
            command = [sys.executable, "-P", "-m", "dask", *arguments]
            parts.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            stack.callback(parts[-1].wait, 30)
            stack.callback(parts[-1].terminate)
        eventually(
            lambda: (folder / "dask.log").read_text().count("Registered to") >= workers,
            seconds=60,
            what="a Dask cluster with its workers",
        )
        yield DaskParts(address, *parts)
