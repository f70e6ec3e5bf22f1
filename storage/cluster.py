"""Where an engine's embedded PostgreSQL lives, and whether it answers. Standard library only: cheap to ask.

<home>/database/            0700, ours alone
├── lock                    held while the folder is prepared
└── cluster                 a folder; as root a link to /var/lib/gpt-trader/clusters/<hash>-<random>
    ├── data/               0700, PostgreSQL's own
    ├── pgpass              0600, the generated passwords of both roles, in libpq's pgpass format
    ├── socket/             0700, the only door: a unix socket (elsewhere where the path is too long)
    └── socket-folder       where the socket really is
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from gpt_trader.settings import Home

#: initdb's superuser: creates our role and databases, nothing else.
SUPERUSER: Final = "postgres"
#: The role that owns and uses both databases.
ROLE: Final = "gpt_trader"

_STATUS_LINE: Final = 7  # postmaster.pid, PostgreSQL's miscadmin.h: LOCK_FILE_LINE_PM_STATUS, counted from 0


@dataclass(frozen=True)
class Cluster:
    """One embedded PostgreSQL: its folder (links resolved) and the folder of its socket."""

    root: Path
    socket_folder: Path

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder."""
        return self.root / "data"

    @property
    def password_file(self) -> Path:
        """The passwords, mode 0600, in pgpass format."""
        return self.root / "pgpass"

    def url(self, database: str, *, role: str = ROLE) -> str:
        """Return a libpq URL of one database. It names the password file, so it holds no secret."""
        place = f"host={quote(str(self.socket_folder), safe='')}"
        return f"postgresql://{role}@/{database}?{place}&passfile={quote(str(self.password_file), safe='')}"


@dataclass(frozen=True)
class Postmaster:
    """What `postmaster.pid` says: the process, and its status (starting, stopping, ready, standby)."""

    pid: int
    status: str


def locate(home: Home) -> Cluster | None:
    """Return the home's cluster, or None where none has been made yet."""
    entry = home.database / "cluster"
    if not entry.is_dir():
        return None
    root = Path(os.path.realpath(entry))
    try:
        socket_folder = Path((root / "socket-folder").read_text(encoding="utf-8"))
    except OSError:
        socket_folder = root / "socket"
    return Cluster(root, socket_folder)


def is_ready(cluster: Cluster) -> bool:
    """Return whether the cluster's server is alive and accepts connections. Asks files, not the server."""
    postmaster = running(cluster)
    return postmaster is not None and postmaster.status == "ready"


def running(cluster: Cluster) -> Postmaster | None:
    """Return the server that runs on the cluster's data folder, or None.

    A `postmaster.pid` that a crash left behind, whose number another process has by now, is nobody.
    """
    postmaster = read_postmaster(cluster)
    if postmaster is None or not _works_in(postmaster.pid, cluster.data):
        return None
    return postmaster


def read_postmaster(cluster: Cluster) -> Postmaster | None:
    """Return what `postmaster.pid` says, true or stale; None without a (whole) one."""
    try:
        lines = (cluster.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        pid = abs(int(lines[0]))  # a single-user server writes its pid negative
    except (OSError, ValueError, IndexError):
        return None
    return Postmaster(pid, lines[_STATUS_LINE].strip() if len(lines) > _STATUS_LINE else "starting")


def processes_in(folder: Path) -> list[int]:
    """Return the pids that work in the folder: backends that outlive their postmaster are among them (Linux)."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208 -- only the names matter
    except OSError:
        return []
    return [int(name) for name in names if name.isdigit() and _works_in(int(name), folder)]


def _works_in(pid: int, folder: Path) -> bool:
    """Return whether the process's working directory is the folder: each server process changes into it."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's: our server is either ours or, as root, readable
        return False
    if not Path("/proc/self/cwd").exists():  # macOS
        import subprocess

        shown = subprocess.run(
            ["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False, timeout=10
        )
        return str(folder) in shown.stdout
    try:
        return os.path.realpath(f"/proc/{pid}/cwd") == str(folder)
    except OSError:
        return False
