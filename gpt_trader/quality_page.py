"""The verdicts of a check as one HTML page that needs no other file and makes no request, in the report's look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cache
from typing import Final

import numpy as np
from jinja2 import Template
from markupsafe import Markup

from gpt_trader.backtesting.report import formats
from gpt_trader.backtesting.report.static_page import static_template
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.quality import RULES, Status, Verdict, gap_spans

#: Rows of one series' table of findings: a page of thousands is read by nobody, and the JSON has them all.
SHOWN_FINDINGS: Final = 200
_ORDER: Final[tuple[Status, ...]] = ("block", "quarantine", "warn", "ok")
_WIDTH: Final = 1000.0
#: Of whole series, a mark in the strip would say nothing.
_UNMARKED: Final = frozenset({"gaps", "label", "timezone"})


def render_html(verdicts: Sequence[Verdict], *, checked_at: str, snapshot_id: str | None = None) -> str:
    """Return the page of these verdicts, the gravest first. Texts are escaped; the page can be encoded as UTF-8.

    `checked_at` is shown as given (ISO 8601), `snapshot_id` if there is one.
    """
    ordered = sorted(verdicts, key=lambda verdict: _ORDER.index(verdict.status))
    statuses = {status: sum(v.status == status for v in ordered) for status in _ORDER}
    page = _template().render(
        verdicts=ordered,
        statuses={status: n for status, n in statuses.items() if n},
        headline=_headline(ordered),
        checked_at=checked_at,
        snapshot_id=snapshot_id,
        rules=RULES,
        shown=SHOWN_FINDINGS,
    )
    return page.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8 form


def strip(verdict: Verdict) -> Markup:
    """Return a strip from the first to the last bar as SVG, with gaps and marks of what else was found."""
    if verdict.first is None or verdict.last is None:
        return Markup("")
    step = np.timedelta64(TIMEFRAMES[verdict.timeframe])
    first, microsecond = verdict.first, np.timedelta64(1, "us")
    length = (verdict.last + step - first) / microsecond
    gaps = gap_spans(verdict)
    starts, ends = (gaps[0] - first) / microsecond / length, (gaps[1] + step - first) / microsecond / length
    missing = sum(finding.count for finding in verdict.findings if finding.rule == "gaps")
    marks = [
        float((f.first - first) / microsecond / length) for f in verdict.findings if f.rule not in _UNMARKED
    ]
    return Markup(
        '<svg class="strip" viewBox="0 0 1000 26" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="held" width="1000" height="26"/><path class="gap" d="{}"/><path class="mark" d="{}"/></svg>'
        '<p class="ends"><span>{}</span><span>{}</span></p>'
    ).format(
        f"From first to last bar: {len(starts)} gaps with {missing} missing bars, {len(marks)} other findings",
        _dashes(zip(starts.tolist(), ends.tolist(), strict=True), 13),
        _dashes(((mark, mark) for mark in marks), 4),
        _moment(verdict.first, verdict),
        _moment(verdict.last, verdict),
    )


def _dashes(spans: Iterable[tuple[float, float]], height: float) -> str:
    """Return horizontal dashes as a path; those that touch on the screen are one."""
    joined: list[list[float]] = []
    for start, end in sorted(spans):
        left = round(min(start * _WIDTH, _WIDTH - 1), 1)
        right = round(min(max(end * _WIDTH, left + 1), _WIDTH), 1)
        if joined and left <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], right)
        else:
            joined.append([left, right])
    return "".join(f"M{left:g} {height:g}H{right:g}" for left, right in joined)


def _headline(verdicts: Sequence[Verdict]) -> str:
    wrong = sum(verdict.status != "ok" for verdict in verdicts)
    series = "1 series" if len(verdicts) == 1 else f"{len(verdicts):,} series"
    return f"{series}, {wrong:,} with findings" if wrong else f"{series}, nothing found"


def _moment(time: np.datetime64 | None, verdict: Verdict) -> str:
    return formats.moment(time, daily=TIMEFRAMES[verdict.timeframe] >= timedelta(days=1))


def _spaced(name: str) -> str:
    return name.replace("_", " ")


@cache
def _template() -> Template:
    return static_template(
        "quality", {"number": formats.number, "moment": _moment, "spaced": _spaced, "strip": strip}
    )
