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

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt_trader.compiling import compiled
from gpt_trader.costs import LEAST_BROUGHT, Commission, Slippage

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats, Sides
    from gpt_trader.requests import SimulationRequest, TradingRequest

#: Why a fill happened.
ENTRY: Final = 1
TARGET: Final = 2
STOP_LOSS: Final = 3
TAKE_PROFIT: Final = 4
RUIN: Final = 5

#: Blocks of time for which sums are kept: what combinatorially symmetric cross-validation is made of.
BLOCKS: Final = 16

#: The columns of a row of sums, before those of the blocks: Σr, Σr², Σ min(r, 0)² and growth (a logarithm) of each.
COLUMNS: Final = (
    "final",  # equity at the last close
    "mean",  # of the bars' returns
    "m2",  # Σ (r − mean)²
    "downside",  # Σ min(r, 0)²
    "depth",  # of the deepest drawdown, ≤ 0
    "entries",
    "closed",
    "wins",
    "gained",
    "lost",
    "held",
)
WIDTH: Final = len(COLUMNS) + 4 * BLOCKS

#: Bars of which the lowest and the highest close are looked at, in place of each, where nothing happens.
SPAN: Final = 16

#: Cash that is so small a share of a position, of either sign, is rounding.
_NEGLIGIBLE: Final = 1e-14

#: The growth of a block that leaves nothing: a logarithm that can be added still.
_RUINED: Final = -700.0

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


class Sums(NamedTuple):
    """What a curve adds up to so far: its last equity; since the block of time began Σr, Σr², Σ min(r, 0)².

    And its peak, the deepest fall (≤ 0), the equity below which a fall from this peak were deeper; the number of the
    block, the first bar behind it, the equity before it; and how many bars there are in all.
    """

    last: float
    total: float
    squares: float
    downside: float
    peak: float
    depth: float
    floor: float
    block: int
    edge: int
    begun: float
    bars: int


class Market(NamedTuple):
    """What of the closes (n,) is the same for every trial.

    `sums` are Σr, Σr² and Σ min(r, 0)² of their returns before each bar and before the end, (n + 1, 3). `lowest` and
    `highest` are those of each `SPAN` closes, (spans,); of the last span those that there are.
    """

    close: Floats
    sums: Floats
    lowest: Floats
    highest: Floats


class Rows(NamedTuple):
    """Room for what a sweep finds: a row of sums a trial, (m, `WIDTH`).

    Targets that are not all numbers within `low` and `high` are traded nowhere: `odd` (m,) is true there, the row NaN.
    """

    market: Market
    low: float
    high: float
    sums: Floats
    odd: NDArray[np.bool_]


class Wishes(NamedTuple):
    """Targets of many trials, (m, n): float64, or int8 where each is −1, 0 or 1; and their bits as integers (m, n)."""

    targets: Floats | Sides
    bits: NDArray[np.int64] | Sides

    @classmethod
    def of(cls, targets: Floats | Sides) -> Wishes:
        """Return targets, C-contiguous, with their bits."""
        bits: NDArray[Any] = targets if targets.dtype == np.int8 else targets.view(np.int64)
        return cls(targets, bits)


class Wanted(NamedTuple):
    """Targets (n,), and the bars whose target is another than that of the bar before."""

    targets: Floats | Sides
    changes: NDArray[np.int64]


class Steps(NamedTuple):
    """Bars that were stepped through, and what was held at their closes and until the next one: (steps,) each.

    Before the first of them all is cash.
    """

    bar: NDArray[np.int64]
    cash: Floats
    units: Floats


class Held(NamedTuple):
    """What is held over the closes of bars [first, stop)."""

    first: int
    stop: int
    cash: float
    units: float


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


@compiled(nogil=True)
def bound(values: Floats, low: float, high: float, slack: float, found: Floats) -> int:
    """Write the values (n,) within [low, high] to `found`; return the place of the first that is not in [−1, 1].

    −1 if all are, up to `slack`; NaN is not.
    """
    wrong = 0
    for i in range(len(values)):
        value = values[i]
        wrong += 0 if abs(value) <= 1.0 + slack else 1
        value = value if value > low else low
        found[i] = value if value < high else high
    if wrong == 0:
        return -1
    first = 0
    while abs(values[first]) <= 1.0 + slack:
        first += 1
    return first


