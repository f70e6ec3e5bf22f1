"""What the quality policy means for tasks: a gate before the commit of an ingest, and verdicts after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from gpt_trader.errors import BadBars, GptTraderError
from gpt_trader.instruments import Instrument
from gpt_trader.quality import Policy, Verdict, suspects
from gpt_trader.raw_bars import Inspection, Quarantine, RawBars
from gpt_trader.settings import Settings
from storage.judging import Key, verdicts
from storage.lake import Lake
from storage.lake_writing import Arrival
from storage.merge import merge
from storage.quality import check
from storage.quality_tables import CheckedSeries
from tasks.fetching import Outcome

Admission = Callable[[list[Arrival]], list[Arrival | GptTraderError]]


def admission(settings: Settings, lake: Lake) -> Admission | None:
    """Return what holds rows back, or an arrival, before it is committed; None where the policy only warns."""
    policy = settings.quality
    if not {"quarantine", "block"} & set(policy.rules.values()):
        return None
    return lambda arrivals: [_admitted(arrival, policy, lake) for arrival in arrivals]


def _admitted(arrival: Arrival, policy: Policy, lake: Lake) -> Arrival | GptTraderError:
    """Judge the series as it would be, and take out of the arrival what the policy holds back."""
    new = arrival.found.clean
    manifest = lake.manifest()
    symbol, timeframe = arrival.instrument.symbol, arrival.timeframe
    known: Instrument | None = manifest.instruments.get(symbol)
    facts = arrival.instrument if known is None else known.updated(arrival.instrument)
    stored = RawBars.empty()
    if (symbol, timeframe) in manifest.entries and not arrival.replaces:
        stored = lake.raw_bars(symbol, timeframe)
    actions = arrival.actions if arrival.actions is not None else (lake.actions(symbol) if known else None)
    whole = merge(stored, new).rows
    judged = CheckedSeries(facts, timeframe, whole, actions, stored)
    verdict = check([judged], policy, datetime.now(UTC))[0]
    if verdict.status == "block":
        why = next(finding for finding in verdict.findings if finding.severity == "block")
        return BadBars(
            f"{symbol} {timeframe} was not taken in: the quality policy blocks {why.rule}; {why.detail} "
            f"({why.document()['first']} to {why.document()['last']}); see the setting quality.rules"
        )
    held = suspects(verdict, new.time)
    return arrival if not held.any() else replace(arrival, found=_without(arrival.found, held, verdict))


def _without(
    found: Inspection, held: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], verdict: Verdict
) -> Inspection:
    """Return an inspection with some of its clean rows in quarantine, each with the rule that put it there."""
    rows = np.flatnonzero(held)
    reasons = [_rule_of(found.clean.time[row], verdict) for row in rows]
    before = found.quarantined
    quarantined = Quarantine(
        RawBars.joined(before.rows, found.clean[rows]),
        np.concatenate([before.row, rows.astype(np.int64)]),
        (*before.reason, *reasons),
    )
    return replace(found, clean=found.clean[~held], quarantined=quarantined)


def _rule_of(time: np.datetime64, verdict: Verdict) -> str:
    rules = [
        finding.rule
        for finding in verdict.findings
        if finding.severity == "quarantine" and finding.first <= time <= finding.last
    ]
    return f"quality rule {rules[0]}"


def verdicts_of(
    settings: Settings, lake: Lake, outcomes: Sequence[Outcome], before: str | None
) -> dict[Key, Verdict]:
    """Return a verdict on each series that an ingest has put in, by symbol and timeframe.

    `before` is the snapshot from before the ingest: what was restated shows against it.
    """
    keys = {_key(outcome): outcome for outcome in outcomes if outcome.error is None}
    revised = {
        key: lake.raw_bars(*key, snapshot=before)
        for key, outcome in keys.items()
        if outcome.restated and before and key in lake.manifest(before).entries
    }
    found = verdicts(lake, keys, settings.quality, revised=revised)
    return dict(zip(keys, found, strict=True))


def _key(outcome: Outcome) -> Key:
    return outcome.series.symbol, outcome.series.timeframe
