"""Compiled functions, kept on disk between processes for as long as what they are made of stays the same.

numba takes a function that it has kept for fresh as long as the file is that defines it. What the function calls in
other files, and constants that come from there, may have changed ("cache invalidation fails to recognize changes in
symbols defined in a different file", as its documentation has it): after an upgrade a portfolio would go on paying
yesterday's commission. Here they are part of what is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from numba import njit
from numba.core.dispatcher import Dispatcher

_CONSTANTS: Final = (bool, int, float, str, type(None))


Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(
    *, inline: Literal["never", "always"] = "never", nogil: bool = False
) -> Callable[[Function], Dispatcher[Function]]:
    """Compile a function as `numba.njit` does, with divisions as numpy's; the options are numba's own."""

    def compile_(function: Function) -> Dispatcher[Function]:
        made = njit(cache=True, error_model="numpy", inline=inline, nogil=nogil)(function)
        if isinstance(made, Dispatcher):  # not where NUMBA_DISABLE_JIT is set
            kept = made._cache._cache_file  # type: ignore[attr-defined]  # no public way: tests/unit/test_compiling.py
            kept._source_stamp = (kept._source_stamp, made_of(function.__globals__))
        return made

    return compile_


def made_of(names: dict[str, Any]) -> str:
    """Return a hash of what a module has from other files: compiled functions, with all of theirs, and constants."""
    found = hashlib.sha256()
    own = names.get("__file__")
    for name, value in sorted(names.items()):
        if isinstance(value, Dispatcher):
            file = value.py_func.__code__.co_filename
            if file != own:
                found.update(f"{name} {_content(file)} {made_of(value.py_func.__globals__)}\n".encode())
        elif _is_constant(value) and not name.startswith("__"):
            found.update(f"{name} {value!r}\n".encode())
    return found.hexdigest()


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(each, _CONSTANTS) for each in value)
    return isinstance(value, _CONSTANTS)


def _content(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
