"""Make sure that a home's cluster can be served: made if there is none, checked if there is one, nobody else on it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from gpt_trader.errors import Conflict
from storage.cluster import Cluster, locate, processes_in, read_postmaster, running
from storage.initdb import create_cluster, refused
from storage.socket_folder import with_socket_folder

if TYPE_CHECKING:
    from gpt_trader.settings import Home
    from storage.unprivileged import Account

#: The wheel's major version: data folders of another one cannot be opened.
MAJOR: Final = 18

#: Seconds to wait for an old server that is already stopping.
_STOPPING_TIMEOUT: Final = 30.0


def prepare(home: Home) -> Cluster:
    """Return the home's cluster, ready to be served: made by initdb if there is none, checked if there is one.

    Several processes may call it at once. What an interrupted call left behind is removed; anything else that
    is not ours is refused and left as it is.

    Raises:
        Refused: The folder cannot be written, is another user's, another version's, foreign or damaged.
        Conflict: A server already runs on it.
    """
    user = server_user(home)
    with _locked(home) as lock:
        cluster = locate(home)
        if cluster is None:
            _refuse_foreign(home)
            cluster = create_cluster(home, user, lock)
        _check(cluster, os.geteuid() if user is None else user.uid)
        _refuse_second(cluster)
        return with_socket_folder(cluster, user)


def server_user(home: Home) -> Account | None:
    """Return the user to run the server as, None for ourselves. An existing cluster keeps its owner."""
    if os.geteuid() != 0:
        return None
    from storage.unprivileged import account, server_account

    cluster = locate(home)
    if cluster is not None and (owner := cluster.root.stat().st_uid) != 0:
        try:
            return account(owner)
        except KeyError:
            raise refused(
                f"{cluster.root} belongs to uid {owner}, which is no user of this machine: "
                "`chown -R` it to the user `gpt-trader`"
            ) from None
    return server_account()


@contextmanager
def _locked(home: Home) -> Iterator[int]:
    """Hold the home's database folder for ourselves; yield the lock's file descriptor."""
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.database.mkdir(mode=0o700, exist_ok=True)
        owner = home.database.stat().st_uid
        if owner != os.geteuid():
            raise refused(
                f"{home.database} belongs to uid {owner}, and this process runs as uid {os.geteuid()}: "
                "run as its owner, or choose another GPT_TRADER_HOME"
            )
        lock = os.open(home.database / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise refused(
            f"{home.database} cannot be written ({error.strerror}): "
            "choose a folder of your own with GPT_TRADER_HOME"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _refuse_foreign(home: Home) -> None:
    link = home.database / "cluster"
    if link.is_symlink():
        raise refused(
            f"the database of this home is missing: {link} leads to {link.readlink()}, which is gone (a container "
            f"must keep it on a volume): restore it, or remove the link to start with an empty database"
        )
    entries = {path.name for path in home.database.iterdir()}
    foreign = sorted(name for name in entries if name != "lock" and not name.startswith(".new-"))
    if foreign:
        raise refused(
            f"{home.database} holds {', '.join(foreign[:5])}, which gpt-trader did not put there: "
            "move it away, and the next start makes an empty database"
        )


def _check(cluster: Cluster, uid: int) -> None:
    """Refuse a cluster that this version or this user cannot serve; touch nothing."""
    away = f"move {cluster.root} away to start with an empty database, or restore it from a backup"
    try:
        version = (cluster.data / "PG_VERSION").read_text(encoding="utf-8").strip()
    except OSError:
        found = sorted(path.name for path in cluster.root.iterdir())
        raise refused(
            f"{cluster.data} is not a PostgreSQL data folder (beside it: {', '.join(found[:5]) or 'nothing'}): {away}"
        ) from None
    if version != str(MAJOR):
        raise refused(
            f"{cluster.data} was made by PostgreSQL {version[:20]}, and this gpt-trader brings PostgreSQL {MAJOR}: "
            f"dump it with the version that made it (pg_dumpall) and load the dump here, or {away}"
        )
    missing = [
        path.name
        for path in (cluster.data / "global" / "pg_control", cluster.data / "base", cluster.password_file)
        if not path.exists()
    ]
    if missing:
        raise refused(f"{cluster.root} is damaged ({', '.join(missing)} missing): {away}")
    found_owner = cluster.data.stat().st_uid
    if found_owner != uid:
        raise refused(
            f"{cluster.data} belongs to uid {found_owner}, and the server would run as uid {uid}: run as its owner"
        )
    if cluster.password_file.stat().st_mode & 0o077:
        raise refused(
            f"{cluster.password_file} can be read by others: `chmod 600 {cluster.password_file}` "
            "(and find out who opened it)"
        )


def _refuse_second(cluster: Cluster) -> None:
    """Wait for a server that is stopping; refuse one that runs; clear the mark of one that crashed."""
    deadline = time.monotonic() + _STOPPING_TIMEOUT
    while (postmaster := running(cluster)) is not None:
        if postmaster.status != "stopping" or time.monotonic() > deadline:
            raise Conflict(
                f"PostgreSQL (pid {postmaster.pid}) already runs on {cluster.data} and is {postmaster.status}: "
                "`gpt-trader down` stops it; a second engine needs a GPT_TRADER_HOME of its own"
            )
        time.sleep(0.02)
    if read_postmaster(cluster) is not None:
        # PostgreSQL itself takes any living process of the same user with that number for the old server and
        # refuses. Nobody works in the folder, so nobody uses its shared memory: the file is stale for sure.
        while processes_in(cluster.data) and time.monotonic() < deadline:
            time.sleep(0.02)  # backends of a killed server notice within moments
        if not processes_in(cluster.data):
            (cluster.data / "postmaster.pid").unlink(missing_ok=True)
