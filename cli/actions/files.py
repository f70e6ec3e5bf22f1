"""Files that a command writes for its user: whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from gpt_trader.errors import Refused


def write_whole(path: Path, content: bytes) -> Path:
    """Put `content` at `path`, in the place of what was there, and return the absolute path.

    Raises Refused where it cannot be written; what was there stays then.
    """
    path = path.expanduser().absolute()
    if path.is_dir():
        raise Refused(f"{path} cannot be written: it is a folder")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise Refused(f"{path} cannot be written: {error.strerror}") from None
    return path
