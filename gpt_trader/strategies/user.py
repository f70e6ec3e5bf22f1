"""A user's own strategy: one Python file, known by the hash of its content so that a run can be reproduced."""

from __future__ import annotations

import hashlib
import linecache
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from gpt_trader.errors import NotFound, Refused, UnknownName
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.registry import checked_type, strategy_type

_STORED: Final = re.compile(r"user:([0-9a-f]{64}):([A-Za-z_][A-Za-z0-9_]{0,127})")

#: A strategy file larger than this is not a strategy file.
MAX_BYTES: Final = 256 * 1024


def is_file_reference(strategy: str) -> bool:
    """Return whether `strategy` names a file of the user's (`./mine.py:MyStrategy`)."""
    return ".py:" in strategy or strategy.endswith(".py")


def split_reference(strategy: str) -> tuple[Path, str]:
    """Return path and class name of `PATH.py:ClassName`; raise Refused where the class is missing."""
    path, _, class_name = strategy.rpartition(":")
    if not path or not class_name.isidentifier():
        raise Refused(f"strategy {strategy!r} names no class: write it as ./mine.py:MyStrategy")
    return Path(path), class_name


def stored_id(source: bytes, class_name: str) -> str:
    """Return `user:<sha256 of the file>:<Class>`, the name under which a run records the strategy."""
    return f"user:{hashlib.sha256(source).hexdigest()}:{class_name}"


def parse_stored_id(strategy: str) -> tuple[str, str] | None:
    """Return (sha256, class name) of a stored id, or None where `strategy` is a registered name."""
    match = _STORED.fullmatch(strategy)
    return (match[1], match[2]) if match else None


def load_file(path: Path, class_name: str) -> type[Strategy]:
    """Execute the file (it is code of the caller's) and return its strategy class.

    Raises NotFound where there is no such file, Refused where it does not run or holds no such strategy.
    """
    if not path.is_file():
        raise NotFound(f"strategy file {path} does not exist")
    return load_source(path.read_bytes(), class_name, shown_as=str(path))


def load_source(source: bytes, class_name: str, *, shown_as: str) -> type[Strategy]:
    """Execute `source` as a module of its own and return its strategy class (errors as `load_file`)."""
    if len(source) > MAX_BYTES:
        raise Refused(f"{shown_as} has {len(source)} bytes, a strategy file may have {MAX_BYTES}")
    module = ModuleType(f"user_strategy_{hashlib.sha256(source).hexdigest()[:12]}")
    module.__file__ = shown_as
    # pydantic resolves the annotations of a class through its module, and pickle finds it there.
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, shown_as, "exec"), module.__dict__)  # noqa: S102 the user's own code, by design D14
    except (Exception, SystemExit) as error:  # a script that ends itself is no strategy file
        line = _line_of(error, shown_as)
        raise Refused(f"{shown_as}{line} does not run: {type(error).__name__}: {error}") from error
    # Tracebacks of a run show the stored lines, wherever the file has gone meanwhile.
    text = source.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[shown_as] = (len(source), None, text, shown_as)
    found = getattr(module, class_name, None)
    if found is None:
        here = [n for n, v in vars(module).items() if _is_strategy(v, module)]
        raise UnknownName.among("strategy", class_name, here, hint=f"{shown_as} defines no such class")
    return _usable(found, class_name)


def resolve(strategy: str, stored: Path) -> type[Strategy]:
    """Return the class of a registered name or of a stored id whose file is in the folder `stored`."""
    parsed = parse_stored_id(strategy)
    if parsed is None:
        return strategy_type(strategy)
    digest, class_name = parsed
    path = stored / f"{digest}.py"
    if not path.is_file():
        raise NotFound(f"strategy {strategy} is not stored in this engine: run it from its file once more")
    source = path.read_bytes()
    if hashlib.sha256(source).hexdigest() != digest:
        raise Refused(f"stored strategy {path} was changed after it was stored: its hash is another")
    return load_source(source, class_name, shown_as=str(path))


def _usable(found: object, class_name: str) -> type[Strategy]:
    strategy = checked_type(found, class_name)
    if not getattr(strategy, "name", ""):
        strategy.name = class_name
    return strategy


def _is_strategy(value: object, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == module.__name__


def _line_of(error: BaseException, shown_as: str) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f", line {error.lineno},"
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == shown_as:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}," if line else ""
