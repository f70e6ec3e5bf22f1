"""One frozen model a slice: the same object for CLI, REST and flow.

Fields marked `output option` change what is written, not what is computed: they stay out of the result hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gpt_trader.adapters.names import RESAMPLE, source_name
from gpt_trader.costs import CommissionTerms, SlippageTerms
from gpt_trader.instruments import TIMEFRAMES, Symbol


def one_complaint(message: str, *, allowed: str | None = None, word: str | None = None) -> WrapValidator:
    """Return what says once what a value must be, where pydantic complains once for each type of a union.

    Args:
        message: What is wrong with it.
        allowed: What may be given instead.
        word: The one word that is allowed beside numbers: the nearest to any other word.
    """

    def checked(value: object, accept: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401 - what it accepts
        try:
            return accept(value)
        except ValidationError:
            context = {"allowed": allowed, "nearest": word if _is_word(value) else None}
            raise PydanticCustomError("value", message, context) from None

    return WrapValidator(checked)


def _is_word(value: object) -> bool:
    """Whether it is a text that is meant as no number."""
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


ParamValue = Annotated[
    bool | int | FiniteFloat | str, one_complaint("Input should be a finite number, text, or true or false")
]
Number = Annotated[int | FiniteFloat, one_complaint("Input should be a finite number")]


def _known_timeframe(value: str) -> str:
    if value not in TIMEFRAMES:
        raise ValueError(f"{value[:20]!r} is not one of {', '.join(TIMEFRAMES)}")
    return value


class Request(BaseModel):
    """What every request has: a schema version, and a refusal of fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"additionalProperties": False})

    #: Names of fields that are output options (see the module's docstring).
    output_options: ClassVar[frozenset[str]] = frozenset()

    schema_version: Literal[1] = 1

    def canonical(self) -> dict[str, Any]:
        """Return what the result depends on, JSON-ready: the request without its output options."""
        return self.model_dump(mode="json", exclude=set(self.output_options))


class TradingRequest(Request):
    """A range of stored bars and the terms on which they are traded: what every simulation shares."""

    #: Where the bars came from is no option of the result: their own hash is in it.
    output_options: ClassVar[frozenset[str]] = frozenset({"report", "snapshot", "source", "on_gaps"})

    start: date | None = Field(default=None, description="First day, inclusive; default: first stored bar.")
    end: date | None = Field(default=None, description="Last day, inclusive; default: last stored bar.")
    timeframe: Annotated[str, Field(examples=["1d"])] = "1d"
    capital: float = Field(default=10_000.0, gt=0, le=1e12, allow_inf_nan=False, description="Initial cash.")
    commission: CommissionTerms = Field(
        default=0.001, description="Fraction of an order's notional, or a model of what a fill costs."
    )
    slippage: SlippageTerms = Field(
        default=0.0005, description="Fraction of the fill price, or a model of how much worse a fill is."
    )
    source: str | None = Field(
        default=None, description="Source to ingest from where the lake lacks the symbol (default: settings)."
    )
    snapshot: str | None = Field(
        default=None,
        max_length=64,
        description="Version of the lake to read: a snapshot's id, or a time (the newest then); default: the newest.",
    )
    on_gaps: Literal["warn", "mark", "refuse"] = Field(
        default="mark",
        description="Output option. Bars that the calendar expects and the lake lacks: say so, mark the trades they "
        "affect as well, or refuse to run.",
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    report: bool = Field(default=True, description="Output option: write the HTML report (and picture).")

    @field_validator("timeframe")
    @classmethod
    def _timeframe(cls, value: str) -> str:
        return _known_timeframe(value)

    @field_validator("source")
    @classmethod
    def _source(cls, value: str | None) -> str | None:
        return None if value is None else source_name(value)

    @model_validator(mode="after")
    def _dates_in_order(self) -> Self:
        if self.start and self.end and self.start > self.end:
            raise ValueError(f"start {self.start} is after end {self.end}: give start ≤ end")
        return self


def one_spelling(strategy: str) -> str:
    """Return a strategy's name as it is registered: `ma-crossover` names it too, and the request is hashed."""
    return strategy if ".py" in strategy or strategy.startswith("user:") else strategy.replace("-", "_")


#: A strategy's name in a request.
StrategyName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="A registered strategy, or the stored id of a user's own (user:SHA256:Class).",
    ),
    AfterValidator(one_spelling),
]


class SimulationRequest(TradingRequest):
    """One strategy on one symbol's stored bars, and the terms on which it trades."""

    symbol: Symbol = Field(description="Instrument id, as in the lake.")
    strategy: StrategyName = "momentum"
    direction: Literal["long", "short", "both"] = "long"
    size: float = Field(
        default=1.0, gt=0, le=1, allow_inf_nan=False, description="Fraction of equity put into a position."
    )
    stop_loss: float | None = Field(
        default=None, gt=0, lt=1, description="Fraction below (short: above) the fill price."
    )
    take_profit: float | None = Field(
        default=None, gt=0, le=100, description="Fraction above (short: below) the fill price."
    )


