"""What a check of a strategy is asked with; the strategy itself is named beside it."""

from __future__ import annotations

from datetime import date
from difflib import get_close_matches
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gpt_trader.instruments import TIMEFRAMES, Symbol
from gpt_trader.requests import ParamValue, Request
from gpt_trader.strategies.base import Direction


class CheckRequest(Request):
    """The bars on which a strategy is tried, and the parameters with which."""

    symbol: Symbol = Field(default="AAPL", description="Instrument id, as in the lake.")
    timeframe: str = Field(default="1d", description=f"Length of a bar: {', '.join(TIMEFRAMES)}.")
    start: date | None = Field(default=None, description="First day, inclusive; default: first stored bar.")
    end: date | None = Field(default=None, description="Last day, inclusive; default: last stored bar.")
    direction: Direction = "long"
    params: dict[str, ParamValue] = Field(
        default_factory=dict, description="Parameters of the strategy; what is left out keeps its default."
    )
    snapshot: str | None = Field(
        default=None,
        max_length=64,
        description="Version of the lake to read: a snapshot's id, or a time (the newest then); default: the newest.",
    )

    @field_validator("timeframe")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in TIMEFRAMES:
            close = get_close_matches(value, TIMEFRAMES, n=1, cutoff=0.5)
            context = {"allowed": ", ".join(TIMEFRAMES), "nearest": close[0] if close else None}
            raise PydanticCustomError(
                "unknown_name", "{given} is not known", {"given": value[:20], **context}
            )
        return value

    @model_validator(mode="after")
    def _dates_in_order(self) -> Self:
        if self.start and self.end and self.start > self.end:
            raise ValueError(f"start {self.start} is after end {self.end}: give start ≤ end")
        return self