@compiled(inline="always")
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


@compiled(inline="always")
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


@compiled(inline="always")
def commission_of(units: float, price: float, terms: CommissionTerms) -> float:
    """Return what a fill of so many units (signed) at this price is charged (`gpt_trader.costs.Commission`)."""
    size, notional = abs(units), abs(units) * price
    charged = notional * terms.rate + size * terms.per_unit + terms.per_order
    return min(max(charged, terms.minimum), notional * terms.maximum) if notional > 0.0 else 0.0


@compiled(inline="always")
def slipped(price: float, side: float, terms: SlippageTerms) -> float:
    """Return the price of a fill that buys (side 1) or sells (−1), above 0 (`gpt_trader.costs.Slippage`)."""
    return max(price * (1.0 + side * terms.rate) + side * terms.per_unit, LEAST_BROUGHT * price)


@compiled(inline="always")
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


@compiled(inline="always")
def _liquidated(cash: float, units: float) -> Fill:
    """Return the fill that leaves exactly nothing of an account."""
    price = -cash / units
    return Fill(-units, price, price, 0.0, RUIN)


@compiled(inline="always")
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


@compiled(inline="always")
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


@compiled(nogil=True)
def run(prices: Prices, targets: Floats, capital: float, terms: Terms, curve: Curve) -> Tally:
    """Step through all bars, write `curve`, and return what the trades add up to.

    `targets` is (n,): `targets[i]`, decided at the close of bar i, is filled at the open of bar i + 1, the last one
    never.
    """
    changes, steps = np.empty(len(targets), np.int64), _steps(len(targets))
    many = _changes(targets.view(np.int64), changes)
    done, tally = _trade(prices, Wanted(targets, changes[:many]), capital, terms, steps)
    if len(curve.equity) > 0:
        _draw(prices.close, capital, done, curve)
    return tally


@compiled(nogil=True)
def sweep(prices: Prices, wishes: Wishes, capital: float, terms: Terms, rows: Rows) -> None:
    """Simulate many targets as `run` does one, keep no curve, and write a row of sums each."""
    targets = wishes.targets
    changes, steps = np.empty(targets.shape[1], np.int64), _steps(targets.shape[1])
    for trial in range(len(targets)):
        # Each value is one that some bar changed to, or the 0 before the first: the others need no look.
        wrong, many = 0, _changes(wishes.bits[trial], changes)
        for at in changes[:many]:
            wrong += 0 if rows.low <= targets[trial, at] <= rows.high else 1
        rows.odd[trial] = wrong > 0
        if wrong > 0:
            rows.sums[trial] = np.nan
        else:
            wanted = Wanted(targets[trial], changes[:many])
            done, tally = _trade(prices, wanted, capital, terms, steps)
            sums = _add_up(rows.market, capital, done, rows.sums[trial])
            _conclude(sums, tally, rows.sums[trial])


@compiled(nogil=True)
def summarize(equity: Floats, capital: float, tally: Tally, row: Floats) -> None:
    """Write the row (`WIDTH`,) of an equity curve (n,), as `sweep` does without one."""
    sums = _nothing(capital, len(equity))
    for i in range(len(equity)):
        sums = _flushed(_added(sums, equity[i]), i + 1, row)
    _conclude(sums, tally, row)


@compiled(inline="always")
def _changes(bits: NDArray[np.int64] | Sides, found: NDArray[np.int64]) -> int:
    """Write the bars whose target has other bits than the one before (before the first: 0), return how many."""
    whole = len(bits) // 8 * 8
    differs = np.empty(len(bits), np.uint8)
    later, before, found_later = bits[1:], bits[:-1], differs[1:]
    for k in range(len(later)):  # many at once
        found_later[k] = (later[k] ^ before[k]) != 0
    differs[:1] = bits[:1] != 0
    count = 0
    for word, eight in enumerate(differs[:whole].view(np.uint64)):
        if eight != 0:
            for i in range(8 * word, 8 * word + 8):
                found[count] = i  # kept only if it differs: a branch would be guessed wrong each time
                count += differs[i]
    for i in range(whole, len(bits)):
        found[count] = i
        count += differs[i]
    return count


