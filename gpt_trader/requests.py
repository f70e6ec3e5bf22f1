"""One frozen model a slice: the same object for CLI, REST and flow.

Fields marked `output option` change what is written, not what is computed: they stay out of the result hash.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gpt_trader.instruments import TIMEFRAMES, Symbol

ParamValue = bool | int | float | str


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


class BacktestRequest(Request):
    """Simulate one strategy on one symbol's stored bars."""

    #: Where the bars came from is no option of the result: their own hash is in it.
    output_options: ClassVar[frozenset[str]] = frozenset({"report", "snapshot", "source"})

    symbol: Symbol = Field(description="Instrument id, as in the lake.")
    strategy: str = Field(
        default="momentum",
        min_length=1,
        max_length=200,
        description="A registered strategy, or the stored id of a user's own (user:SHA256:Class).",
    )
    params: dict[str, ParamValue] = Field(
        default_factory=dict, description="Parameters of the strategy; what is left out keeps its default."
    )
    start: date | None = Field(default=None, description="First day, inclusive; default: first stored bar.")
    end: date | None = Field(default=None, description="Last day, inclusive; default: last stored bar.")
    timeframe: Annotated[str, Field(examples=["1d"])] = "1d"
    direction: Literal["long", "short", "both"] = "long"
    capital: float = Field(default=10_000.0, gt=0, le=1e12, allow_inf_nan=False, description="Initial cash.")
    commission: float = Field(
        default=0.001, ge=0, lt=0.5, allow_inf_nan=False, description="Fraction of an order's notional."
    )
    slippage: float = Field(
        default=0.0005, ge=0, lt=0.5, allow_inf_nan=False, description="Fraction of the fill price."
    )
    size: float = Field(
        default=1.0, gt=0, le=1, allow_inf_nan=False, description="Fraction of equity put into a position."
    )
    stop_loss: float | None = Field(
        default=None, gt=0, lt=1, description="Fraction below (short: above) the fill price."
    )
    take_profit: float | None = Field(
        default=None, gt=0, le=100, description="Fraction above (short: below) the fill price."
    )
    source: str | None = Field(
        default=None, description="Source to ingest from where the lake lacks the symbol (default: settings)."
    )
    snapshot: str | None = Field(
        default=None, description="Snapshot of the lake to read; default: the newest."
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    report: bool = Field(default=True, description="Output option: write the HTML report and the picture.")

    @field_validator("timeframe")
    @classmethod
    def _timeframe(cls, value: str) -> str:
        return _known_timeframe(value)

    @field_validator("strategy")
    @classmethod
    def _one_spelling(cls, value: str) -> str:
        # Both spellings name the same strategy, and the request is hashed.
        return value if ".py" in value or value.startswith("user:") else value.replace("-", "_")

    @model_validator(mode="after")
    def _dates_in_order(self) -> BacktestRequest:
        if self.start and self.end and self.start > self.end:
            raise ValueError(f"start {self.start} is after end {self.end}: give start ≤ end")
        return self


class DataRequest(Request):
    """Bring bars of one or more symbols from a source into the lake (`data ingest`)."""

    symbols: tuple[Symbol, ...] = Field(
        default=(), max_length=2000, description="Instrument ids; empty: every symbol the source lists."
    )
    source: str | None = Field(default=None, description="sample or csv; default: the settings' source.")
    timeframe: str = "1d"
    start: date | None = None
    end: date | None = None
    file: str | None = Field(
        default=None, max_length=4096, description="csv source: path of the CSV or Parquet file."
    )
    columns: dict[Literal["timestamp", "open", "high", "low", "close", "volume", "adjusted_close"], str] = (
        Field(default_factory=dict, description="csv source: our column name → the file's.")
    )
    timezone: str = Field(default="UTC", max_length=64, description="csv source: zone of naive times.")
    calendar: str | None = Field(
        default=None, description="Trading calendar of the symbols, e.g. XNYS, 24/7."
    )

    @field_validator("timeframe")
    @classmethod
    def _timeframe(cls, value: str) -> str:
        return _known_timeframe(value)

    @model_validator(mode="before")
    @classmethod
    def _a_file_is_a_csv_source(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        if isinstance(values, dict) and values.get("file") and not values.get("source"):
            return {**values, "source": "csv"}
        return values

    @model_validator(mode="after")
    def _file_needs_one_symbol(self) -> DataRequest:
        if self.source == "csv" and not self.file:
            raise ValueError("source csv needs a file: give --file PATH")
        if self.file and self.source != "csv":
            raise ValueError(f"source {self.source} reads no file; file is for source csv")
        unused = [name for name in ("columns", "calendar") if getattr(self, name) and not self.file]
        if unused:
            raise ValueError(f"{unused[0]} describes a file, and no file is given: add --file PATH")
        if self.file and len(self.symbols) != 1:
            raise ValueError(f"one file holds one symbol, {len(self.symbols)} given: name it with --symbol")
        if self.start and self.end and self.start > self.end:
            raise ValueError(f"start {self.start} is after end {self.end}: give start ≤ end")
        return self
