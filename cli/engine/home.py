"""The engine's home on disk: made private, and refused when it is not safely ours."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_trader.errors import Problem, Refused

if TYPE_CHECKING:
    from gpt_trader.settings import Home

_FIELD = "GPT_TRADER_HOME"


def prepare_home(home: Home) -> None:
    """Create the home and the folders the supervisor writes, mode 0700; raise Refused if it cannot be ours."""
    check_home(home)
    for folder in (home.root, home.common, home.state, home.logs):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            raise _refused(folder, "is a file, not a folder") from None
        except OSError as error:
            raise _refused(folder, f"cannot be created: {_reason(error)}") from None
    check_home(home)
    if not os.access(home.root, os.R_OK | os.W_OK | os.X_OK):
        raise _refused(home.root, "cannot be written by this user")
    _try_writing(home)


def check_home(home: Home) -> None:
    """Raise Refused if the home exists and is not a folder that this user alone controls."""
    for folder in (home.root, home.common, home.state, home.logs):
        try:
            link, target = folder.lstat(), folder.stat()
        except FileNotFoundError:
            if folder.is_symlink():
                raise _refused(folder, "is a link to nowhere") from None
            continue
        except OSError as error:
            raise _refused(folder, f"cannot be read: {_reason(error)}") from None
        if not stat.S_ISDIR(target.st_mode):
            raise _refused(folder, "is not a folder")
        _check_owner(folder, link.st_uid)
        _check_owner(folder, target.st_uid)
        _check_mode(folder, target)


def _check_owner(folder: Path, owner: int) -> None:
    if owner != os.geteuid():
        raise _refused(folder, f"belongs to {_user(owner)}, and you are {_user(os.geteuid())}")


def _check_mode(folder: Path, found: os.stat_result) -> None:
    others = found.st_mode & stat.S_IWOTH
    # Where each user has a group of their own, umask 002 makes every folder writable by it: that is still us alone.
    group = found.st_mode & stat.S_IWGRP and not _is_private_group(found.st_gid)
    if others or group:
        who = "everyone" if others else "its group"
        raise _refused(folder, f"can be written by {who}; run: chmod 700 {folder}")


def _is_private_group(number: int) -> bool:
    import grp

    try:
        group = grp.getgrgid(number)
    except KeyError:
        return False
    me = _user(os.geteuid())
    return group.gr_name == me and all(member == me for member in group.gr_mem)


def _try_writing(home: Home) -> None:
    """Write and remove a small file: a full disk or a read-only mount is found here, not in a part's log."""
    from tempfile import TemporaryFile

    try:
        with TemporaryFile(dir=home.state) as probe:
            probe.write(b"0" * 4096)
    except OSError as error:
        raise _refused(home.root, f"cannot be written: {_reason(error)}") from None


def _user(number: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _refused(folder: Path, message: str) -> Refused:
    return Refused.of(
        Problem(_FIELD, str(folder), f"{folder} {message}", "a folder of your own that nobody else can write")
    )
