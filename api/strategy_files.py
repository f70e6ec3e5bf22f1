"""Users' strategy files: kept by content hash for the worker, and never executed in this process."""

from __future__ import annotations

import ast
import hashlib
import os
import secrets
from pathlib import Path

from gpt_trader.errors import Problem, Refused
from gpt_trader.strategies.user import MAX_BYTES, stored_id


def store(folder: Path, filename: str, source: str) -> tuple[str, list[str]]:
    """Keep the file as `<sha256>.py`, mode 0600; return its sha256 and the stored ids of its classes.

    Storing the same content again changes nothing.

    Raises:
        Refused: It is too large, is no Python, or defines no class that could be a strategy.
    """
    content = source.encode()
    if len(content) > MAX_BYTES:
        raise Refused.of(Problem("source", None, f"has {len(content)} bytes", f"at most {MAX_BYTES}"))
    classes = _classes(filename, source)
    digest = hashlib.sha256(content).hexdigest()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = folder / f"{digest}.py"
    if not (target.is_file() and target.read_bytes() == content):
        _write(target, content)
    return digest, [stored_id(content, name) for name in classes]


def stored(folder: Path) -> dict[str, list[str]]:
    """Return the stored ids of every kept file, by sha256, in order of it."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        content = path.read_bytes()
        found[path.stem] = [stored_id(content, n) for n in _classes(path.name, content.decode())]
    return found


def _classes(filename: str, source: str) -> list[str]:
    """Return the names of the file's own classes that have a base, by reading it, not by running it."""
    try:
        tree = ast.parse(source, filename)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        message = (
            f"{filename[:80]}{line} is not Python: {getattr(error, 'msg', None) or type(error).__name__}"
        )
        raise Refused.of(Problem("source", None, message)) from None
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
    if not classes:
        needed = "class MyStrategy(Strategy): …"
        raise Refused.of(Problem("source", None, f"{filename[:80]} defines no strategy class", needed))
    return classes


def _write(target: Path, content: bytes) -> None:
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
