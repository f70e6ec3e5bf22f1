"""One bar of trading: the step that sweeps run compiled over whole arrays, and sessions bar by bar.

The rules are those of `gpt_trader.backtesting.execution`; vectorbt is this kernel's referee, in the tests on random
bars and at run time on what a sweep shows. In short: a target decided at a bar's close is filled at the next open; a
change of target closes what is held in full and opens anew; stops hang on the entry's fill price and are watched from
the bar after it, at the open first, then the loss before the profit; a position whose loss eats the account is
liquidated with exactly nothing left.

Everything is plain floats in named tuples, so that the same function runs compiled by numba and, as `step.py_func`, in
plain Python. Amounts are in the instrument's currency, units signed (short below 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numba import njit

from gpt_trader.costs import Commission, Slippage

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats
    from gpt_trader.requests import SimulationRequest, TradingRequest

#: Why a fill happened.
ENTRY: Final = 1
TARGET: Final = 2
STOP_LOSS: Final = 3
TAKE_PROFIT: Final = 4
RUIN: Final = 5

#: A cover that costs more than the cash by less than this is rounding.
_ROUNDING: Final = 1e-9


class CommissionTerms(NamedTuple):
    """`gpt_trader.costs.Commission` as numbers; no maximum is infinity."""

    rate: float
    per_unit: float
    per_order: float
    minimum: float
    maximum: float


class SlippageTerms(NamedTuple):
    """`gpt_trader.costs.Slippage` as numbers."""

    rate: float
    per_unit: float


class Terms(NamedTuple):
    """What a simulation costs and risks, as in `SimulationRequest`; a stop that is not set is NaN."""

    commission: CommissionTerms
    slippage: SlippageTerms
    size: float
    stop_loss: float
    take_profit: float


class Bar(NamedTuple):
    """Prices of one bar."""

    open: float
    high: float
    low: float
    close: float


class Prices(NamedTuple):
    """Prices of many bars, (n,) each."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats


class Curve(NamedTuple):
    """Room for what a simulation finds at each close: equity and signed units, (n,) each."""

    equity: Floats
    position: Floats

    @classmethod
    def empty(cls, bars: int) -> Curve:
        """Return room for so many bars."""
        return cls(np.empty(bars), np.empty(bars))


class Account(NamedTuple):
    """What is carried from bar to bar: cash, signed units, the entry's fill price, the target that was wanted last.

    `ruined` is 1.0 once nothing is left; nothing is traded then.
    """

    cash: float
    units: float
    entry_price: float
    wanted: float
    ruined: float


class Tally(NamedTuple):
    """What the trades of a simulation add up to.

    Entries, closed trades, those of them that won, bars held over the close; what won and what lost of the closed ones
    (currency, the latter ≤ 0); commission and slippage paid.
    """

    entries: int
    closed: int
    wins: int
    held: int
    gained: float
    lost: float
    costs: float


class Fill(NamedTuple):
    """One fill: signed units (0: there was none), price with slippage and before it, commission, why (`ENTRY`, …)."""

    units: float
    price: float
    reference: float
    commission: float
    reason: int


NOTHING: Final = Fill(0.0, 0.0, 0.0, 0.0, 0)


def terms_of(request: SimulationRequest) -> Terms:
    """Return a request's costs, size and stops."""
    loss = np.nan if request.stop_loss is None else request.stop_loss
    profit = np.nan if request.take_profit is None else request.take_profit
    return Terms(*costs_of(request), request.size, loss, profit)


def costs_of(request: TradingRequest) -> tuple[CommissionTerms, SlippageTerms]:
    """Return a request's costs alone."""
    commission, slippage = Commission.of(request.commission), Slippage.of(request.slippage)
    most = np.inf if commission.maximum is None else commission.maximum
    charged = (commission.rate, commission.per_unit, commission.per_order, commission.minimum)
    return CommissionTerms(*charged, most), SlippageTerms(slippage.rate, slippage.per_unit)


