"""One of many processes does a thing for all: whoever holds a lock of PostgreSQL that ends with its connection.

A holder that is stopped, or whose machine has gone, has a connection still: the server ends one on which nothing was
said for too long (`idle_session_timeout`).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import InterfaceError, OperationalError

_TRY: Final = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
_STILL: Final = text("SELECT 1")
_ENDS: Final = text("SELECT set_config('idle_session_timeout', :milliseconds, false)")

#: A holder that has not asked for so long whether it leads does so no more.
SILENCE_SECONDS: Final = 10.0


class Leadership:
    """The lead of what `name` says. For one thread.

    Free the moment its holder's process or connection ends, and once the holder has not asked for `silence` seconds
    whether it has it (`held`).
    """

    def __init__(self, engine: Engine, name: str, *, silence: float = SILENCE_SECONDS) -> None:
        self._engine, self._name = engine, name
        self._silence = str(int(silence * 1000))
        self._connection: Connection | None = None

    def held(self) -> bool:
        """Return whether this process has the lead, and take it where nobody has."""
        try:
            if self._connection is not None:
                self._connection.execute(_STILL)
                return True
            return self._taken()
        except (OperationalError, InterfaceError):
            self.close()
            return False

    def close(self) -> None:
        """Give the lead up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # the lock is the connection's: it ends with it, and returns to no pool
            connection.close()

    def _taken(self) -> bool:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            if connection.execute(_TRY, {"name": self._name}).scalar():
                self._connection = (
                    connection  # from here on it returns to no pool, and the setting is its alone
                )
                connection.execute(_ENDS, {"milliseconds": self._silence})
                return True
        finally:
            if self._connection is None:
                connection.close()
        return False
