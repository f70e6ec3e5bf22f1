"""What a paper session is asked: which strategies on which symbols, on which terms, fed by what."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gpt_trader.instruments import Symbol
from gpt_trader.requests import (
    BacktestRequest,
    ParamValue,
    Request,
    StrategyName,
    TradingRequest,
    one_complaint,
)
from gpt_trader.trading.closing import moment_text

MOST_LEGS: Final = 50

#: What of a leg may be given for the whole session instead.
_OF_A_LEG: Final = ("strategy", "params")

#: Weights given as decimals add up to 1 but for this.
_ROUNDING: Final = 1e-9

#: What feeds a session.
Feed = Literal["replay", "schedule", "stream"]

Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]

_FASTEST: Final = 1e9

Speed = Annotated[
    Literal["max"] | Annotated[float, Field(gt=0, le=_FASTEST, allow_inf_nan=False)],
    one_complaint("is no speed", allowed=f"max, or a number above 0, {_FASTEST:,.0f} at most", word="max"),
]


class Leg(BaseModel):
    """One strategy on one symbol, and its share of the equity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Symbol
    strategy: StrategyName = "momentum"
    params: dict[str, ParamValue] = Field(
        default_factory=dict, description="Parameters of the strategy; what is left out keeps its default."
    )
    weight: Fraction | None = Field(
        default=None,
        description="Most of the equity for this leg; default: what the others leave, shared equally.",
    )