def prices_of(bars: Bars) -> Prices:
    """Return the prices of bars as the kernel takes them."""
    return Prices(*(np.ascontiguousarray(getattr(bars, name)) for name in Prices._fields))


def opened(capital: float) -> Account:
    """Return an account that holds cash alone."""
    return Account(float(capital), 0.0, 0.0, 0.0, 0.0)


@njit(cache=True, error_model="numpy", nogil=True)
def bound(values: Floats, low: float, high: float, slack: float, found: Floats) -> int:
    """Write the values (n,) within [low, high] to `found`; return the place of the first that is not in [−1, 1].

    −1 if all are, up to `slack`; NaN is not.
    """
    wrong = -1
    for i in range(len(values)):
        if not abs(values[i]) <= 1.0 + slack and wrong < 0:
            wrong = i
        found[i] = min(max(values[i], low), high)
    return wrong


@njit(cache=True, error_model="numpy", inline="always")
def step(account: Account, bar: Bar, wanted: float, terms: Terms) -> tuple[Account, Fill, Fill, Fill]:
    """Trade one bar and return the account at its close and three fills, each of which may be nothing, in order.

    The first left a position of an earlier bar, the second entered one, the third liquidated it at the close.

    `wanted` is the target decided at the close of the bar before, within [−1, 1].
    """
    cash, units, entry_price, held = account.cash, account.units, account.entry_price, account.wanted
    left, entered, liquidated = NOTHING, NOTHING, NOTHING
    if account.ruined:
        return account, left, entered, liquidated
    ruined = 0.0
    if units != 0.0:
        if cash + units * bar.open <= 0.0:
            left = _liquidated(cash, units)
            return Account(0.0, 0.0, 0.0, wanted, 1.0), left, entered, liquidated
        price, reason = exit_at(units, entry_price, bar, wanted != held, terms)
        if reason != 0:
            cash, left = _leave(cash, units, price, reason, terms)
            units = 0.0
            if left.reason == RUIN:
                return Account(0.0, 0.0, 0.0, wanted, 1.0), left, entered, liquidated
    if wanted not in (held, 0.0) and cash > 0.0:
        cash, entered = _enter(cash, wanted, bar.open, terms)
        units, entry_price = entered.units, entered.price if entered.units != 0.0 else entry_price
    if units != 0.0 and cash + units * bar.close <= 0.0:
        liquidated = _liquidated(cash, units)
        cash, units, ruined = 0.0, 0.0, 1.0
    return Account(cash, units, entry_price, wanted, ruined), left, entered, liquidated


@njit(cache=True, error_model="numpy", inline="always")
def exit_at(units: float, entry_price: float, bar: Bar, changed: bool, terms: Terms) -> tuple[float, int]:
    """Return at which price, before slippage, a position of an earlier bar is left, and why; reason 0: it stays."""
    if changed:
        return bar.open, TARGET
    side = 1.0 if units > 0.0 else -1.0
    # A stop that is not set is NaN, and no comparison with it holds.
    loss = entry_price * (1.0 - side * terms.stop_loss)
    profit = entry_price * (1.0 + side * terms.take_profit)
    if side * (bar.open - loss) <= 0.0:
        return bar.open, STOP_LOSS
    if side * (bar.open - profit) >= 0.0:
        return bar.open, TAKE_PROFIT
    worst, best = (bar.low, bar.high) if units > 0.0 else (bar.high, bar.low)
    if side * (worst - loss) <= 0.0:
        return loss, STOP_LOSS
    if side * (best - profit) >= 0.0:
        return profit, TAKE_PROFIT
    return 0.0, 0


