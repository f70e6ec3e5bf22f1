"""Shows runs side by side: what they are, metrics with the best marked, how they go together, and what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from cli.terminal.metrics import METRICS, right_aligned, written
from cli.terminal.render import Row, grid, short_strategy, shown

if TYPE_CHECKING:
    from rich.console import RenderableType


def compared(found: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield the parts of the table of a comparison; runs have letters, in their order."""
    from rich.text import Text

    runs: Sequence[Mapping[str, Any]] = found["runs"]
    keys = {run["run_id"]: ascii_uppercase[place] for place, run in enumerate(runs)}
    columns = {
        "key": "",
        "strategy": "strategy",
        "params": "parameters",
        "symbol": "symbol",
        "range": "range",
    }
    yield grid([_what(run, keys) for run in runs], {**columns, "run_id": "run"})
    yield ""
    yield right_aligned(_metric_rows(found, keys), {"metric": "", **{key: key for key in keys.values()}})
    yield Text("* best by this metric", style="dim")
    correlation = found.get("correlation")
    if correlation:
        yield ""
        yield f"correlation of {correlation['returns']:,} returns on common dates"
        letters = [keys[run_id] for run_id in correlation["run_ids"]]
        rows = [
            {"run": letter, **dict(zip(letters, map(_coefficient, values), strict=True))}
            for letter, values in zip(letters, correlation["values"], strict=True)
        ]
        yield right_aligned(rows, {"run": "", **{letter: letter for letter in letters}})
    if found["warnings"]:
        yield ""
    for warning in found["warnings"]:
        told = ", ".join(
            f"{keys[run_id]}{'' if value is None else f' {shown(value)}'}"
            for run_id, value in warning["values"].items()
        )
        yield Text(f"⚠ {warning['message']} ({warning['field']}: {told})", style="yellow")


def run_rows(found: Mapping[str, Any]) -> list[Row]:
    """Return the runs as rows: what each is, its parameters and its metrics side by side."""
    named = (
        "run_id",
        "flow",
        "symbol",
        "timeframe",
        "strategy",
        "direction",
        "start",
        "end",
        "bars",
        "snapshot_id",
    )
    return [
        {
            **{name: run[name] for name in named},
            **{f"param_{name}": value for name, value in run["params"].items()},
            **run["metrics"],
        }
        for run in found["runs"]
    ]


def _what(run: Mapping[str, Any], keys: Mapping[str, str]) -> Row:
    return {
        **run,
        "key": keys[run["run_id"]],
        "strategy": short_strategy(run["strategy"]) + (" (optimized)" if run["chosen_of"] else ""),
        "params": shown(run["params"]),
        "range": f"{run['start']} → {run['end']}",
    }


def _metric_rows(found: Mapping[str, Any], keys: Mapping[str, str]) -> list[Row]:
    """Return a row a metric that any run has; the best is marked where there are others."""
    known = dict.fromkeys([*METRICS, *(name for run in found["runs"] for name in run["metrics"])])
    rows: list[Row] = []
    for name in known:
        if not any(name in run["metrics"] for run in found["runs"]):
            continue
        best = found["best"].get(name) or ()
        marked = best if len(best) < len(keys) else ()
        values = {
            keys[run["run_id"]]: written(name, run["metrics"].get(name))
            + (" *" if run["run_id"] in marked else "  ")
            for run in found["runs"]
        }
        rows.append({"metric": METRICS.get(name, (name.replace("_", " "), ""))[0], **values})
    return rows


def _coefficient(value: float | None) -> str:
    return shown(None) if value is None else f"{value:.2f}"
