"""What the check of a strategy says: findings with a severity, and a verdict. The same document on every face."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Check = Literal["runs", "determinism", "targets", "look-ahead", "warm-up", "params", "activity"]
#: `error`: its numbers are not to be believed; `warning`: worth a look; `note`: something could not be judged.
Severity = Literal["error", "warning", "note"]
Column = Literal["open", "high", "low", "close", "volume"]


class Finding(BaseModel):
    """One thing that was found, with the bar and the column where it shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: Check
    severity: Severity
    bar: str | None = Field(default=None, description="Time of the first bar that shows it, UTC.")
    column: Column | None = Field(default=None, description="The column that is read too early.")
    message: str = Field(max_length=1000)


class Length(BaseModel):
    """How targets after so much history compare with those after all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bars: int = Field(description="Bars seen, the deciding one included.")
    times: int = Field(description="As a multiple of the declared warm-up.")
    starts: int = Field(description="First bars of a range that were tried.")
    differing: int = Field(description="Of those, how many gave another target in the bars that follow.")
    largest: float = Field(description="Largest difference of a target.")
    first: str | None = Field(description="First bar whose target is another, UTC.")


class WarmUp(BaseModel):
    """Whether the declared warm-up is enough, and how much would be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    declared: int = Field(description="The strategy's `warmup`, in bars.")
    suffices: bool | None = Field(description="Null where too few bars are there to tell.")
    stable_from: int | None = Field(
        description="Least tried length from which no target differs; null: none."
    )
    lengths: tuple[Length, ...]


class StrategyCheck(BaseModel):
    """The outcome of a check: `ok`, or `problems` where a finding is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    strategy: str
    params: dict[str, Any]
    direction: Literal["long", "short", "both"]
    symbol: str
    timeframe: str
    snapshot_id: str | None = None
    start: str = Field(description="First bar of the range, UTC.")
    end: str = Field(description="Last bar of the range, UTC.")
    bars: int = Field(description="Bars of the range.")
    history: int = Field(description="Bars before the range.")
    verdict: Literal["ok", "problems"]
    findings: tuple[Finding, ...]
    cuts: int = Field(description="Places where the future was cut off, and put another in its place.")
    warmup: WarmUp | None = Field(description="Null where the strategy does not run well enough to tell.")
    entries: int | None = Field(description="How often a target goes into a position; null as for `warmup`.")

    def __str__(self) -> str:
        """Say it in lines: the verdict, then a finding each."""
        said = [f"{self.strategy} on {self.symbol}: {self.verdict}"]
        for finding in self.findings:
            where = ", ".join(part for part in (finding.bar, finding.column) if part)
            said.append(
                f"{finding.severity} ({finding.check}{': ' + where if where else ''}): {finding.message}"
            )
        return "\n".join(said)
