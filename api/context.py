"""The parts one API is made of: opened once by the composition root, read by every route, never global."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from api.accounts.accounts import Accounts
from api.launcher import Launcher
from api.limits import Limits
from api.metrics import Metrics
from api.prefect_server import PrefectServer
from api.principals import Authenticator, LocalKey
from api.run_states import RunStates
from api.sessions import Sessions
from gpt_trader.settings import Home, Settings
from storage.alerts import AlertStore
from storage.event_reader import AsyncEventReader
from storage.lake import Lake
from storage.runs import RunStore

if TYPE_CHECKING:
    from api.kept_answers import KeptAnswers
    from api.streams.streams import Streams


@dataclass(frozen=True)
class Context:
    """Everything a route may use."""

    settings: Settings
    home: Home
    version: str
    libraries: dict[str, str]
    authenticators: tuple[Authenticator, ...]
    local_key: LocalKey
    accounts: Accounts
    limits: Limits
    metrics: Metrics
    database: Engine
    runs: RunStore
    alerts: AlertStore
    reader: AsyncEventReader
    lake: Lake
    prefect: PrefectServer
    launcher: Launcher
    run_states: RunStates
    streams: Streams
    answers: KeptAnswers
    sessions: Sessions
    #: Set when the server starts to shut down: streams end at once.
    closing: asyncio.Event
    started_at: float = field(default_factory=time.monotonic)

    def uptime(self) -> float:
        """Return the seconds since this API started."""
        return time.monotonic() - self.started_at
