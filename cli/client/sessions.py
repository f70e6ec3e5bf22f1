"""What the API offers for trading sessions on paper, as typed calls."""

from __future__ import annotations

from typing import Any, Final

from cli.client.api import ROOT, Client, Json, part

_SESSIONS: Final = f"{ROOT}/paper-trade/sessions"
#: The most that a page of a list has.
_SESSIONS_A_PAGE: Final = 200
_ROWS_A_PAGE: Final = 500
_CLOSES_A_PAGE: Final = 10_000


class SessionClient(Client):
    """Calls of the API about paper sessions, beside those about runs."""

    def sessions(self, **filters: object) -> list[Json]:
        """Return sessions, newest first; pages are followed up to `limit`."""
        return self._items(_SESSIONS, _SESSIONS_A_PAGE, **filters)

    def session(self, session_id: str) -> Json:
        """Return one session: state, account, counts, ledger hash."""
        return self._object("GET", f"{_SESSIONS}/{part(session_id)}")

    def session_rows(self, session_id: str, what: str, *, limit: int) -> list[Json]:
        """Return a session's newest `orders` or `fills`."""
        path = f"{_SESSIONS}/{part(session_id)}/{what}"
        return self._items(path, _ROWS_A_PAGE, limit=limit)

    def positions(self, session_id: str) -> Json:
        """Return a session's money, and under `items` what each leg holds."""
        return self._object("GET", f"{_SESSIONS}/{part(session_id)}/positions")

    def equity(self, session_id: str) -> dict[str, list[Any]]:
        """Return a session's equity and cash at each close, oldest first, a list a column."""
        columns: dict[str, list[Any]] = {"time": [], "equity": [], "cash": []}
        after: int | None = 0
        while after is not None:
            query = {"limit": _CLOSES_A_PAGE, "after": after}
            answer = self._wire.request("GET", f"{_SESSIONS}/{part(session_id)}/equity", query=query).json()
            for name, column in columns.items():
                column.extend(answer[name])
            after = answer.get("next_after")
        return columns

    def certificate(self, session_id: str) -> Json:
        """Return a session's last certificate: `covers` so many events, `current` if there are no more by now."""
        found = self._object("GET", f"{_SESSIONS}/{part(session_id)}/certificate")
        about = {"covers": found["events"], "current": not found["grown"]}
        return {"session_id": found["session_id"], **found["certificate"], **about}

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
