"""A user's own strategy: one Python file, known by the hash of its content so that a run can be reproduced."""

from __future__ import annotations

import ast
import hashlib
import linecache
import re
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Final

from gpt_trader.errors import NotFound, Refused, UnknownName
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.registry import checked_type, strategy_type

_STORED: Final = re.compile(r"user:([0-9a-f]{64}):([A-Za-z_][A-Za-z0-9_]{0,127})")

#: A strategy file larger than this is not a strategy file.
MAX_BYTES: Final = 256 * 1024

#: The files that this process has executed, by the name of their module: source, and what it is shown as.
_loaded: dict[str, tuple[bytes, str]] = {}


def is_file_reference(strategy: str) -> bool:
    """Return whether `strategy` names a file of the user's (`./mine.py:MyStrategy`)."""
    return ".py:" in strategy or strategy.endswith(".py")


def split_reference(strategy: str) -> tuple[Path, str]:
    """Return path and class name of `PATH.py:ClassName`, or of `PATH.py` where the file defines one strategy.

    Raises Refused where the class is missing, and the file (if there is one) does not say which is meant.
    """
    if strategy.endswith(".py"):
        return Path(strategy), _only_class(strategy)
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
    # pydantic resolves the annotations of a class through its module.
    sys.modules[module.__name__] = module
    _loaded[module.__name__] = (source, shown_as)
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


def portable(strategy: type[Strategy]) -> type[Strategy] | tuple[bytes, str, str]:
    """Return what another process can make the class of (`received`): of a user's file its source, for want of a name.

    Shape: (source, class name, shown as). Another class is imported there by its name, and returned as it is.
    """
    source, shown_as = _loaded.get(strategy.__module__, (None, ""))
    return strategy if source is None else (source, strategy.__name__, shown_as)


def received(strategy: type[Strategy] | tuple[bytes, str, str]) -> type[Strategy]:
    """Return the class that `portable` took apart; a file is executed once a process."""
    return strategy if isinstance(strategy, type) else _executed(*strategy)


@lru_cache(maxsize=32)
def _executed(source: bytes, class_name: str, shown_as: str) -> type[Strategy]:
    return load_source(source, class_name, shown_as=shown_as)


def resolve(strategy: str, stored: Path) -> type[Strategy]:
    """Return the class of a registered name or of a stored id whose file is in the folder `stored`."""
    parsed = parse_stored_id(strategy)
    if parsed is None:
        return strategy_type(strategy)
    return load_source(stored_source(strategy, stored), parsed[1], shown_as=str(stored / f"{parsed[0]}.py"))


def stored_source(strategy: str, stored: Path) -> bytes:
    """Return the file of a stored id, without running it; raise NotFound or Refused where it is not what it was."""
    parsed = parse_stored_id(strategy)
    path = stored / f"{parsed[0] if parsed else ''}.py"
    if parsed is None or not path.is_file():
        raise NotFound(f"strategy {strategy} is not stored in this engine: run it from its file once more")
    source = path.read_bytes()
    if hashlib.sha256(source).hexdigest() != parsed[0]:
        raise Refused(f"stored strategy {path} was changed after it was stored: its hash is another")
    return source


def _only_class(strategy: str) -> str:
    """Return the name of a file's one strategy, by reading it, not by running it."""
    path = Path(strategy).expanduser()
    refused = f"strategy {strategy!r} names no class: write it as ./mine.py:MyStrategy"
    if not path.is_file():
        raise Refused(f"{refused} (and there is no file {strategy})")
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}," if isinstance(error, SyntaxError) and error.lineno else ""
        raise Refused(f"{strategy}{line} is not Python: {getattr(error, 'msg', error)}") from None
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    strategies = {"Strategy"}
    for node in classes:  # in order: a base stands before what is made of it
        if strategies & {_name_of(base) for base in node.bases}:
            strategies.add(node.name)
    bases = {_name_of(base) for node in classes for base in node.bases}
    found = [node.name for node in classes if node.name in strategies - bases]
    if len(found) == 1:
        return found[0]
    several = ", ".join(f"{strategy}:{name}" for name in found)
    raise Refused(refused + (f"; it defines {several}" if several else ""))


def _name_of(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")


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