@njit(cache=True, error_model="numpy", inline="always")
def commission_of(units: float, price: float, terms: CommissionTerms) -> float:
    """Return what a fill of so many units (signed) at this price is charged (`gpt_trader.costs.Commission`)."""
    size, notional = abs(units), abs(units) * price
    charged = notional * terms.rate + size * terms.per_unit + terms.per_order
    return min(max(charged, terms.minimum), notional * terms.maximum) if notional > 0.0 else 0.0


@njit(cache=True, error_model="numpy", inline="always")
def slipped(price: float, side: float, terms: SlippageTerms) -> float:
    """Return the price of a fill that buys (side 1) or sells (−1), never below 0 (`gpt_trader.costs.Slippage`)."""
    return max(price * (1.0 + side * terms.rate) + side * terms.per_unit, 0.0)


@njit(cache=True, error_model="numpy", inline="always")
def affordable(budget: float, price: float, terms: CommissionTerms) -> float:
    """Return how many units so much money buys at this price, commission included; 0 if it does not even pay that.

    The outlay units · price + commission(units) rises with the units in three straight pieces (the rates, the minimum,
    the maximum); solved for each, the commission's own max and min become the min and max of the units.
    """
    if price <= 0.0:
        return 0.0
    by_rates = (budget - terms.per_order) / (price * (1.0 + terms.rate) + terms.per_unit)
    units = by_rates if terms.minimum == 0.0 else min(by_rates, (budget - terms.minimum) / price)
    units = units if terms.maximum == np.inf else max(units, budget / (price * (1.0 + terms.maximum)))
    return max(units, 0.0)


@njit(cache=True, error_model="numpy", inline="always")
def _liquidated(cash: float, units: float) -> Fill:
    """Return the fill that leaves exactly nothing of an account."""
    price = -cash / units
    return Fill(-units, price, price, 0.0, RUIN)


@njit(cache=True, error_model="numpy", inline="always")
def _leave(cash: float, units: float, price: float, reason: int, terms: Terms) -> tuple[float, Fill]:
    """Return the cash after a position is sold or covered, and the fill; a cover that cannot be paid is a ruin."""
    fill_price = slipped(price, -1.0 if units > 0.0 else 1.0, terms.slippage)
    commission = commission_of(units, fill_price, terms.commission)
    if units < 0.0 and -units * fill_price + commission > cash * (1.0 + _ROUNDING):
        return 0.0, _liquidated(cash, units)
    if units > 0.0:  # a sale costs no more than it brings
        commission = min(commission, units * fill_price)
    return cash + units * fill_price - commission, Fill(-units, fill_price, price, commission, reason)


def sold(equity: float, units: float, price: float, terms: Terms) -> float:
    """Return what an account of this equity has in cash once its units (signed) are sold or covered at a price."""
    if units == 0.0:
        return equity
    cash, _ = _leave.py_func(equity - units * price, units, price, TARGET, terms)
    return float(cash)


@njit(cache=True, error_model="numpy", inline="always")
def _enter(cash: float, wanted: float, price: float, terms: Terms) -> tuple[float, Fill]:
    """Return the cash after |wanted| · size of it has become a position, commission included, and the fill.

    What is worth less than its own commission is not entered.
    """
    side = 1.0 if wanted > 0.0 else -1.0
    fill_price = slipped(price, side, terms.slippage)
    units = side * affordable(abs(wanted) * terms.size * cash, fill_price, terms.commission)
    commission = commission_of(units, fill_price, terms.commission)
    if units == 0.0 or commission > abs(units) * fill_price:
        return cash, NOTHING
    return cash - units * fill_price - commission, Fill(units, fill_price, price, commission, ENTRY)


