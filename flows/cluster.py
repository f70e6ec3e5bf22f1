"""Calls on a Dask cluster: one that runs somewhere (setting `dask_address`), or one of this machine for this run.

Dask makes a call again whose worker is lost, and gives up after its own `allowed-failures` (3). Everything of Dask is
imported on the first call, so that who does not use it does not wait for it.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from flows.processes import Stopped
from gpt_trader.errors import EngineUnreachable, GptTraderError
from tasks.provenance import code_version, library_versions

if TYPE_CHECKING:
    from distributed import Client, Future

Found = TypeVar("Found")

#: A scheduler that does not answer, or has no worker, within this long is none.
CONNECT_SECONDS: Final = 10.0

#: A cluster that has lost its last worker may take this long to have another.
WITHOUT_WORKERS_SECONDS: Final = 60.0

_LOOK_SECONDS: Final = 5.0

_ELSEWHERE: Final = "or compute on this machine: gpt-trader config set optimize_runner processes"


class WorkersLost(GptTraderError):
    """Each worker that a call was given to was lost."""


class DaskCluster:
    """A place (`tasks.places`) on a Dask cluster.

    Args:
        address: The scheduler's, e.g. `tcp://127.0.0.1:8786`; None: a cluster on this machine, for the time of the run.
        workers: How many processes the cluster on this machine has.
    """

    def __init__(self, address: str | None, workers: int) -> None:
        self._address = address
        self._workers = workers
        self._lock = threading.Lock()
        self._suspects = threading.Lock()
        self._resources = ExitStack()
        self._client: Client | None = None
        self._failed: GptTraderError | None = None
        self._sent: tuple[object, Future[Any]] | None = None
        self._alone_since: float | None = None
        self._stopped = False

    def call(self, what: str, function: Callable[..., Found], shared: object, *rest: object) -> Found:
        """Return `function(shared, *rest)`.

        Raises:
            EngineUnreachable: there is no scheduler at the address, or no worker any more.
            WorkersLost: each worker that tried was lost, and each of a second round, with no other such call beside.
            GptTraderError: the workers have other versions.
        """
        try:
            return self._made(what, function, shared, *rest)
        except WorkersLost:
            # Dask counts a lost worker against every call that waited there: alone it is seen which one was the cause.
            with self._suspects:
                return self._made(what, function, shared, *rest)

    def stop(self) -> None:
        """Leave the cluster, or end it if it is ours: calls that wait raise `Stopped`; a worker ends its last one."""
        self._stopped = True
        with self._lock:
            self._sent = None
            with suppress(OSError, TimeoutError):  # it is gone already
                self._resources.close()

    def _made(self, what: str, function: Callable[..., Found], shared: object, *rest: object) -> Found:
        with self._lock:
            client = self._connected()
            given = self._given(client, shared)
        versions = {"gpt-trader": code_version(), **library_versions()}
        key = f"gpt-trader-{uuid4()}"
        future = client.submit(computed, versions, function, given, *rest, key=key, pure=False)
        try:
            return self._result(what, future)  # type: ignore[no-any-return]  # unpickled
        finally:
            # At once: Dask makes a call again whose result was lost and is still wanted.
            future.release()  # type: ignore[no-untyped-call]

    def _connected(self) -> Client:
        if self._stopped:
            raise Stopped
        if self._failed is not None:
            raise self._failed
        if self._client is None:
            try:
                self._client = self._connect()
            except GptTraderError as error:  # the other threads need not try it too
                self._failed = error
                raise
        return self._client

    def _connect(self) -> Client:
        import dask
        from distributed import LocalCluster
        from prefect_dask.task_runners import DaskTaskRunner

        # Bars are sent as they are, once.
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"})
        options: dict[str, Any]
        if self._address:
            options = {"address": self._address}
        else:
            # TLS with a certificate of this run: other users of the machine reach the port as well.
            settings = {"n_workers": self._workers, "threads_per_worker": 1, "dashboard_address": None}
            options = {
                "cluster_class": LocalCluster,
                "cluster_kwargs": {**settings, "protocol": "tls", "security": True},
            }
        runner = DaskTaskRunner(**options, client_kwargs={"timeout": CONNECT_SECONDS})
        try:
            client: Client = self._resources.enter_context(runner).client
        except (OSError, ValueError, TypeError) as error:  # TypeError: tls:// without certificates
            raise self._unreachable(f"no Dask scheduler answers ({error})") from error
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            raise self._unreachable("the Dask scheduler has no workers") from error
        return client

    def _unreachable(self, what: str) -> EngineUnreachable:
        where = f"dask_address {self._address}" if self._address else "optimize_runner dask"
        start = f"start one (`dask scheduler`, `dask worker {self._address}`), " if self._address else ""
        return EngineUnreachable(f"{where}: {what}; {start}{_ELSEWHERE}")

    def _given(self, client: Client, shared: object) -> Future[Any]:
        """Return what is the same in many calls as a value in the cluster, which Dask makes again if it is lost."""
        if self._sent is None or self._sent[0] is not shared:
            content = pickle.dumps(shared, protocol=pickle.HIGHEST_PROTOCOL)
            self._sent = (shared, client.submit(pickle.loads, content, key=f"given-{uuid4()}", pure=False))
        return self._sent[1]

    def _result(self, what: str, future: Future[Any]) -> Any:  # noqa: ANN401 - whatever was computed
        from distributed.scheduler import KilledWorker

        while True:
            try:
                return future.result(timeout=_LOOK_SECONDS)
            except TimeoutError:  # of this wait: `computed` lets none of the call's own out
                self._require_workers()
            except KilledWorker as error:
                raise WorkersLost(
                    f"{what} lost each of the {error.allowed_failures + 1} Dask workers that computed it; the last "
                    f"was {error.last_worker.address}. Is it memory? Then more for each worker may help, "
                    "or leave out what is in it"
                ) from error
            except CancelledError as error:
                if self._stopped:
                    raise Stopped from error
                raise self._unreachable("the Dask scheduler is gone") from error

    def _require_workers(self) -> None:
        with self._lock:
            if self._stopped:
                raise Stopped
            assert self._client is not None
            if self._client.status != "running" or self._client.scheduler_info(n_workers=1)["n_workers"]:
                self._alone_since = None
                return
            self._alone_since = self._alone_since or time.monotonic()
            if time.monotonic() - self._alone_since > WITHOUT_WORKERS_SECONDS:
                raise self._unreachable("the Dask scheduler has lost its workers")


def computed(
    versions: dict[str, str], function: Callable[..., Found], shared: object, *rest: object
) -> Found:
    """Return `function(shared, *rest)`, on a worker; raise GptTraderError where other numbers could come out."""
    here = {"gpt-trader": code_version(), **library_versions()}
    differing = [
        f"{name} {here.get(name)} (the run has {version})"
        for name, version in versions.items()
        if here.get(name) != version
    ]
    if differing:
        raise GptTraderError(
            f"a Dask worker has other versions: {', '.join(differing)}; install the same there"
        )
    try:
        return function(shared, *rest)
    except TimeoutError as error:
        raise GptTraderError(f"TimeoutError: {error}") from error
