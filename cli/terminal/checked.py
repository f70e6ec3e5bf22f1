"""Shows what the check of a strategy found: the verdict first, then a finding a line, then the warm-up's lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cli.terminal.render import Row, grid, short_strategy, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES: Final = {"ok": "green", "problems": "red", "error": "red", "warning": "yellow", "note": "dim"}
_LENGTHS: Final = {
    "bars": "history, bars",
    "times": "× warm-up",
    "starts": "starts tried",
    "differing": "decide otherwise",
    "largest": "largest difference",
    "first": "first",
}


def checked(found: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield the parts of the table of a check."""
    from rich.text import Text

    title = Text(f"{found['symbol']}  {short_strategy(found['strategy'])}", style="bold")
    title.append(f"({shown(found['params'])})" if found["params"] else "", style="not bold")
    yield title
    yield (
        f"{_day(found['start'])} → {_day(found['end'])}, {found['bars']} bars after {found['history']} of history, "
        f"direction {found['direction']}"
    )
    yield ""
    yield Text(f"verdict: {found['verdict']}", style=_STYLES[found["verdict"]])
    for finding in found["findings"]:
        line = Text("  ")
        line.append(f"{finding['severity']} ({finding['check']})", style=_STYLES[finding["severity"]])
        where = ", ".join(str(part) for part in (finding["bar"], finding["column"]) if part)
        line.append(f" {where}" if where else "")
        line.append(f": {finding['message']}")
        yield line
    yield ""
    if found["entries"] is not None:
        yield f"entries {found['entries']}; the future was cut off and changed in {found['cuts']} places"
    warmth = found["warmup"]
    if warmth:
        yield _warmed(warmth)
        if warmth["lengths"]:
            yield ""
            yield grid([_row(length) for length in warmth["lengths"]], _LENGTHS)


def _warmed(warmth: Mapping[str, Any]) -> str:
    if warmth["suffices"] is None:
        return f"warm-up {warmth['declared']} bars: too few bars to judge it"
    if warmth["suffices"]:
        return f"warm-up {warmth['declared']} bars: enough"
    stable = warmth["stable_from"]
    return f"warm-up {warmth['declared']} bars: too short, " + (
        f"stable from {stable} on" if stable else "and no longer one is stable"
    )


def _row(length: Row) -> Row:
    return {**length, "first": _day(length["first"]) if length["first"] else ""}


def _day(value: object) -> str:
    return str(value).removesuffix("T00:00:00Z")
