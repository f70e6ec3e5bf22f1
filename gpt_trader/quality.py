"""What is judged of stored bars, by which rules, and what a verdict says. The judging is `storage.quality`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    import numpy as np

    from gpt_trader.bars import Flags, Times

#: What a finding leads to: nothing, a word of warning, the bars held back, or the series not used at all.
Severity = Literal["off", "warn", "quarantine", "block"]
Status = Literal["ok", "warn", "quarantine", "block"]
RuleName = Literal[
    "gaps",
    "extra_sessions",
    "duplicates",
    "ohlc",
    "finite",
    "stale",
    "outliers",
    "splits",
    "restated",
    "incomplete",
    "timezone",
    "label",
]


@dataclass(frozen=True)
class Rule:
    """What a rule means, its severity unless a policy says otherwise, and whether it names bars to hold back."""

    meaning: str
    severity: Severity = "warn"
    names_bars: bool = True


RULES: Final[Mapping[RuleName, Rule]] = {
    "gaps": Rule(
        "Bars that the calendar expects between the first and the last one are missing.", names_bars=False
    ),
    "extra_sessions": Rule("Bars lie where the calendar has no session."),
    "duplicates": Rule("Several bars have one time."),
    "ohlc": Rule(
        "High and low do not contain open and close, a price is not above zero, or volume is negative."
    ),
    "finite": Rule("A price, a volume or an adjustment factor is not a finite number."),
    "stale": Rule("A bar repeats the one before it, many times over: nothing was traded, or the feed hung."),
    "outliers": Rule(
        "A price leaps far beyond the series' own measure and comes back, or does so on usual volume."
    ),
    "splits": Rule(
        "Prices jump by a ratio of small integers that no corporate action explains.", names_bars=False
    ),
    "restated": Rule("Fetched again, bars had other values than before."),
    "incomplete": Rule("A bar is not over yet."),
    "timezone": Rule("All times are off by hours: they are not UTC.", names_bars=False),
    "label": Rule(
        "Bars are labelled by their close, or off the grid, not by their open time.", names_bars=False
    ),
}


class Policy(BaseModel):
    """What each rule leads to, and the measures of the rules that have one.

    `rules` names the rules that differ from their default (`warn`). Raises pydantic's ValidationError
    (`gpt_trader.validation.validated` makes it Refused) for no such rule or severity, and for quarantine by a rule
    that names no bars.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: dict[RuleName, Severity] = Field(default_factory=dict)
    outlier_z: float = Field(default=12.0, gt=0, description="Robust z (by MAD) of a return or a wick.")
    outlier_volume: float = Field(
        default=3.0, gt=0, description="A lasting jump on so many times the usual volume is news, no error."
    )
    split_z: float = Field(default=6.0, gt=0, description="Robust z that a jump must have to be a split.")
    stale_bars: int = Field(default=5, ge=1, description="Repetitions that make a run stale.")
    stale_minutes: float = Field(default=60.0, ge=0, description="And how long they last at least.")
    liquid: float = Field(
        default=0.005,
        ge=0,
        le=1,
        description="Below so many gaps a bar, each missing bar of a series counts.",
    )
    gap_chance: float = Field(
        default=0.001, gt=0, description="In a thinly traded series a gap likelier than this is none."
    )
    restated_tolerance: float = Field(
        default=1e-6, ge=0, description="Relative difference up to which a value is the same."
    )

    @field_validator("rules")
    @classmethod
    def _bars_to_hold_back(cls, rules: dict[RuleName, Severity]) -> dict[RuleName, Severity]:
        for rule, severity in rules.items():
            if severity == "quarantine" and not RULES[rule].names_bars:
                raise ValueError(f"{rule} names no bars that could be quarantined: off, warn or block")
        return rules

    def severity(self, rule: RuleName) -> Severity:
        """Return what a finding of this rule leads to."""
        return self.rules.get(rule, RULES[rule].severity)


@dataclass(frozen=True)
class Finding:
    """One stretch of a series in which a rule is broken.

    `first` and `last` are datetime64[us] in UTC, inclusive, as the series itself labels its bars (of gaps: as it
    would label the missing ones); `count` is how many bars, missing ones for gaps.
    """

    rule: RuleName
    severity: Severity
    symbol: str
    timeframe: str
    first: np.datetime64
    last: np.datetime64
    count: int
    detail: str

    def document(self) -> dict[str, Any]:
        """Return it JSON-ready, times as ISO 8601 in UTC."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "first": iso(self.first),
            "last": iso(self.last),
            "count": self.count,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Verdict:
    """What a check says of one series.

    `expected` is how many bars the calendar expects from the first to the last one, None without a calendar; `notes`
    say what was not judged, and what is no finding but worth knowing.
    """

    symbol: str
    timeframe: str
    bars: int
    expected: int | None
    first: np.datetime64 | None
    last: np.datetime64 | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    calendar: str | None

    @property
    def status(self) -> Status:
        """The gravest severity among the findings; `ok` without any."""
        found = {finding.severity for finding in self.findings}
        return next(status for status in get_args(Status)[::-1] if status in found or status == "ok")

    def counts(self) -> dict[RuleName, int]:
        """Return how many findings each rule has, in the order of `RULES`; rules without any are left out."""
        rules = [finding.rule for finding in self.findings]
        return {rule: rules.count(rule) for rule in RULES if rule in rules}

    def document(self) -> dict[str, Any]:
        """Return it JSON-ready, times as ISO 8601 in UTC."""
        return {
            "schema_version": 1,
            "symbol": self.symbol,
            "timeframe": self.timeframe,
            "status": self.status,
            "bars": self.bars,
            "expected": self.expected,
            "first": None if self.first is None else iso(self.first),
            "last": None if self.last is None else iso(self.last),
            "calendar": self.calendar,
            "findings": [finding.document() for finding in self.findings],
            "notes": list(self.notes),
        }


def gap_spans(verdict: Verdict) -> tuple[Times, Times]:
    """Return the first and the last missing label (each (k,), inclusive) of every gap, oldest first.

    As the series would label them: a trade from one label to another is affected if a missing one lies between.
    """
    import numpy as np

    gaps = sorted((f.first, f.last) for f in verdict.findings if f.rule == "gaps")
    firsts: Times = np.array([first for first, _ in gaps], "datetime64[us]")
    lasts: Times = np.array([last for _, last in gaps], "datetime64[us]")
    return firsts, lasts


def suspects(verdict: Verdict, time: Times) -> Flags:
    """Return which of the series' bars, by their times (n,), the policy wants held back."""
    import numpy as np

    held = np.zeros(len(time), np.bool_)
    for finding in verdict.findings:
        if finding.severity == "quarantine":
            held |= (time >= finding.first) & (time <= finding.last)
    return held


def iso(time: np.datetime64) -> str:
    """Return a time as ISO 8601 with `Z`, to the second where it is a whole one."""
    import numpy as np

    whole = time == time.astype("datetime64[s]")
    return f"{np.datetime_as_string(time, unit='s' if whole else 'us')}Z"