class RiskLimits(BaseModel):
    """When a session stops opening positions, or trading at all. What is not set does not limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    daily_loss: Fraction | None = Field(
        default=None,
        description="Loss since the close of the day before, a fraction: from there on positions are only closed, "
        "until the next day.",
    )
    drawdown: Fraction | None = Field(
        default=None,
        description="Fall from the highest equity, a fraction: everything is closed, and the session halts.",
    )
    position: Fraction | None = Field(
        default=None, description="Most of the equity that one symbol is bought or sold short for."
    )
    exposure: Fraction | None = Field(
        default=None, description="Most of the equity that is bought or sold short for in all."
    )


class PaperTradeRequest(TradingRequest):
    """Trade strategies on paper: the path that live trading takes, with a simulated broker.

    A session has one account; each leg is one strategy on one symbol. `symbol`, `strategy` and `params` are short for a
    leg of them (a list of symbols: for one each).
    """

    session: UUID | None = Field(
        default=None, description="Go on with this session, as it was asked for; everything else is left out."
    )
    symbol: Symbol | None = Field(
        default=None, description="Short for one leg: this symbol, traded by `strategy` with `params`."
    )
    strategy: StrategyName | None = Field(
        default=None, description="Of each leg that names none (default: momentum)."
    )
    params: dict[str, ParamValue] = Field(
        default_factory=dict, description="Parameters of the strategy, for each leg that gives none."
    )
    legs: tuple[Leg, ...] = Field(
        default=(), validate_default=True, max_length=MOST_LEGS, description="Strategies by symbol, 1 to 50."
    )
    name: str | None = Field(default=None, max_length=80, description="What lists call the session.")
    direction: Literal["long", "short", "both"] = "long"
    size: float = Field(
        default=1.0,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Fraction of a leg's share put into a position.",
    )
    stop_loss: float | None = Field(
        default=None, gt=0, lt=1, description="Fraction below (short: above) the fill price."
    )
    take_profit: float | None = Field(
        default=None, gt=0, le=100, description="Fraction above (short: below) the fill price."
    )
    risk: RiskLimits = Field(
        default_factory=RiskLimits, description="Limits of the session; none by default."
    )
    participation: Fraction | None = Field(
        default=None,
        description="Most of a bar's volume that the session trades of it: a larger order is filled in parts, bar by "
        "bar. Default: no bound, as in a backtest.",
    )
    feed: Feed = Field(
        default="replay",
        description="Stored bars of the range, at `speed`; or new bars from `start` on (default: from the first that "
        "is not stored yet): `schedule` as `paper_daily` brings them, `stream` as the source's live stream does.",
    )
    speed: Speed = Field(
        default="max", description="Feed replay: so many times as fast as the market was, or max."
    )
    until: Annotated[str, AfterValidator(moment_text)] | None = Field(
        default=None,
        max_length=40,
        description="Feed stream: when it closes, HH:MM on the clock of the first symbol's exchange (UTC without one) "
        "or a time with a zone. Default: the exchange's next close; where a market never closes, when it is stopped.",
    )
    hours: Annotated[float, Field(gt=0, le=24 * 366, allow_inf_nan=False)] | None = Field(
        default=None, description="Feed stream: closes so many hours after it began."
    )
    grace: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = Field(
        default=5.0,
        description="Feed stream: seconds that a moment waits for its other symbols' bars; one that comes later is "
        "recorded, and never traded.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        """Make legs of `symbol` or `symbols`; what is said of the strategy goes for each leg that says nothing else."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        symbol = values.pop("symbol", None)
        symbols = [symbol] if isinstance(symbol, str) else symbol
        if symbols is not None and not isinstance(symbols, list | tuple):
            raise ValueError(f"symbol is {symbols!r}: give a symbol, or a list of them")
        shared = {name: values.pop(name) for name in _OF_A_LEG if name in values}
        shared = {name: value for name, value in shared.items() if value not in (None, {})}
        legs = values.get("legs")
        if symbols and legs:
            raise ValueError("legs name their symbols: leave symbol out")
        if symbols:
            legs = [{"symbol": symbol} for symbol in symbols]
        if shared and isinstance(legs, list | tuple):
            legs = [{**shared, **leg} if isinstance(leg, Mapping) else leg for leg in legs]
        if legs is not None:
            values["legs"] = legs
        return values

    @field_validator("legs")
    @classmethod
    def _weighed(cls, legs: tuple[Leg, ...], info: ValidationInfo) -> tuple[Leg, ...]:
        if info.data.get("session") is not None:
            if legs:
                raise ValueError("a session that goes on has its legs: leave them out")
            return ()
        if not legs:
            raise ValueError(f"a session has 1 to {MOST_LEGS} legs, none given: name a symbol")
        same = [(leg.symbol, leg.strategy, sorted(leg.params.items())) for leg in legs]
        twice = next((leg for place, leg in enumerate(legs) if same[place] in same[:place]), None)
        if twice is not None:
            raise ValueError(f"{twice.strategy} on {twice.symbol} with the same parameters is given twice")
        given = sum(leg.weight for leg in legs if leg.weight is not None)
        without = sum(leg.weight is None for leg in legs)
        if given > 1 + _ROUNDING or (without and given >= 1 - _ROUNDING):
            rest = (
                f", and {without} legs without a weight would get nothing"
                if without and given <= 1 + _ROUNDING
                else ""
            )
            raise ValueError(f"the weights add up to {given:g}{rest}: give 1 at most in all")
        share = (1.0 - given) / without if without else 0.0
        return tuple(
            leg if leg.weight is not None else leg.model_copy(update={"weight": share}) for leg in legs
        )

    @model_validator(mode="after")
    def _fits_the_feed(self) -> Self:
        if self.feed != "replay":
            for name in ("speed", "snapshot", "end"):
                if name in self.model_fields_set and getattr(self, name) not in (None, "max"):
                    raise ValueError(f"{name} is for feed replay, not {self.feed}")
        if self.feed != "stream":
            for name in ("until", "hours", "grace"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is for feed stream, not {self.feed}")
        if self.until is not None and self.hours is not None:
            raise ValueError("until and hours both say when it closes: give one of them")
        return self

    @property
    def symbols(self) -> tuple[str, ...]:
        """Each symbol once, in order of the legs."""
        return tuple(dict.fromkeys(leg.symbol for leg in self.legs))

    def backtest(self, leg: Leg, *, start: date | None = None, end: date | None = None) -> BacktestRequest:
        """Return a leg's backtest on the same terms, as if it had all of the capital."""
        shared = {name: getattr(self, name) for name in TradingRequest.model_fields}
        terms = {name: getattr(self, name) for name in ("direction", "size", "stop_loss", "take_profit")}
        given = {"start": start, "end": end} if start or end else {}
        return BacktestRequest(
            symbol=leg.symbol, strategy=leg.strategy, params=leg.params, **{**shared, **terms, **given}
        )


class PaperCertificateRequest(Request):
    """Replay a session from its recorded inputs and compare it with a backtest over the same bars."""

    session: UUID = Field(description="The session.")


class PaperDailyRequest(Request):
    """Bring new bars in, and let each session with feed `schedule` trade those that it has not seen."""

    sessions: tuple[UUID, ...] = Field(
        default=(), max_length=1000, description="Only these; default: all that are open."
    )
    refresh: bool = Field(
        default=True, description="Fetch new bars of their symbols first, each from its own source."
    )
