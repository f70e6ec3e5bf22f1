"""What trading costs: commission and slippage, each a model of named parts. A bare number is a model's rate alone.

The models say what is charged; the formulas that charge it are in `gpt_trader.simulation.kernel`, once for all modes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

#: For pydantic alone: `validation` leaves names that begin like this out of a field.
_NUMBER, _PARTS = "function-number", "function-parts"

Fraction = Annotated[float, Field(ge=0, lt=0.5, allow_inf_nan=False)]
Money = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Commission(BaseModel):
    """What a broker charges for one fill: rate · notional + per_unit · units + per_order.

    No less than `minimum`, and no more than `maximum` · notional, which goes before the minimum (as Interactive
    Brokers' fixed pricing does). Amounts are in the instrument's currency.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: Fraction = Field(default=0.0, description="Fraction of the fill's notional.")
    per_unit: Money = Field(default=0.0, description="Currency for each share, coin or contract.")
    per_order: Money = Field(default=0.0, description="Currency for each fill.")
    minimum: Money = Field(default=0.0, description="Currency that a fill costs at least.")
    maximum: float | None = Field(
        default=None, gt=0, lt=0.5, description="Fraction of the notional that a fill costs at most."
    )

    @property
    def is_rate(self) -> bool:
        """Whether it is a fraction of the notional and nothing else."""
        return self == Commission(rate=self.rate)

    @classmethod
    def of(cls, value: float | Commission) -> Commission:
        """Return a number as the model that it stands for."""
        return value if isinstance(value, Commission) else cls(rate=value)


#: A sale brings at least this share of the price: nobody pays to be rid of a share. Rates alone never get there.
LEAST_BROUGHT: Final = 0.1


class Slippage(BaseModel):
    """How much worse than the price a fill is: rate · price + per_unit, to the disadvantage of whoever trades.

    A sale brings no less than `LEAST_BROUGHT` of the price, where `per_unit` would take more of it, or all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: Fraction = Field(default=0.0, description="Fraction of the price.")
    per_unit: Money = Field(default=0.0, description="Currency a unit: half the spread, or ticks.")

    @property
    def is_rate(self) -> bool:
        """Whether it is a fraction of the price and nothing else."""
        return self.per_unit == 0.0

    @classmethod
    def of(cls, value: float | Slippage) -> Slippage:
        """Return a number as the model that it stands for."""
        return value if isinstance(value, Slippage) else cls(rate=value)


def _parts(value: object) -> object:
    """Return `per_unit=0.005,minimum=1` as a mapping; anything else as it is."""
    if not (isinstance(value, str) and "=" in value):
        return value
    parts = [part.partition("=") for part in value.split(",")]
    return {name.strip(): amount.strip() for name, _, amount in parts}


def _kind(value: object) -> str:
    return _PARTS if isinstance(value, Mapping | BaseModel) else _NUMBER


def _one_spelling(value: Any) -> Any:  # noqa: ANN401 - of either model
    """Return a model that is a rate alone as its number: the request is hashed."""
    return value.rate if isinstance(value, Commission | Slippage) and value.is_rate else value


_CHOICE: Final = (BeforeValidator(_parts), AfterValidator(_one_spelling))

CommissionTerms = Annotated[
    Annotated[Fraction, Tag(_NUMBER)] | Annotated[Commission, Tag(_PARTS)], Discriminator(_kind), *_CHOICE
]
SlippageTerms = Annotated[
    Annotated[Fraction, Tag(_NUMBER)] | Annotated[Slippage, Tag(_PARTS)], Discriminator(_kind), *_CHOICE
]
