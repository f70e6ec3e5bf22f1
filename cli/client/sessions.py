"""What the API offers for trading sessions on paper, as typed calls."""

from __future__ import annotations

from typing import Final

from cli.client.api import ROOT, Client, Json, part

_SESSIONS: Final = f"{ROOT}/paper-trade/sessions"


class SessionClient(Client):
    """Calls of the API about paper sessions, beside those about runs."""

    def sessions(self, **filters: object) -> list[Json]:
        """Return sessions, newest first; pages are followed up to `limit`."""
        return self._items(_SESSIONS, **filters)

    def session(self, session_id: str) -> Json:
        """Return one session: state, account, counts, ledger hash."""
        return self._object("GET", f"{_SESSIONS}/{part(session_id)}")

    def session_rows(self, session_id: str, what: str, **query: object) -> list[Json]:
        """Return a session's `orders`, `fills` or `positions`."""
        return self._items(f"{_SESSIONS}/{part(session_id)}/{what}", **query)

    def equity(self, session_id: str) -> Json:
        """Return a session's equity and cash at each close, a list a column."""
        return self._object("GET", f"{_SESSIONS}/{part(session_id)}/equity")

    def certificate(self, session_id: str) -> Json:
        """Return a session's last certificate."""
        return self._object("GET", f"{_SESSIONS}/{part(session_id)}/certificate")

    def pause(self, session_id: str) -> Json:
        """Ask a session to open no positions for now."""
        return self._object("POST", f"{_SESSIONS}/{part(session_id)}/pause")

    def resume(self, session_id: str) -> Json:
        """Ask a paused session to trade again."""
        return self._object("POST", f"{_SESSIONS}/{part(session_id)}/resume")

    def stop(self, session_id: str, *, flatten: bool) -> Json:
        """Ask a session to end; with `flatten`, once everything that it holds is closed."""
        query = "?flatten=true" if flatten else ""
        return self._object("DELETE", f"{_SESSIONS}/{part(session_id)}{query}")
