"""Single keys of the terminal, without waiting for a line; the terminal is as it was afterwards."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

#: What arrow and other keys send, and what they are called here; a terminal in application mode sends O for [.
_SEQUENCES: Final = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\x1b[Z": "up",
    b"\t": "down", b"\x1b": "escape", b"\r": "enter", b"\n": "enter",
}  # fmt: skip
_MOST_BYTES: Final = 64

#: Returns the keys that were pressed since it was last asked, in order.
Keys = Callable[[], list[str]]


@contextmanager
def keyboard() -> Iterator[Keys | None]:
    """Yield what reads keys, or None where nobody sits at one. Ctrl-C goes on to interrupt."""
    try:
        import termios
        import tty
    except ImportError:  # no such terminals on this system
        yield None
        return
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda: _pressed(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _pressed(descriptor: int) -> list[str]:
    if not select.select([descriptor], [], [], 0)[0]:
        return []
    return keys_in(os.read(descriptor, _MOST_BYTES))


def keys_in(content: bytes) -> list[str]:
    """Return the keys that a terminal's bytes stand for; what is none that is known here is left out."""
    found: list[str] = []
    while content:
        sequence = next((each for each in _SEQUENCES if content.startswith(each)), None)
        if sequence == b"\x1b" and content[1:2] in (b"[", b"O"):  # a key that nobody here asks for
            end = next((n for n, byte in enumerate(content[2:], 3) if 0x40 <= byte <= 0x7E), len(content))
            content = content[end:]
            continue
        if sequence is not None:
            found.append(_SEQUENCES[sequence])
        elif content[:1].isascii() and content[:1].decode().isprintable():
            found.append(content[:1].decode())
        content = content[len(sequence or b" ") :]
    return found
