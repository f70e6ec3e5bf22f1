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
from numpy.typing import NDArray

from gpt_trader.costs import LEAST_BROUGHT, Commission, Slippage

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats
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


class Rows(NamedTuple):
    """Room for what a sweep finds: a row of sums a trial, (m, `WIDTH`).

    Targets that are not all numbers within `low` and `high` are traded nowhere: `odd` (m,) is true there, the row NaN.
    `market` is what `market` gives for the bars.
    """

    market: Floats
    low: float
    high: float
    sums: Floats
    odd: NDArray[np.bool_]


class Wanted(NamedTuple):
    """Targets (n,), and the bars whose target is another than that of the bar before."""

    targets: Floats
    changes: NDArray[np.int64]


class Found(NamedTuple):
    """Room for a curve and a row of sums; what is of length 0 is not wanted. `market`, for a row, is as in `Rows`."""

    curve: Curve
    row: Floats
    market: Floats


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
    """Return the price of a fill that buys (side 1) or sells (−1), above 0 (`gpt_trader.costs.Slippage`)."""
    return max(price * (1.0 + side * terms.rate) + side * terms.per_unit, LEAST_BROUGHT * price)


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
    changes = np.empty(len(targets), np.int64)
    many = _changes(targets, changes)
    return _trade(
        prices, Wanted(targets, changes[:many]), capital, terms, Found(curve, np.empty(0), np.empty((0, 3)))
    )


@njit(cache=True, error_model="numpy", nogil=True)
def sweep(prices: Prices, targets: Floats, capital: float, terms: Terms, rows: Rows) -> None:
    """Simulate many targets (m, n) as `run` does one, keep no curve, and write a row of sums each."""
    nowhere, changes = Curve(np.empty(0), np.empty(0)), np.empty(targets.shape[1], np.int64)
    for trial in range(len(targets)):
        # Each value is one that some bar changed to, or the 0 before the first: the others need no look.
        wrong, many = 0, _changes(targets[trial], changes)
        for at in changes[:many]:
            wrong += 0 if rows.low <= targets[trial, at] <= rows.high else 1
        rows.odd[trial] = wrong > 0
        if wrong > 0:
            rows.sums[trial] = np.nan
        else:
            wanted = Wanted(targets[trial], changes[:many])
            _trade(prices, wanted, capital, terms, Found(nowhere, rows.sums[trial], rows.market))


@njit(cache=True, error_model="numpy", nogil=True)
def summarize(equity: Floats, capital: float, tally: Tally, row: Floats) -> None:
    """Write the row (`WIDTH`,) of an equity curve (n,), as `sweep` does without one."""
    sums = _nothing(capital, len(equity))
    for i in range(len(equity)):
        sums = _flushed(_added(sums, equity[i]), i + 1, row)
    _conclude(sums, tally, row)


@njit(cache=True, error_model="numpy", inline="always")
def _changes(targets: Floats, found: NDArray[np.int64]) -> int:
    """Write the bars whose target has other bits than the one before (before the first: 0), return how many."""
    bits = targets.view(np.int64)
    whole = len(bits) // 8 * 8
    differs = np.empty(len(bits), np.uint8)
    later, before, found_later = bits[1:], bits[:-1], differs[1:]
    for k in range(len(later)):  # many at once
        found_later[k] = later[k] != before[k]
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


@njit(cache=True, error_model="numpy", nogil=True)
def _trade(prices: Prices, wishes: Wanted, capital: float, terms: Terms, found: Found) -> Tally:
    """Step through all bars; write the curve and the row, unless they are empty."""
    account, tally, paid_in = Account(capital, 0.0, 0.0, 0.0, 0.0), Tally(0, 0, 0, 0, 0.0, 0.0, 0.0), 0.0
    unwatched = np.isnan(terms.stop_loss) and np.isnan(terms.take_profit)
    i, change, wanted, bars = 0, 0, 0.0, len(wishes.targets)
    draws, adds = len(found.curve.equity) > 0, len(found.row) > 0
    sums = _nothing(capital, bars)
    while i < bars:
        cash, units = account.cash, account.units
        paid = cash >= -_ROUNDING * units * account.entry_price
        if wanted == account.wanted and (units == 0.0 or (units > 0.0 and paid and unwatched)):
            # Nothing can happen until the target changes: there is no position, or a long one that is paid and has no
            # stop. A step would only value it; most bars are like that.
            while change < len(wishes.changes) and wishes.changes[change] < i:
                change += 1
            # At the close where the target changes, it is held still.
            stop = wishes.changes[change] + 1 if change < len(wishes.changes) else bars
            closes = prices.close[i:stop]
            if draws:
                _draw(closes, cash, units, found.curve.equity[i:stop], found.curve.position[i:stop])
            if adds:
                sums = _waited(sums, i, closes, account, found)
            tally = _kept(tally, stop - i if units != 0.0 else 0)
            i, wanted = stop, wishes.targets[stop - 1]
            continue
        bar = Bar(prices.open[i], prices.high[i], prices.low[i], prices.close[i])
        entry_price = account.entry_price
        account, left, entered, liquidated = step(account, bar, wanted, terms)
        equity, wanted = account.cash + account.units * bar.close, wishes.targets[i]
        if left.units != 0.0:
            tally = _closed(tally, left, entry_price, paid_in)
        if entered.units != 0.0:
            entry_price, paid_in = entered.price, entered.commission
            tally = _opened(tally, entered)
        if liquidated.units != 0.0:
            tally = _closed(tally, liquidated, entry_price, paid_in)
        tally = _kept(tally, 1 if account.units != 0.0 else 0)
        if draws:
            found.curve.equity[i], found.curve.position[i] = equity, account.units
        i += 1
        if adds:
            sums = _flushed(_added(sums, equity), i, found.row)
    if adds:
        _conclude(sums, tally, found.row)
    return tally


