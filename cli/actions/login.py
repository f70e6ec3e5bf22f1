"""What `login`, `logout` and `token` do. Passwords and codes are asked for or piped in, never given in options."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cli.client.accounts import AccountClient
from cli.client.logins import Login, access_token, forget_login, keep_login, login_to
from cli.client.wire import LOOPBACK, Target, Wire, checked_url
from cli.terminal.asking import ask_line, ask_new_password, ask_secret
from cli.terminal.options import current, say
from cli.terminal.render import emit, emit_line, listing
from gpt_trader.errors import Denied, EngineUnreachable, OtpRequired, Problem, Refused
from gpt_trader.settings import home


def log_in(email: str | None, scopes: Sequence[str], *, reset: bool) -> None:
    """Log in to the named server and keep the login; with `reset`, set a new password by a reset token first."""
    url = _server()
    if urlsplit(url).scheme == "http" and urlsplit(url).hostname not in LOOPBACK:
        say(f"warning: {url} is addressed without TLS: anyone on the way can read the password")
    address = email or ask_line("email", "email")
    with AccountClient(Wire(Target(url))) as client:
        if reset:
            token = ask_secret("reset token", "token")
            password = ask_new_password()
            client.reset_password(token, password)
            say("the new password is set")
        else:
            password = ask_secret(f"password of {address}", "password")
        try:
            answer = client.log_in(address, password, None, scopes)
        except OtpRequired:
            answer = client.log_in(address, password, ask_secret("one-time code", "otp"), scopes)
    login = Login.of(address, answer)
    keep_login(url, login, home().logins)
    if os.environ.get("GPT_TRADER_API_KEY"):
        say("note: GPT_TRADER_API_KEY is set in the environment and goes before the login")
    facts = {"server": url, "email": address, "scopes": answer["scope"].split(), "file": str(home().logins)}
    emit(facts, table=lambda: [f"logged in to {url} as {address}; may: {answer['scope']}"])


def log_out() -> None:
    """End the login to the named server, there and here."""
    url = _server()
    login = forget_login(url, home().logins)
    if login is None:
        emit({"server": url, "logged_out": False}, table=lambda: [f"there was no login to {url}"])
        return
    try:
        with AccountClient(Wire(Target(url))) as client:
            client.log_out(login.refresh_token)
    except EngineUnreachable as error:
        raise EngineUnreachable(
            f"the login to {url} is forgotten here, but the server was not told: {error.detail}"
        ) from None
    emit({"server": url, "logged_out": True}, table=lambda: [f"logged out from {url}"])


def show_token() -> None:
    """Print an access token that is good for a while."""
    url = _server()
    token = access_token(url, home().logins)
    login = login_to(url, home().logins)
    if token is None or login is None:
        raise _no_login(url)
    expires_at = datetime.fromtimestamp(login.expires_at, UTC).isoformat(timespec="seconds")
    facts = {"access_token": token, "expires_at": expires_at.replace("+00:00", "Z"), "server": url}
    emit_line(facts, token)


def make_key(name: str, scopes: Sequence[str], days: float | None) -> None:
    """Make an API key of the account that is logged in, and print it, this once."""
    with _client() as client:
        made = client.make_key(name, scopes, days)
    say("this key is shown once: keep it where only you can read it")
    emit_line(made, made["key"])


def list_keys() -> None:
    """List the API keys of the account that is logged in."""
    with _client() as client:
        items = client.keys()
    columns = {
        "id": "id",
        "name": "name",
        "starts_with": "starts with",
        "scopes": "may",
        "expires_at": "expires",
        "last_used_at": "last used",
    }
    listing(items, columns, empty="no keys")


def delete_key(key_id: str) -> None:
    """Delete an API key of the account that is logged in."""
    with _client() as client:
        client.delete_key(key_id)
    emit({"id": key_id, "deleted": True}, table=lambda: [f"key {key_id} is deleted"])


def _client() -> AccountClient:
    url, path = _server(), home().logins
    token = access_token(url, path)
    if token is None:
        raise _no_login(url)
    return AccountClient(Wire(Target(url, token), renew=lambda refused: access_token(url, path, refused)))


def _server() -> str:
    named = current().server
    if not named:
        message = "is missing: the local engine needs no login; name the server to log in to"
        raise Refused.of(Problem("server", None, message, allowed="--server URL, or GPT_TRADER_SERVER"))
    return checked_url(named)


def _no_login(url: str) -> Denied:
    return Denied(f"there is no login to {url}: `gpt-trader login --server {url}`")
