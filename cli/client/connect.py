"""Finds the server of this invocation: the one that was named, or the engine of our home, started if need be."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from cli.client.api import Client
from cli.client.wire import LOOPBACK, Target, Wire, checked_url
from cli.terminal.options import current, say
from gpt_trader.errors import Denied


def connect() -> Client:
    """Return a client of the server of this invocation."""
    return Client(wire())


def wire() -> Wire:
    """Return the connection to the server of this invocation.

    A named server (`--server`, `GPT_TRADER_SERVER`) is used as it is, with the key of `GPT_TRADER_API_KEY` or else the
    login that is kept for it; the local engine's key is never sent there. Otherwise the engine of the home: where its
    file says that it runs it is addressed at once, without asking first; whoever finds nobody there starts it and tries
    again.
    """
    server = current().server
    if server:
        return _remote(server)
    from cli.engine.running import find_engine
    from gpt_trader.settings import home

    found = find_engine(home())
    if found is None:
        return Wire(_started())
    return Wire(Target(found.api_url, _local_key()), revive=_started)


def present(client: Client) -> Target:
    """Return where the server of this invocation is now: a local engine may have come back at another port."""
    if current().server is None:
        from cli.engine.running import find_engine
        from gpt_trader.settings import home

        found = find_engine(home())
        if found is not None:
            client.move(Target(found.api_url, _local_key()))
    return client.target


def running() -> Client | None:
    """Return a client if a server is named or the local engine runs; nothing is started or said."""
    if current().server:
        return Client(_remote(str(current().server), warn=False))
    from cli.engine.running import find_engine
    from gpt_trader.settings import home

    found = find_engine(home())
    return Client(Wire(Target(found.api_url, _local_key()))) if found else None


def is_remote() -> bool:
    """Whether a server was named: then its files are not ours to open."""
    return current().server is not None


def _remote(server: str, *, warn: bool = True) -> Wire:
    url = checked_url(server)
    key = os.environ.get("GPT_TRADER_API_KEY") or None
    renew = None
    if key is None:
        from cli.client.logins import access_token
        from gpt_trader.settings import home

        path = home().logins
        key = access_token(url, path)

        def renew(refused: str) -> str | None:
            return access_token(url, path, refused)

    parts = urlsplit(url)
    if warn and key and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        say(f"warning: {parts.hostname} is addressed without TLS: anyone on the way can read the key")
    return Wire(Target(url, key), renew=renew)


def _started() -> Target:
    from cli.engine.start import ensure_engine
    from gpt_trader.settings import home, load_settings

    address = ensure_engine(load_settings(), home(), say=say)
    return Target(address.api_url, _local_key())


def _local_key() -> str | None:
    from gpt_trader.settings import home

    path = home().key
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Denied(
            f"the engine's key {path} cannot be read ({error.strerror}): is it another user's?"
        ) from None
