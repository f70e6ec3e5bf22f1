"""What the API offers for accounts, keys and logins, as typed calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from cli.client.api import ROOT, Client, Json
from gpt_trader.errors import NotFound

_AUTH: Final = f"{ROOT}/auth"
#: The most that a page of the list has.
_USERS_A_PAGE: Final = 200


class AccountClient(Client):
    """Calls of the API about accounts."""

    def log_in(self, email: str, password: str, otp: str | None, scopes: Sequence[str]) -> Json:
        """Return a login's first pair of tokens; raise OtpRequired where a code is wanted and `otp` is None."""
        form = {"username": email, "password": password, "scope": " ".join(scopes)}
        if otp is not None:
            form["otp"] = otp
        answer: Json = self._wire.request("POST", f"{_AUTH}/login", form=form).json()
        return answer

    def log_out(self, refresh_token: str) -> None:
        """End a login."""
        self._wire.request("POST", f"{_AUTH}/logout", body={"refresh_token": refresh_token})

    def reset_password(self, token: str, password: str) -> None:
        """Set a new password by a reset token."""
        self._wire.request("POST", f"{_AUTH}/reset-password", body={"token": token, "password": password})

    def make_key(self, name: str, scopes: Sequence[str], days: float | None) -> Json:
        """Make an API key; the answer is the only one that shows it."""
        return self._object(
            "POST", f"{_AUTH}/api-keys", {"name": name, "scopes": list(scopes), "expires_in_days": days}
        )

    def keys(self) -> list[Json]:
        """Return one's API keys."""
        items: list[Json] = self._object("GET", f"{_AUTH}/api-keys")["items"]
        return items

    def delete_key(self, key_id: str) -> None:
        """Delete an API key."""
        self._wire.request("DELETE", f"{_AUTH}/api-keys/{quote(key_id, safe='')}")

    def users(self) -> list[Json]:
        """Return all accounts; the pages are followed."""
        return self._items(f"{_AUTH}/users", _USERS_A_PAGE)

    def user(self, email: str) -> Json:
        """Return the account of an address; raise NotFound where it has none."""
        for each in self.users():
            if str(each["email"]).lower() == email.lower():
                return each
        raise NotFound(f"{email} has no account: `gpt-trader user list` lists them")

    def create_user(self, email: str, role: str, password: str) -> Json:
        """Make an account."""
        return self._object("POST", f"{_AUTH}/users", {"email": email, "role": role, "password": password})

    def change_user(self, email: str, changes: Mapping[str, Any]) -> Json:
        """Change an account's role or activity, or switch its one-time codes off."""
        return self._object("PATCH", f"{_AUTH}/users/{self.user(email)['id']}", dict(changes))

    def reset_token(self, email: str) -> Json:
        """Make a token that sets a new password."""
        return self._object("POST", f"{_AUTH}/users/{self.user(email)['id']}/reset-token")

    def rotate_signing_key(self, *, discard_present: bool) -> Json:
        """Sign access tokens with a new key."""
        return self._object("POST", f"{_AUTH}/signing-keys", {"discard_present": discard_present})

    def audit(self, event: str | None, limit: int) -> list[Json]:
        """Return the newest entries of the audit log."""
        query = {"event": event, "limit": limit}
        items: list[Json] = self._wire.request("GET", f"{ROOT}/system/audit", query=query).json()["items"]
        return items
