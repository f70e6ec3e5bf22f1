"""Shows what an optimization found: the verdict first, then the best combinations, then the walk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cli.terminal.render import Row, grid, pairs, short_strategy, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Metric of a combination → (its words, whether it is a fraction).
_METRICS: Final[Mapping[str, tuple[str, bool]]] = {
    "total_return": ("total return", True),
    "annualized_return": ("annualized", True),
    "sharpe": ("Sharpe", False),
    "max_drawdown": ("max drawdown", True),
    "trades": ("trades", False),
}
_STYLES: Final = {"accept": "green", "reject": "red", "undecided": "yellow"}


def optimized(result: Mapping[str, Any], links: Mapping[str, str]) -> Iterable[RenderableType]:
    """Yield the parts of the table of an optimization's result."""
    from rich.text import Text

    counts, judged = result["trials"], result["overfitting"]
    yield Text(f"{result['symbol']}  {short_strategy(result['strategy'])}", style="bold")
    yield (
        f"{result['start']} → {result['end']}, {result['bars']} bars; {counts['run']} combinations tried, "
        f"{counts['skipped']} skipped, {counts['failed']} failed; {result['verified']} verified by vectorbt"
        + (f", {tried} tried for look-ahead" if (tried := result.get("tried_for_lookahead")) else "")
    )
    if result.get("stopped"):
        yield _stopped(result["stopped"])
    yield ""
    yield Text(f"verdict: {judged['verdict']}", style=_STYLES.get(judged["verdict"], ""))
    for reason in judged["reasons"]:
        yield f"  {reason}"
    yield ""
    headings = {name: words for name, (words, _) in _METRICS.items()}
    yield grid(
        [_written(entry) for entry in result["top"]],
        {"params": "parameters", "objective": result["objective"], **headings},
    )
    for reason in result["reasons"]:
        yield Text(_not_run(reason), style="dim")
    walk = result.get("walk_forward")
    if walk:
        yield ""
        yield from _walked(walk)
    for said in result["warnings"]:
        yield Text(f"⚠ {said}", style="yellow")
    yield ""
    artifacts: Mapping[str, Any] = result.get("artifacts") or {}
    yield pairs(
        {
            "run": result.get("run_id"),
            "snapshot": result.get("snapshot_id"),
            "result": result.get("result_hash"),
            "report": artifacts.get("report"),
            "trials": artifacts.get("trials"),
            "Optuna": result.get("optuna_study"),
            "Prefect": links.get("prefect"),
        }
    )


def trial_rows(result: Mapping[str, Any]) -> list[Row]:
    """Return the best combinations as rows: parameters, objective and metrics side by side."""
    return [
        {
            **{f"param_{name}": value for name, value in entry["params"].items()},
            "objective": entry["objective"],
            **entry["metrics"],
        }
        for entry in result["top"]
    ]


def _not_run(reason: Mapping[str, Any]) -> str:
    """Return the rule that kept trials from being run, with an example where it is one of several."""
    rule, trials = reason.get("rule", reason["reason"]), reason["trials"]
    example = f", e.g. {reason['reason']}" if trials > 1 and rule != reason["reason"] else ""
    return f"{trials} not run: {rule if trials > 1 else reason['reason']}{example}"


def _stopped(stopped: Mapping[str, Any]) -> str:
    """Return that a search stopped before its budget was spent, and why."""
    best = stopped["best_trial"]
    since = f"none after trial {best} was better" if best else "none could be chosen"
    done = f"{stopped['trials']} of {stopped['of']} trials"
    return f"stopped early, after {done}: {since} (patience {stopped['patience']})"


def _written(entry: Mapping[str, Any]) -> Row:
    metrics = {
        name: f"{value * 100:,.2f} %" if fraction and isinstance(value, int | float) else _number(value)
        for name, (_, fraction) in _METRICS.items()
        for value in (entry["metrics"].get(name),)
    }
    return {"params": shown(entry["params"]), "objective": _number(entry["objective"]), **metrics}


def _number(value: object) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else shown(value)


def _walked(walk: Mapping[str, Any]) -> Iterable[RenderableType]:
    how = "anchored" if walk["anchored"] else "rolling"
    how += f", embargo {walk['embargo']}" if walk.get("embargo") else ""
    yield f"walk-forward, {walk['windows']} windows ({how}), {walk['bars']} bars unseen when choosing"
    yield pairs(
        {
            "total return": f"{walk['total_return'] * 100:,.2f} %",
            "Sharpe": walk["sharpe"],
            "max drawdown": f"{walk['max_drawdown'] * 100:,.2f} %",
            "efficiency": walk["efficiency"],
            "consistency": f"{walk['consistency'] * 100:.0f} % of the tests gained",
            "robustness": f"{walk['robustness'] * 100:.0f} % kept half of their training's pace",
        }
    )
