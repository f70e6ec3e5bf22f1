"""What a result was made with: code and library versions, as loaded in this process."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import gpt_trader

_LIBRARIES: Final = (
    "vectorbt",
    "vectorbt-rust",
    "numpy",
    "pandas",
    "numba",
    "pyarrow",
    "duckdb",
    "prefect",
    "optuna",
    "TA-Lib",
)


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the package's version, with the commit where it runs from a git checkout (`0.1.0+g1a2b3c4`)."""
    commit = _commit(Path(gpt_trader.__file__).parent.parent / ".git")
    return f"{gpt_trader.__version__}+g{commit[:12]}" if commit else gpt_trader.__version__


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """Return the versions of Python and of every library that can change a number."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


@lru_cache(maxsize=1)
def platform_name() -> str:
    """Return system, release and machine (reading them takes 10 ms)."""
    return platform.platform(terse=True)


def remember() -> None:
    """Read all of it now: a template's children then know what code they run, even if the files change."""
    for read in (code_version, library_versions, platform_name):
        read()


def provenance(seed: int, durations: dict[str, float]) -> dict[str, Any]:
    """Return what is recorded beside a result and never hashed into it (durations in seconds)."""
    return {
        "code_version": code_version(),
        "libraries": library_versions(),
        "platform": platform_name(),
        "seed": seed,
        "durations": durations,
    }


def _commit(git: Path) -> str:
    """Return the commit that HEAD names, '' outside a checkout; read from the files, as git may be absent."""
    head = git / "HEAD"
    if not head.is_file():
        return ""
    content = head.read_text().strip()
    if not content.startswith("ref: "):
        return content
    ref = content.removeprefix("ref: ")
    loose = git / ref
    if loose.is_file():
        return loose.read_text().strip()
    packed = git / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), "")
