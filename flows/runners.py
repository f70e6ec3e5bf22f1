"""The task runner that settings choose: a run's heavy calls in threads, in processes or on a Dask cluster.

Tasks are threads of the run's process in each case; what differs is where `tasks.places.compute` computes. A flow
names `CONFIGURED`; settings are read when a run begins.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any, Final, Self

from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from flows.cluster import DaskCluster
from flows.processes import Processes
from gpt_trader.settings import Settings
from tasks.places import computing_at
from tasks.stores import stores

#: Calls that wait for a Dask cluster at once: more than its workers take keep them busy.
_DASK_CALLS: Final = 256


class ConfiguredRunner(ThreadPoolTaskRunner[Any]):
    """Prefect's thread pool, whose tasks compute where `optimize_runner` says."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._place: Processes | DaskCluster | None = None
        self._computing = ExitStack()

    def duplicate(self) -> Self:
        """Return another one, not started: Prefect enters a copy for each run."""
        return type(self)()

    def __enter__(self) -> Self:
        """Start as the settings of this engine say now."""
        self._max_workers, self._place = chosen(stores().settings)
        super().__enter__()
        self._computing.enter_context(computing_at(self._place))
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:  # noqa: ANN401 - as in the base class
        """End what computes first: the threads that wait for it end then."""
        self._computing.close()
        try:
            if self._place is not None:
                self._place.stop()
        finally:
            super().__exit__(exc_type, exc_value, traceback)


def chosen(settings: Settings) -> tuple[int, Processes | DaskCluster | None]:
    """Return how many tasks run at once, and where they compute (None: in their own threads)."""
    workers = settings.optimize_workers or os.cpu_count() or 1
    if settings.optimize_runner == "processes":
        return workers, Processes(lambda said: get_run_logger().warning("%s", said))
    if settings.optimize_runner == "dask":
        return _DASK_CALLS, DaskCluster(settings.dask_address, workers)
    return workers, None


#: What a flow names as its task runner (Prefect types it by the futures of a plain one).
CONFIGURED: Final[Any] = ConfiguredRunner()