@njit(cache=True, error_model="numpy", nogil=True)
def run(prices: Prices, targets: Floats, capital: float, terms: Terms, curve: Curve) -> Tally:
    """Step through all bars, write `curve`, and return what the trades add up to.

    `targets` is (n,): `targets[i]`, decided at the close of bar i, is filled at the open of bar i + 1, the last one
    never.
    """
    account = Account(capital, 0.0, 0.0, 0.0, 0.0)
    entries, closed, wins, held = 0, 0, 0, 0
    gained, lost, costs, wanted, paid_in = 0.0, 0.0, 0.0, 0.0, 0.0
    unwatched = np.isnan(terms.stop_loss) and np.isnan(terms.take_profit)
    i, bars = 0, len(targets)
    while i < bars:
        cash, units = account.cash, account.units
        paid = cash >= -_ROUNDING * units * account.entry_price
        if wanted == account.wanted and (units == 0.0 or (units > 0.0 and paid and unwatched)):
            # Nothing can happen until the target changes: there is no position, or a long one that is paid and has no
            # stop. A step would only value it; most bars are like that.
            begun = i
            while i < bars:
                curve.equity[i] = cash + units * prices.close[i]
                curve.position[i] = units
                i += 1
                if targets[i - 1] != wanted:
                    break
            held += i - begun if units != 0.0 else 0
            wanted = targets[i - 1]
            continue
        bar = Bar(prices.open[i], prices.high[i], prices.low[i], prices.close[i])
        entry_price = account.entry_price
        account, left, entered, liquidated = step(account, bar, wanted, terms)
        wanted = targets[i]
        if left.units != 0.0:
            result = _result(left, entry_price, paid_in)
            closed += 1
            wins += 1 if result > 0.0 else 0
            gained += max(result, 0.0)
            lost += min(result, 0.0)
            costs += _costs(left)
        if entered.units != 0.0:
            entries += 1
            entry_price, paid_in = entered.price, entered.commission
            costs += _costs(entered)
        if liquidated.units != 0.0:
            closed += 1
            lost += _result(liquidated, entry_price, paid_in)
        curve.equity[i] = account.cash + account.units * bar.close
        curve.position[i] = account.units
        held += 1 if account.units != 0.0 else 0
        i += 1
    return Tally(entries, closed, wins, held, gained, lost, costs)


@njit(cache=True, error_model="numpy", inline="always")
def _result(left: Fill, entry_price: float, paid_in: float) -> float:
    """Return what a trade made, both commissions paid; in vectorbt's order of sums, so that a trade at cost makes 0."""
    size = abs(left.units)
    gain = size * left.price - size * entry_price
    return (gain if left.units < 0.0 else -gain) - paid_in - left.commission


@njit(cache=True, error_model="numpy", inline="always")
def _costs(fill: Fill) -> float:
    """Return commission and what slippage cost; a liquidation of all that is left costs neither."""
    return fill.commission + abs(fill.units) * abs(fill.price - fill.reference)


@njit(cache=True, error_model="numpy", nogil=True)
def record(prices: Prices, targets: Floats, capital: float, terms: Terms, found: Floats) -> None:
    """Step through all bars and write every fill to `found` (n, 3, 5): by bar, in `step`'s order, a `Fill`'s fields.

    Targets as in `run`; where nothing was filled, all are 0.
    """
    account, wanted = Account(capital, 0.0, 0.0, 0.0, 0.0), 0.0
    for i in range(len(targets)):
        bar = Bar(prices.open[i], prices.high[i], prices.low[i], prices.close[i])
        account, left, entered, liquidated = step(account, bar, wanted, terms)
        wanted = targets[i]
        for place, fill in enumerate((left, entered, liquidated)):
            found[i, place, 0], found[i, place, 1], found[i, place, 2] = (
                fill.units,
                fill.price,
                fill.reference,
            )
            found[i, place, 3], found[i, place, 4] = fill.commission, fill.reason


def simulate(bars: Bars, targets: Floats, request: SimulationRequest) -> Curve:
    """Return equity and units at each close, as `gpt_trader.backtesting.execution.execute` finds them.

    Args as there: bars of the range only, targets within the request's direction.
    """
    curve = Curve.empty(len(bars))
    run(prices_of(bars), np.ascontiguousarray(targets), request.capital, terms_of(request), curve)
    return curve