@njit(cache=True, error_model="numpy", inline="always")
def _draw(closes: Floats, cash: float, units: float, equity: Floats, position: Floats) -> None:
    """Write the curve of bars on which nothing happens."""
    for k in range(len(closes)):  # from 0 on: several are done at once
        equity[k] = cash + units * closes[k]
    position[:] = units


@njit(cache=True, error_model="numpy", nogil=True)
def market(close: Floats) -> Floats:
    """Return Σr, Σr² and Σ min(r, 0)² of the returns of the closes before each bar and before the end, (n + 1, 3)."""
    found = np.zeros((len(close) + 1, 3))
    for i in range(1, len(close)):
        change = close[i] / close[i - 1] - 1.0
        found[i + 1, 0] = found[i, 0] + change
        found[i + 1, 1] = found[i, 1] + change * change
        found[i + 1, 2] = found[i, 2] + min(change, 0.0) ** 2
    return found


@njit(cache=True, error_model="numpy", inline="always")
def _waited(sums: Sums, first: int, closes: Floats, account: Account, found: Found) -> Sums:
    """Return the sums after bars, from `first` on, on which nothing happens.

    What holds no cash to speak of has the returns of the closes, which are the same for every trial.
    """
    done = 0
    all_in = abs(account.cash) <= _NEGLIGIBLE * abs(account.units) * closes[0]
    while done < len(closes):
        until = min(len(closes), sums.edge - first)
        if account.units != 0.0 and all_in:
            sums = _followed(sums, found.market[first + done], found.market[first + until])
            for close in closes[done:until]:
                sums = _fallen(sums, account.cash + account.units * close)
        elif account.units != 0.0:  # cash alone makes no returns
            for close in closes[done:until]:
                sums = _added(sums, account.cash + account.units * close)
        done = until
        sums = _flushed(sums, first + done, found.row)
    return sums


@njit(cache=True, error_model="numpy", inline="always")
def _followed(sums: Sums, before: Floats, after: Floats) -> Sums:
    """Return the sums with the returns of the market between two of its bars."""
    total, squares = sums.total + (after[0] - before[0]), sums.squares + (after[1] - before[1])
    downside = sums.downside + (after[2] - before[2])
    return Sums(
        sums.last,
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


@njit(cache=True, error_model="numpy", inline="always")
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


@njit(cache=True, error_model="numpy", inline="always")
def _nothing(capital: float, bars: int) -> Sums:
    """Return the sums before the first of so many bars."""
    return Sums(capital, 0.0, 0.0, 0.0, capital, 0.0, capital, 0, _edge(0, bars), capital, bars)


@njit(cache=True, error_model="numpy", inline="always")
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


@njit(cache=True, error_model="numpy", inline="always")
def _edge(block: int, bars: int) -> int:
    """Return the first bar behind a block of time, of `BLOCKS` as equal as can be."""
    return -(-(block + 1) * bars // BLOCKS)


@njit(cache=True, error_model="numpy", inline="always")
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


@njit(cache=True, error_model="numpy", inline="always")
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


@njit(cache=True, error_model="numpy", inline="always")
def _kept(tally: Tally, bars: int) -> Tally:
    """Return the tally with so many more bars held."""
    entries, closed, wins, held, gained, lost, costs = tally
    return Tally(entries, closed, wins, held + bars, gained, lost, costs)


@njit(cache=True, error_model="numpy", inline="always")
def _opened(tally: Tally, entered: Fill) -> Tally:
    """Return the tally with one more entry."""
    entries, closed, wins, held, gained, lost, costs = tally
    return Tally(entries + 1, closed, wins, held, gained, lost, costs + _costs(entered))


@njit(cache=True, error_model="numpy", inline="always")
def _closed(tally: Tally, left: Fill, entry_price: float, paid_in: float) -> Tally:
    """Return the tally with one more closed trade."""
    entries, closed, wins, held, gained, lost, costs = tally
    result = _result(left, entry_price, paid_in)
    won = 1 if result > 0.0 else 0
    gained, lost = gained + max(result, 0.0), lost + min(result, 0.0)
    return Tally(entries, closed + 1, wins + won, held, gained, lost, costs + _costs(left))


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