@compiled(nogil=True)
def _trade(prices: Prices, wishes: Wanted, capital: float, terms: Terms, room: Steps) -> tuple[Steps, Tally]:
    """Step through the bars on which something may happen; return what they leave, and what the trades add up to.

    `room` is for as many steps as there are bars.
    """
    account, tally, paid_in = Account(capital, 0.0, 0.0, 0.0, 0.0), Tally(0, 0, 0, 0, 0.0, 0.0, 0.0), 0.0
    unwatched = np.isnan(terms.stop_loss) and np.isnan(terms.take_profit)
    i, change, count, held, wanted, bars = 0, 0, 0, 0, 0.0, len(wishes.targets)
    while i < bars:
        units = account.units
        paid = account.cash >= -_ROUNDING * units * account.entry_price
        if wanted == account.wanted and (units == 0.0 or (units > 0.0 and paid and unwatched)):
            # Nothing can happen until the target changes: there is no position, or a long one that is paid and has no
            # stop. A step would only value it; most bars are like that.
            while change < len(wishes.changes) and wishes.changes[change] < i:
                change += 1
            # At the close where the target changes, it is held still.
            stop = wishes.changes[change] + 1 if change < len(wishes.changes) else bars
            held += stop - i if units != 0.0 else 0
            i, wanted = stop, float(wishes.targets[stop - 1])
            continue
        bar = Bar(prices.open[i], prices.high[i], prices.low[i], prices.close[i])
        entry_price = account.entry_price
        account, left, entered, liquidated = step(account, bar, wanted, terms)
        wanted = float(wishes.targets[i])
        if left.units != 0.0:
            tally = _closed(tally, left, entry_price, paid_in)
        if entered.units != 0.0:
            entry_price, paid_in = entered.price, entered.commission
            tally = _opened(tally, entered)
        if liquidated.units != 0.0:
            tally = _closed(tally, liquidated, entry_price, paid_in)
        held += 1 if account.units != 0.0 else 0
        room.bar[count], room.cash[count], room.units[count] = i, account.cash, account.units
        count += 1
        i += 1
    return Steps(room.bar[:count], room.cash[:count], room.units[:count]), _kept(tally, held)


@compiled(inline="always")
def _steps(bars: int) -> Steps:
    """Return room for the steps of so many bars."""
    return Steps(np.empty(bars, np.int64), np.empty(bars), np.empty(bars))


@compiled(inline="always")
def _draw(close: Floats, capital: float, steps: Steps, curve: Curve) -> None:
    """Write the curve that steps leave."""
    first = steps.bar[0] if len(steps.bar) > 0 else len(close)
    curve.equity[:first], curve.position[:first] = capital, 0.0
    for k in range(len(steps.bar)):
        start, stop = steps.bar[k], steps.bar[k + 1] if k + 1 < len(steps.bar) else len(close)
        closes, equity, cash, units = (
            close[start:stop],
            curve.equity[start:stop],
            steps.cash[k],
            steps.units[k],
        )
        for i in range(len(closes)):  # from 0 on: several are done at once
            equity[i] = cash + units * closes[i]
        curve.position[start:stop] = units


