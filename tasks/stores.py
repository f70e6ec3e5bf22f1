"""The stores of the engine that this process belongs to: the composition root of every flow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from sqlalchemy import Engine

from gpt_trader.settings import Home, Settings, home, load_settings
from storage.alerts import AlertStore
from storage.database import engine
from storage.events import EventLog
from storage.lake import Lake
from storage.runs import RunStore

#: How long a run waits for a database that is away: it is restarted within seconds, a failover takes up to a minute.
OUTAGE_SECONDS: Final = 90.0


@dataclass(frozen=True)
class Stores:
    """Settings and stores of one engine; what opens a connection is made on first use (never before a fork)."""

    settings: Settings
    home: Home

    @cached_property
    def lake(self) -> Lake:
        """The lake of bars."""
        return Lake(self.home.lake)

    @cached_property
    def engine(self) -> Engine:
        """Connections to our database."""
        return engine(self.settings, self.home)

    @cached_property
    def runs(self) -> RunStore:
        """Runs and their artifacts."""
        return RunStore(self.engine, self.home, patience=OUTAGE_SECONDS)

    @cached_property
    def events(self) -> EventLog:
        """The event log."""
        return EventLog(self.engine)

    @cached_property
    def alerts(self) -> AlertStore:
        """What somebody should know."""
        return AlertStore(self.engine)


_stores: dict[Home, Stores] = {}


def stores() -> Stores:
    """Return the stores of `GPT_TRADER_HOME`, made once a process and home."""
    where = home()
    if where not in _stores:
        _stores[where] = Stores(load_settings(), where)
    return _stores[where]
