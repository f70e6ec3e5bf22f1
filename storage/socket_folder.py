"""The private folder of the server's unix socket: in the cluster, or elsewhere where that path is too long."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from storage.cluster import Cluster
from storage.initdb import refused, write_private

if TYPE_CHECKING:
    from storage.unprivileged import Account

#: Longest path of a unix socket, without the closing NUL (sys/un.h).
_SOCKET_PATH_LIMIT: Final = 103 if sys.platform == "darwin" else 107
_SOCKET_NAME: Final = ".s.PGSQL.5432"


def with_socket_folder(cluster: Cluster, user: Account | None) -> Cluster:
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
        raise refused(
            f"{folder} must be a folder of uid {uid} that nobody else can open: `chmod 700` it or remove it"
        )
    record = cluster.root / "socket-folder"
    if not record.exists() or record.read_text(encoding="utf-8") != str(folder):
        write_private(record, str(folder))
    return Cluster(cluster.root, folder)


def _short_folder(cluster: Cluster) -> Path:
    """Make a private folder with a short path. Its name has a random part: nobody can be there first."""
    digest = hashlib.sha256(os.fsencode(cluster.root)).hexdigest()[:12]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for place in (runtime, "/tmp"):  # noqa: S108 -- mkdtemp makes a folder of mode 0700 or fails
        fits = len(os.fsencode(place)) + len(f"/gpt-trader-{os.geteuid()}-{digest}-12345678/{_SOCKET_NAME}")
        if place and fits <= _SOCKET_PATH_LIMIT and _is_private_or_sticky(Path(place)):
            return Path(tempfile.mkdtemp(prefix=f"gpt-trader-{os.geteuid()}-{digest}-", dir=place))
    raise refused(
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
