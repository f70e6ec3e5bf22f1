"""Sessions that were found abandoned, and what was done about each: it outlives whoever looks after them.

A case is about one length of the ledger: once that has grown, what went before does not count. Several may look after
the same sessions: what one writes down on an older view than the table's is not taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import Engine, text

from storage.session_rows import Session

Because = Literal["dead", "cancelled"]


@dataclass(frozen=True)
class Case:
    """One session whose ledger has `seq` events: the run started last for it, and how many of them have died.

    `resting`: the pause before the next run is not over. `left_at`: the lease's token at which it was left.
    """

    seq: int
    run_id: UUID | None = None
    deaths: int = 0
    resting: bool = False
    left_at: int | None = None
    left_because: Because | None = None

    def left(self, session: Session) -> Because | None:
        """Return why the session is left as it is; None where it is not, or somebody has traded it since."""
        return self.left_because if self.left_at == session.lease_token else None


class SessionCases:
    """Keeps cases. All times are the database's. Safe among threads and across a fork."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, session: Session) -> Case:
        """Return a session's case: a new one where none is known, or the ledger has grown since."""
        with self._engine.connect() as connection:
            row = connection.execute(_CASE, {"id": session.session_id, "seq": session.seq}).one_or_none()
        return Case(session.seq) if row is None else Case(**row._mapping)

    def started(self, session: Session, seen: Case, run_id: UUID, deaths: int, pause: float) -> None:
        """Write down the run that goes on with it, after so many deaths; another one waits `pause` seconds."""
        self._put(session, seen, run_id=run_id, deaths=deaths, pause=pause)

    def leave(self, session: Session, seen: Case, because: Because, deaths: int) -> None:
        """Write down that it is left as it is, until somebody takes its lease."""
        left = {"left_at": session.lease_token, "left_because": because}
        self._put(session, seen, run_id=seen.run_id, deaths=deaths, **left)

    def _put(self, session: Session, seen: Case, **values: Any) -> None:  # noqa: ANN401 - columns
        row = {"pause": None, "left_at": None, "left_because": None, **values}
        about = {"id": session.session_id, "seq": session.seq, "seen": seen.run_id}
        with self._engine.begin() as connection:
            connection.execute(_PUT, {**about, **row})


_CASE: Final = text(
    """
    SELECT seq, run_id, deaths, COALESCE(not_before > clock_timestamp(), false) AS resting, left_at, left_because
    FROM session_cases WHERE session_id = :id AND seq = :seq
    """
)

_PUT: Final = text(
    """
    INSERT INTO session_cases AS known (session_id, seq, run_id, deaths, not_before, left_at, left_because)
    VALUES (:id, :seq, :run_id, :deaths, clock_timestamp() + make_interval(secs => CAST(:pause AS float8)), :left_at,
        :left_because)
    ON CONFLICT (session_id) DO UPDATE SET seq = excluded.seq, run_id = excluded.run_id, deaths = excluded.deaths,
        not_before = excluded.not_before, left_at = excluded.left_at, left_because = excluded.left_because
    WHERE known.seq < excluded.seq
        OR (known.seq = excluded.seq AND known.run_id IS NOT DISTINCT FROM CAST(:seen AS uuid))
    """
)