class BacktestRequest(SimulationRequest):
    """Simulate one strategy on one symbol's stored bars."""

    params: dict[str, ParamValue] = Field(
        default_factory=dict, description="Parameters of the strategy; what is left out keeps its default."
    )


class ValueRange(BaseModel):
    """Values of a parameter from `low` to `high`, both inclusive, `step` apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: Number
    high: Number
    step: Number = Field(default=1, json_schema_extra={"exclusiveMinimum": 0})

    @field_validator("step")
    @classmethod
    def _forward(cls, value: int | float) -> int | float:
        if value <= 0:
            raise ValueError("Input should be greater than 0")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: give low ≤ high")
        return self


#: For pydantic alone: `validation` leaves names that begin like this out of a field.
_RANGE, _LIST = "function-range", "function-list"


def _kind_of_values(value: object) -> str | None:
    if isinstance(value, Mapping | ValueRange):
        return _RANGE
    return _LIST if isinstance(value, list | tuple) else None


SearchValues = Annotated[
    Annotated[ValueRange, Tag(_RANGE)] | Annotated[tuple[ParamValue, ...], Tag(_LIST)],
    Discriminator(
        _kind_of_values,
        custom_error_type="values",
        custom_error_message="Input should be a list of values, or a range with low, high and step",
    ),
]

Objective = Literal[
    "sharpe",
    "sortino",
    "calmar",
    "total_return",
    "annualized_return",
    "max_drawdown",
    "win_rate",
    "profit_factor",
    "expectancy",
]


#: Each choice of a Parzen estimator weighs all trials before it: 5,000 take it some four minutes.
MOST_TPE_TRIALS: Final = 5_000


class WalkForward(BaseModel):
    """How to walk forward: choose on a stretch of bars, trade the next one with what was chosen, move on.

    The range is divided into `windows` test stretches of equal length, with a training stretch of `train` times that
    length before the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: int = Field(default=8, ge=2, le=200, description="Test stretches.")
    train: float = Field(
        default=4.0, gt=0, le=50, description="Length of the first training stretch, in test stretches."
    )
    anchored: bool = Field(
        default=False, description="Train from the first bar on, instead of on a stretch that rolls along."
    )
    purge: int = Field(default=0, ge=0, le=10_000, description="Bars left out between training and test.")
    embargo: int = Field(
        default=0, ge=0, le=10_000, description="Bars after each test that no later training is measured on."
    )


class OptimizeRequest(SimulationRequest):
    """Search a strategy's parameters on one symbol's stored bars, and tell whether to believe the best.

    Parameters that `space` does not name are searched over the values that the strategy declares, or keep their
    default where it declares none; `params` fixes some of them.
    """

    params: dict[str, ParamValue] = Field(
        default_factory=dict, description="Parameters that are not searched, with their values."
    )
    space: dict[str, SearchValues] = Field(
        default_factory=dict,
        description="Values to search by parameter, instead of those that the strategy declares: a list, or "
        '{"low": 5, "high": 50, "step": 5}.',
    )
    method: Literal["grid", "random", "tpe"] = Field(
        default="grid",
        description="Every combination, or `trials` of them without repetition: drawn, or chosen by what was found so "
        "far (a tree-structured Parzen estimator).",
    )
    trials: int | None = Field(
        default=None,
        ge=1,
        le=250_000,
        description="Combinations to try at most (random, and tpe up to 5,000; default 200).",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=250_000,
        description="Stop when so many trials in a row have not bettered the best (random, tpe).",
    )
    objective: Objective = Field(default="sharpe", description="The metric that the best has most of.")
    min_trades: int = Field(
        default=1, ge=0, description="A combination that trades less often is not chosen."
    )
    max_drawdown: float | None = Field(
        default=None, gt=0, le=1, description="A combination that falls deeper from a peak is not chosen."
    )
    walk_forward: WalkForward | None = Field(
        default=None, description="Walk forward as well: what choosing like this would have made unseen."
    )
    top: int = Field(default=10, ge=1, le=100, description="So many of the best are shown, and verified.")

    @model_validator(mode="after")
    def _fits_the_method(self) -> Self:
        if self.trials is not None and self.method == "grid":
            raise ValueError("trials is for method random or tpe: a grid tries every combination")
        if self.patience is not None and self.method == "grid":
            raise ValueError(
                "patience is for method random or tpe: a grid tries every combination, and its order says nothing"
            )
        if self.method == "tpe" and self.trials is not None and self.trials > MOST_TPE_TRIALS:
            raise ValueError(
                f"trials {self.trials:,} are more than tpe takes, {MOST_TPE_TRIALS:,} at most (each choice weighs all "
                "before it): give fewer, or method random"
            )
        both = sorted(self.params.keys() & self.space.keys())
        if both:
            raise ValueError(f"{both[0]} is both fixed by params and searched by space: leave it out of one")
        return self

    def backtest(self, params: dict[str, Any]) -> BacktestRequest:
        """Return the backtest of one combination: the same terms, and these parameters."""
        shared = {name: getattr(self, name) for name in SimulationRequest.model_fields}
        return BacktestRequest(**shared, params=params)


