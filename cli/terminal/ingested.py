"""Shows what an ingest did: a row a series, then what was repaired, held back, found wrong or failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cli.terminal.render import grid, pairs

if TYPE_CHECKING:
    from rich.console import RenderableType

_COLUMNS: Final = {
    "symbol": "symbol",
    "timeframe": "bar",
    "source": "source",
    "added": "added",
    "restated": "restated",
    "unchanged": "unchanged",
    "quarantined": "quarantined",
    "quality": "quality",
}
_FINDINGS: Final = {
    "symbol": "symbol",
    "timeframe": "bar",
    "rule": "rule",
    "first": "first",
    "last": "last",
    "count": "bars",
    "detail": "what",
}
#: Findings that a table shows; `data check` shows more of them.
_SHOWN: Final = 10


def ingested(result: Mapping[str, Any], links: Mapping[str, str]) -> Iterable[RenderableType]:
    """Yield the parts of the table of an ingest's result."""
    from rich.text import Text

    series: list[Mapping[str, Any]] = result["series"]
    yield grid([each for each in series if each["error"] is None], _COLUMNS)
    for each in series:
        name = f"{each['symbol']} {each['timeframe']}"
        for remark in each["remarks"]:
            yield Text(f"{name}: {remark}", style="dim")
        if each["error"] is not None:
            yield Text(f"{name} failed: {each['error']}", style="red")
    for said in result["skipped"]:
        yield Text(f"skipped: {said}", style="dim")
    findings = result["findings"]
    if findings:
        yield ""
        yield grid(findings[:_SHOWN], _FINDINGS)
    if len(findings) > _SHOWN:
        yield f"{len(findings) - _SHOWN} more findings: gpt-trader data check"
    yield ""
    yield pairs(
        {
            "run": result.get("run_id"),
            "snapshot": result.get("snapshot_id"),
            "Prefect": links.get("prefect"),
        }
    )