@compiled(nogil=True)
def market(close: Floats) -> Market:
    """Return what of the closes (n,) is the same for every trial."""
    found = np.zeros((len(close) + 1, 3))
    for i in range(1, len(close)):
        change = close[i] / close[i - 1] - 1.0
        found[i + 1, 0] = found[i, 0] + change
        found[i + 1, 1] = found[i, 1] + change * change
        found[i + 1, 2] = found[i, 2] + min(change, 0.0) ** 2
    spans = -(-len(close) // SPAN)
    lowest, highest = np.empty(spans), np.empty(spans)
    for span in range(spans):
        closes = close[span * SPAN : (span + 1) * SPAN]
        lowest[span], highest[span] = closes.min(), closes.max()
    return Market(close, found, lowest, highest)


@compiled(nogil=True)
def _add_up(market: Market, capital: float, steps: Steps, row: Floats) -> Sums:
    """Write the sums of each block of time that steps leave, and return those of all bars.

    Slices are left alone here: to count who refers to one takes longer than the sums.
    """
    close, many = market.close, len(steps.bar)
    sums = _nothing(capital, len(close))
    for k in range(many):
        at, cash, units = steps.bar[k], steps.cash[k], steps.units[k]
        sums = _flushed(_added(_flushed(sums, at, row), cash + units * close[at]), at + 1, row)
        stop = steps.bar[k + 1] if k + 1 < many else len(close)
        if stop > at + 1 and units != 0.0:  # cash alone makes no returns
            sums = _waited(sums, Held(at + 1, stop, cash, units), market, row)
    return _flushed(sums, len(close), row)


@compiled(inline="always")
def _waited(sums: Sums, held: Held, market: Market, row: Floats) -> Sums:
    """Return the sums after bars on which a position is held and nothing happens.

    What holds no cash to speak of has the returns of the closes, which are the same for every trial.
    """
    first, stop, cash, units = held
    close = market.close
    all_in = abs(cash) <= _NEGLIGIBLE * abs(units) * close[first]
    while first < stop:
        until = min(stop, sums.edge)
        if all_in:
            sums = _sunk(sums, Held(first, until, cash, units), market)
            sums = _followed(sums, first, until, market.sums, cash + units * close[until - 1])
        else:
            for i in range(first, until):
                sums = _added(sums, cash + units * close[i])
        first = until
        sums = _flushed(sums, first, row)
    return sums


@compiled(inline="always")
def _followed(sums: Sums, first: int, stop: int, market: Floats, last: float) -> Sums:
    """Return the sums with the returns of the market from one of its bars to another, and the last equity."""
    total = sums.total + (market[stop, 0] - market[first, 0])
    squares = sums.squares + (market[stop, 1] - market[first, 1])
    downside = sums.downside + (market[stop, 2] - market[first, 2])
    return Sums(
        last,
        total,
        squares,
        downside,
        sums.peak,
        sums.depth,
        sums.floor,
        sums.block,
        sums.edge,
        sums.begun,
        sums.bars,
    )


@compiled(inline="always")
def _sunk(sums: Sums, held: Held, market: Market) -> Sums:
    """Return the sums with the peak and the fall of bars on which a long position is held.

    Equity rises with the close, rounding too: a span whose highest close makes no peak and whose lowest no deeper fall
    has none, and where there is no peak the lowest makes the fall. Spans may reach beyond what is held.
    """
    i, stop, cash, units = held
    close = market.close
    while i < stop:
        span = i // SPAN
        end = min(stop, (span + 1) * SPAN)
        if cash + units * market.highest[span] > sums.peak:
            for k in range(i, end):
                sums = _fallen(sums, cash + units * close[k])
        elif cash + units * market.lowest[span] < sums.floor:
            lowest = close[i]
            for k in range(i + 1, end):
                lowest = min(lowest, close[k])
            sums = _fallen(sums, cash + units * lowest)
        i = end
    return sums


@compiled(inline="always")
def _fallen(sums: Sums, equity: float) -> Sums:
    """Return the sums with the peak and the fall of one more bar, and its equity as the last."""
    peak, depth, floor = sums.peak, sums.depth, sums.floor
    if equity > peak:
        peak = equity
        floor = peak * (1.0 + depth)
    elif equity < floor:
        depth = equity / peak - 1.0
        floor = peak * (1.0 + depth)
    return Sums(
        equity,
        sums.total,
        sums.squares,
        sums.downside,
        peak,
        depth,
        floor,
        sums.block,
        sums.edge,
        sums.begun,
        sums.bars,
    )


@compiled(inline="always")
def _nothing(capital: float, bars: int) -> Sums:
    """Return the sums before the first of so many bars."""
    return Sums(capital, 0.0, 0.0, 0.0, capital, 0.0, capital, 0, _edge(0, bars), capital, bars)


@compiled(inline="always")
def _added(sums: Sums, equity: float) -> Sums:
    """Return the sums with one more bar; nothing comes of nothing."""
    change = equity / sums.last - 1.0 if sums.last != 0.0 else 0.0
    fall = min(change, 0.0)
    total, squares, downside = (
        sums.total + change,
        sums.squares + change * change,
        sums.downside + fall * fall,
    )
    new = _fallen(sums, equity)
    return Sums(
        new.last,
        total,
        squares,
        downside,
        new.peak,
        new.depth,
        new.floor,
        new.block,
        new.edge,
        new.begun,
        new.bars,
    )


@compiled(inline="always")
def _edge(block: int, bars: int) -> int:
    """Return the first bar behind a block of time, of `BLOCKS` as equal as can be."""
    return -(-(block + 1) * bars // BLOCKS)


@compiled(inline="always")
def _flushed(sums: Sums, done: int, row: Floats) -> Sums:
    """Write the sums of the blocks of time that end with the bars done; return those of the next one so far."""
    while sums.block < BLOCKS and done >= sums.edge:
        block, last = sums.block, sums.last
        at = len(COLUMNS) + block
        row[at], row[at + BLOCKS], row[at + 2 * BLOCKS] = sums.total, sums.squares, sums.downside
        grown = np.log(last / sums.begun) if last > 0.0 and sums.begun > 0.0 else _RUINED
        row[at + 3 * BLOCKS] = grown if last != sums.begun else 0.0
        edge = _edge(block + 1, sums.bars)
        sums = Sums(last, 0.0, 0.0, 0.0, sums.peak, sums.depth, sums.floor, block + 1, edge, last, sums.bars)
    return sums


@compiled(inline="always")
def _conclude(sums: Sums, tally: Tally, row: Floats) -> None:
    """Write what is told of all bars, from the blocks and the trades."""
    total, squares, downside = 0.0, 0.0, 0.0
    for at in range(len(COLUMNS), len(COLUMNS) + BLOCKS):
        total += row[at]
        squares += row[at + BLOCKS]
        downside += row[at + 2 * BLOCKS]
    mean = total / sums.bars
    row[0], row[1], row[2] = sums.last, mean, max(squares - total * mean, 0.0)
    row[3], row[4] = downside, sums.depth
    row[5], row[6], row[7] = tally.entries, tally.closed, tally.wins
    row[8], row[9], row[10] = tally.gained, tally.lost, tally.held


@compiled(inline="always")
def _kept(tally: Tally, bars: int) -> Tally:
    """Return the tally with so many more bars held."""
    entries, closed, wins, held, gained, lost, costs = tally
    return Tally(entries, closed, wins, held + bars, gained, lost, costs)


@compiled(inline="always")
def _opened(tally: Tally, entered: Fill) -> Tally:
    """Return the tally with one more entry."""
    entries, closed, wins, held, gained, lost, costs = tally
    return Tally(entries + 1, closed, wins, held, gained, lost, costs + _costs(entered))


@compiled(inline="always")
def _closed(tally: Tally, left: Fill, entry_price: float, paid_in: float) -> Tally:
    """Return the tally with one more closed trade."""
    entries, closed, wins, held, gained, lost, costs = tally
    result = _result(left, entry_price, paid_in)
    won = 1 if result > 0.0 else 0
    gained, lost = gained + max(result, 0.0), lost + min(result, 0.0)
    return Tally(entries, closed + 1, wins + won, held, gained, lost, costs + _costs(left))


@compiled(inline="always")
def _result(left: Fill, entry_price: float, paid_in: float) -> float:
    """Return what a trade made, both commissions paid; in vectorbt's order of sums, so that a trade at cost makes 0."""
    size = abs(left.units)
    gain = size * left.price - size * entry_price
    return (gain if left.units < 0.0 else -gain) - paid_in - left.commission


@compiled(inline="always")
def _costs(fill: Fill) -> float:
    """Return commission and what slippage cost; a liquidation of all that is left costs neither."""
    return fill.commission + abs(fill.units) * abs(fill.price - fill.reference)


@compiled(nogil=True)
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