class DataRequest(Request):
    """Bring bars of one or more symbols from a source into the lake (`data ingest`).

    What is stored already is not fetched again: a series goes on behind its last bar, and before its first one where
    `start` is earlier. `refresh` does that for every stored series, each from the source it came from.
    """

    symbols: tuple[Symbol, ...] = Field(
        default=(),
        max_length=2000,
        description="Instrument ids; empty: every symbol the source lists (refresh: every stored one).",
    )
    source: str | None = Field(
        default=None,
        max_length=80,
        description="sample, csv, yahoo, alpaca, ccxt:VENUE or synthetic; resample: made from stored finer bars; "
        "default: the settings' source.",
    )
    timeframes: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=7,
        description="Lengths of a bar, of 1m, 5m, 15m, 1h, 4h, 1d, 1w; what the source lacks is made from finer bars. "
        "Default: 1d (refresh: all that are stored).",
        examples=[["1d"], ["1m", "1h"]],
    )
    start: date | None = Field(default=None, description="First day, inclusive; default: the first there is.")
    end: date | None = Field(default=None, description="Last day, inclusive; default: the last there is.")
    refresh: bool = Field(
        default=False, description="Bring the stored series up to date, each from its own source."
    )
    refetch: bool = Field(
        default=False, description="Fetch what is stored as well: finds what the source has restated."
    )
    replace: bool = Field(
        default=False, description="Put what comes in the place of all that is stored, instead of merging it."
    )
    file: str | None = Field(
        default=None, max_length=4096, description="csv source: path of the CSV or Parquet file."
    )
    columns: dict[Literal["timestamp", "open", "high", "low", "close", "volume", "adjusted_close"], str] = (
        Field(default_factory=dict, description="csv source: our column name → the file's.")
    )
    timezone: str = Field(default="UTC", max_length=64, description="csv source: zone of naive times.")
    label: Literal["open", "close"] = Field(
        default="open", description="csv source: does an intraday time name a bar's open or its close?"
    )
    calendar: str | None = Field(
        default=None, max_length=40, description="Trading calendar of the symbols, e.g. XNYS, CMES, 24/7."
    )

    @field_validator("timeframes")
    @classmethod
    def _timeframes(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if values is None:
            return None
        return tuple(t for t in TIMEFRAMES if t in {_known_timeframe(value) for value in values})

    @field_validator("source")
    @classmethod
    def _source(cls, value: str | None) -> str | None:
        return value if value in (None, RESAMPLE) else source_name(value)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        """Take `timeframe` for one of `timeframes`, and a file for a csv source."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if "timeframe" in values and "timeframes" not in values:
            one = values.pop("timeframe")
            values["timeframes"] = [one] if isinstance(one, str) else one
        if values.get("file") and not values.get("source"):
            values["source"] = "csv"
        return values

    @model_validator(mode="after")
    def _file_needs_one_symbol(self) -> DataRequest:
        if self.refresh and (self.source or self.file):
            raise ValueError("refresh asks each series' own source: leave source and file out")
        if self.refresh and self.replace:
            raise ValueError("refresh goes on with what is stored, replace drops it: give one of them")
        if self.source == "csv" and not self.file:
            raise ValueError("source csv needs a file: give --file PATH")
        if self.file and self.source != "csv":
            raise ValueError(f"source {self.source} reads no file; file is for source csv")
        given = {"columns": self.columns, "label": self.label != "open", "timezone": self.timezone != "UTC"}
        unused = [name for name, said in given.items() if said and not self.file]
        if unused:
            raise ValueError(f"{unused[0]} describes a file, and no file is given: add --file PATH")
        if self.file and len(self.symbols) != 1:
            raise ValueError(f"one file holds one symbol, {len(self.symbols)} given: name it with --symbol")
        if self.file and len(self.timeframes or ("1d",)) != 1:
            raise ValueError(
                f"one file holds bars of one length, {len(self.timeframes or ())} given: name it with --timeframe"
            )
        if self.start and self.end and self.start > self.end:
            raise ValueError(f"start {self.start} is after end {self.end}: give start ≤ end")
        return self
