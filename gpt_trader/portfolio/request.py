"""What a portfolio backtest is asked: which symbols, by which weights, traded back to when, within which bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gpt_trader.instruments import Symbol
from gpt_trader.requests import BacktestRequest, ParamValue, StrategyName, TradingRequest

#: Weights given as decimals add up to 1 but for this.
_ROUNDING: Final = 1e-9

MOST_SYMBOLS: Final = 1000

Method = Literal["equal", "inverse_volatility", "given", "strategy"]
Period = Literal["none", "day", "week", "month", "quarter", "year"]

Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _snake(value: object) -> object:
    return value.replace("-", "_") if isinstance(value, str) else value


class PortfolioRequest(TradingRequest):
    """Simulate a portfolio of many symbols on stored bars: shared cash, target weights, rebalancing. Long only."""

    symbols: tuple[Symbol, ...] = Field(
        default=(),
        validate_default=True,
        max_length=MOST_SYMBOLS,
        description="Instrument ids, 2 to 1,000, each once; default: those that `weight` names.",
    )
    weights: Annotated[Method, BeforeValidator(_snake)] = Field(
        default="equal",
        description="How the target weights are found: equal ones, in inverse proportion to volatility, given ones, or "
        "each symbol's equal share where a strategy wants to be in it.",
    )
    weight: dict[Symbol, Weight] = Field(
        default_factory=dict,
        description="Target weight of each symbol, a fraction of equity (weights given).",
        examples=[{"AAPL": 0.6, "MSFT": 0.4}],
    )
    volatility_window: int | None = Field(
        default=None,
        ge=2,
        le=2_000,
        description="Returns that a volatility is taken over (weights inverse_volatility; default 60).",
    )
    strategy: StrategyName | None = Field(
        default=None, description="What decides whether a symbol is held (weights strategy)."
    )
    params: dict[str, ParamValue] = Field(
        default_factory=dict, description="Parameters of the strategy; what is left out keeps its default."
    )
    rebalance: Period = Field(
        default="month", description="All weights are traded back to at the first open of each such period."
    )
    drift: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        allow_inf_nan=False,
        description="And whenever a weight is off its target by more than this, a fraction of equity.",
    )
    max_weight: float = Field(
        default=1.0, gt=0, le=1, allow_inf_nan=False, description="Most of the equity for one symbol."
    )
    exposure: float = Field(
        default=1.0,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Most of the equity for all of them together.",
    )
    min_trade: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="Trades of less than this fraction of equity are left out, unless they close a position.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        """Take the method from what only one method takes, and the symbols from the weights."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("weights") is None:
            values.pop("weights", None)
            named = {"weight": "given", "strategy": "strategy", "volatility_window": "inverse_volatility"}
            values |= next(({"weights": method} for field, method in named.items() if values.get(field)), {})
        weight = values.get("weight")
        if not values.get("symbols") and isinstance(weight, Mapping):
            values["symbols"] = [name for name in weight if isinstance(name, str)]
        return values

    @field_validator("symbols")
    @classmethod
    def _several_each_once(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(values) < 2:
            raise ValueError(f"a portfolio has 2 to {MOST_SYMBOLS:,} symbols, {len(values)} given")
        if len(set(values)) < len(values):
            twice = next(symbol for place, symbol in enumerate(values) if symbol in values[:place])
            raise ValueError(f"{twice} is given twice")
        return tuple(sorted(values))  # their order is no part of the result, and the request is hashed

    @field_validator("weight", mode="before")
    @classmethod
    def _each_named_once(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        if isinstance(values, Mapping):
            names = [str(name).strip().upper() for name in values]
            twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
            if twice is not None:
                raise ValueError(f"{twice} is given twice")
        return values

    @field_validator("weight")
    @classmethod
    def _of_the_symbols(cls, values: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        symbols = info.data.get("symbols")
        if symbols is None or not values:
            return values
        for symbol in values:
            if symbol not in symbols:
                raise _not_a_symbol(symbol, symbols)
        missing = [symbol for symbol in symbols if symbol not in values]
        if missing:
            raise ValueError(
                f"{missing[0]} has no weight ({len(missing)} such): give it one, 0 to leave it out"
            )
        return dict(sorted(values.items()))

    @model_validator(mode="after")
    def _fits_the_method(self) -> Self:
        for field, method in (
            ("weight", "given"),
            ("volatility_window", "inverse_volatility"),
            ("strategy", "strategy"),
            ("params", "strategy"),
        ):
            if getattr(self, field) and self.weights != method:
                raise ValueError(f"{field} is for weights {method}, not {self.weights}")
        if self.weights == "given" and not self.weight:
            raise ValueError("weights given need them: give weight, e.g. AAPL=0.6")
        if self.weights == "strategy" and self.strategy is None:
            raise ValueError("weights strategy need one: give strategy, e.g. momentum")
        return self

    @model_validator(mode="after")
    def _within_the_bounds(self) -> Self:
        total = sum(self.weight.values())
        if self.weight and total <= 0:
            raise ValueError("every weight is 0: nothing would be held")
        if total > self.exposure + _ROUNDING:
            raise ValueError(f"the weights add up to {total:g}, more than exposure {self.exposure:g}")
        for symbol, weight in self.weight.items():
            if weight > self.max_weight + _ROUNDING:
                raise ValueError(f"{symbol} has {weight:g}, more than max_weight {self.max_weight:g}")
        return self

    @property
    def window(self) -> int:
        """Returns that a volatility is taken over."""
        return self.volatility_window or 60

    def backtest(self, symbol: str) -> BacktestRequest:
        """Return the strategy's backtest on one of the symbols, on the same terms."""
        shared = {name: getattr(self, name) for name in TradingRequest.model_fields}
        return BacktestRequest(
            symbol=symbol, strategy=self.strategy or "momentum", params=self.params, **shared
        )


def _not_a_symbol(symbol: str, symbols: tuple[str, ...]) -> PydanticCustomError:
    from difflib import get_close_matches

    close = get_close_matches(symbol, symbols, n=1, cutoff=0.5)
    allowed = ", ".join(symbols[:20]) + (", …" if len(symbols) > 20 else "")
    message = f"{symbol} is none of the symbols"
    return PydanticCustomError(
        "unknown_name",
        "{message}",
        {"message": message, "allowed": allowed, "nearest": close[0] if close else None},
    )
