"""The simulation of a portfolio: many symbols, one cash account, bar by bar, compiled by numba.

What is decided, and when it is traded
--------------------------------------
At a close every symbol may be given a target weight (the whole portfolio: on a schedule, or when a weight has
drifted; one symbol: when its strategy changed its mind). It is traded at **the symbol's own next open**: one whose
market is closed that day waits, and is valued at its last close meanwhile. A later decision replaces an earlier one
that still waits.

How much is traded
------------------
Weights apply to the equity that is left **after the costs** of trading to them. With V the equity at the opens (a
symbol without a bar at its last close), traded symbols A, each with weight w, open p and units held u, all are traded
to

    units = w · x / p,   with x the largest number for which, E(x) being the equity after all costs (V less
    commissions, less what slippage costs),
      (1)  x ≤ E(x)                                      weights are fractions of what is left, not of what was there
      (2)  x · Σ w + value of the others ≤ exposure · E(x)           no more than `exposure` is ever invested

Where (1) binds, x = E(x) exactly, and each traded symbol is worth its weight of the equity. Where what is not traded
(it waits, it is delisted, it is dust) is worth more than its share, (2) binds, and all that is traded is scaled down
alike. As exposure ≤ 1, (2) also keeps the cash from ever being negative: a gross weight of 1 with commissions is
funded by x. Both sides are monotone in x, so there is one solution; it is found to 1e-14 of the equity.

Left out are trades below `min_trade` of V, those below 1e-9 of V, and those of which a commission takes more than
half, unless they close a position (of those a commission takes no more than they bring). Sells are filled before
buys, each group in order of the symbols.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gpt_trader.compiling import compiled
from gpt_trader.simulation.kernel import CommissionTerms, SlippageTerms, commission_of, slipped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpt_trader.bars import Flags, Floats

    Places = NDArray[np.int64]

#: x is found to this fraction of the equity.
_PRECISION: Final = 1e-14

#: What is left of a position after a sale of all but this fraction is rounding.
_ROUNDING: Final = 1e-9

#: A trade of less than this fraction of the equity is rounding.
_DUST: Final = 1e-9


class Terms(NamedTuple):
    """Costs, and the bounds of `PortfolioRequest`; no drift is infinity."""

    commission: CommissionTerms
    slippage: SlippageTerms
    exposure: float
    min_trade: float
    drift: float


class Prices(NamedTuple):
    """Prices (n, m): opens, NaN without a bar, and what a unit is valued at, at each close."""

    open: Floats
    mark: Floats


class Decisions(NamedTuple):
    """Target weights, and when they are traded to.

    `weights` (k, m); `row` (n,) is the row of `weights` that holds at each close, −1 where none is needed; `due` (n,)
    says when the whole portfolio is decided anew, `changed` (n, m), or (0, m) for never, when a single symbol is.
    """

    weights: Floats
    row: Places
    due: Flags
    changed: Flags


class Course(NamedTuple):
    """Room for what a simulation finds at each close: equity, cash (n,), units held (n, m).

    `rebalanced` (n,): whether the first fills of a decision about the whole portfolio were at that bar's opens.
    """

    equity: Floats
    cash: Floats
    units: Floats
    rebalanced: Flags

    @classmethod
    def empty(cls, bars: int, symbols: int) -> Course:
        """Return room for so many bars and symbols."""
        return cls(np.empty(bars), np.empty(bars), np.empty((bars, symbols)), np.zeros(bars, np.bool_))


class Fills(NamedTuple):
    """Every fill in order: bar, symbol, signed units, price with slippage and before it, commission; (f,) each."""

    bar: Places
    symbol: Places
    units: Floats
    price: Floats
    reference: Floats
    commission: Floats


class Book(NamedTuple):
    """What is carried from bar to bar: cash (1,), units held, and targets that wait to be traded, NaN: none, (m,)."""

    cash: Floats
    units: Floats
    wanted: Floats


class Opens(NamedTuple):
    """The opens of one bar: its number, prices (m,) with NaN where there is no bar, and the equity at them."""

    bar: int
    price: Floats
    equity: float


class Plan(NamedTuple):
    """What is traded at some opens: symbols, the value of all others, and x (see the module)."""

    symbols: Places
    others: float
    base: float


@compiled(nogil=True)
def run(prices: Prices, decisions: Decisions, capital: float, terms: Terms, course: Course) -> Fills:
    """Step through all bars, write `course`, and return the fills."""
    n, m = prices.open.shape
    book = Book(np.full(1, capital), np.zeros(m), np.full(m, np.nan))
    fresh, waiting = False, False
    fills, filled = _room(4 * m), 0
    for t in range(n):
        if waiting:
            opens = Opens(t, prices.open[t], _value(prices, t, book))
            plan = _planned(opens, _tradable(opens, book, terms), book, terms)
            if len(plan.symbols):
                if filled + len(plan.symbols) > len(fills.bar):
                    fills = _grown(fills, filled + len(plan.symbols))
                before = filled
                filled = _fill(opens, plan, book, terms, (fills, filled))
                course.rebalanced[t] = fresh and filled > before
                fresh = fresh and filled == before
            waiting = _settle(opens, book)
        equity = book.cash[0]
        for s in range(m):
            equity += book.units[s] * prices.mark[t, s]
            course.units[t, s] = book.units[s]
        course.equity[t], course.cash[t] = equity, book.cash[0]
        row = decisions.row[t]
        if row < 0:
            continue
        weights = decisions.weights[row]
        if decisions.due[t] or _drifted(prices.mark[t], book, weights, equity, terms):
            book.wanted[:] = weights
            fresh = waiting = True
        elif len(decisions.changed):
            for s in range(m):
                if decisions.changed[t, s]:
                    book.wanted[s] = weights[s]
                    waiting = True
    return _cut(fills, filled)


@compiled()
def _value(prices: Prices, t: int, book: Book) -> float:
    """Return the equity at the opens of bar t; what has no bar then is worth its last close."""
    equity: float = book.cash[0]
    for s in range(len(book.units)):
        if book.units[s] > 0.0:
            price = prices.open[t, s]
            equity += book.units[s] * (prices.mark[t, s] if np.isnan(price) else price)
    return equity


@compiled()
def _tradable(opens: Opens, book: Book, terms: Terms) -> Places:
    """Return the symbols that are traded: those that wait, have a bar, and are no dust."""
    found, count = np.empty(len(book.units), np.int64), 0
    for s in range(len(book.units)):
        price, weight, units = opens.price[s], book.wanted[s], book.units[s]
        if np.isnan(weight) or np.isnan(price):
            continue
        change = weight * opens.equity / price - units
        closes = weight == 0.0 and units > 0.0 and _asked(-units, price, terms)[0] > 0.0
        moves = weight != 0.0 and abs(change) * price > max(terms.min_trade, _DUST) * opens.equity
        if closes or (moves and not _eaten(change, price, terms)):
            found[count] = s
            count += 1
    return found[:count]


@compiled()
def _asked(change: float, price: float, terms: Terms) -> tuple[float, float]:
    """Return price and commission of a fill of so many units (signed), before slippage at `price`."""
    fill = slipped(price, 1.0 if change > 0.0 else -1.0, terms.slippage)
    return fill, commission_of(change, fill, terms.commission)


@compiled()
def _charged(change: float, price: float, terms: Terms) -> tuple[float, float]:
    """Return price and commission of a fill; a sale costs no more than it brings."""
    fill, commission = _asked(change, price, terms)
    return fill, min(commission, -change * fill) if change < 0.0 else commission


@compiled()
def _eaten(change: float, price: float, terms: Terms) -> bool:
    """Return whether the commission of a trade is more than half of what the trade is worth.

    Where there is no cash for a commission, a sale can pay for its own and nothing else: half is well away from that.
    """
    fill, commission = _asked(change, price, terms)
    return commission > 0.5 * abs(change) * fill


@compiled()
def _planned(opens: Opens, symbols: Places, book: Book, terms: Terms) -> Plan:
    """Return what is traded of these symbols, and x; where x leaves too little of some, x is found without them."""
    while True:
        others = opens.equity - book.cash[0]
        for s in symbols:
            others -= book.units[s] * opens.price[s]
        plan = Plan(symbols, max(others, 0.0), 0.0)
        plan = Plan(symbols, plan.others, _base(opens, plan, book, terms))
        kept, count = symbols.copy(), 0
        for s in symbols:
            price = opens.price[s]
            change = book.wanted[s] * plan.base / price - book.units[s]
            worth = abs(change) * price > _DUST * opens.equity and not _eaten(change, price, terms)
            if worth or book.wanted[s] == 0.0:
                kept[count] = s
                count += 1
        if count == len(symbols):
            return plan
        symbols = kept[:count]


@compiled()
def _base(opens: Opens, plan: Plan, book: Book, terms: Terms) -> float:
    """Return x: what the weights of the traded symbols apply to (see the module).

    By the Illinois variant of the false position (Dowell & Jarratt 1971), halving where that is slow.
    """
    low, high = 0.0, opens.equity
    f_low, f_high = _slack(opens, plan, book, low, terms), _slack(opens, plan, book, high, terms)
    if f_low <= 0.0:
        return low
    if f_high >= 0.0:
        return high
    last = 0
    for step in range(200):
        x = (low * f_high - high * f_low) / (f_high - f_low)
        if step % 8 == 7 or not low < x < high:
            x = 0.5 * (low + high)
        if not low < x < high:
            break
        slack = _slack(opens, plan, book, x, terms)
        if slack >= 0.0:
            low, f_low = x, slack
            if slack <= _PRECISION * opens.equity:
                break
            f_high = 0.5 * f_high if last > 0 else f_high
            last = 1
        else:
            high, f_high = x, slack
            f_low = 0.5 * f_low if last < 0 else f_low
            last = -1
    return low


@compiled()
def _slack(opens: Opens, plan: Plan, book: Book, x: float, terms: Terms) -> float:
    """Return by how much x meets both bounds of the module's rule; below 0 where it breaks one."""
    left, gross = opens.equity, plan.others
    for s in plan.symbols:
        price = opens.price[s]
        then = book.wanted[s] * x / price
        change = then - book.units[s]
        if change != 0.0:
            fill, commission = _charged(change, price, terms)
            left -= commission + change * (fill - price)
        gross += then * price
    return min(left - x, terms.exposure * left - gross)


@compiled()
def _fill(opens: Opens, plan: Plan, book: Book, terms: Terms, log: tuple[Fills, int]) -> int:
    """Trade a plan: sells, then buys; write the fills behind those that are there, return how many there are then."""
    fills, filled = log
    cash = book.cash[0]
    for side in (-1.0, 1.0):
        for s in plan.symbols:
            price = opens.price[s]
            then = book.wanted[s] * plan.base / price
            if then < _ROUNDING * book.units[s]:
                then = 0.0
            change = then - book.units[s]
            if change * side <= 0.0:
                continue
            fill, commission = _charged(change, price, terms)
            cash -= change * fill + commission
            book.units[s] = then
            fills.bar[filled], fills.symbol[filled] = opens.bar, s
            fills.units[filled], fills.price[filled] = change, fill
            fills.reference[filled], fills.commission[filled] = price, commission
            filled += 1
    book.cash[0] = max(cash, 0.0)  # below 0 by rounding alone, see the module
    return filled


@compiled()
def _settle(opens: Opens, book: Book) -> bool:
    """Forget the targets that there was an open for; return whether others still wait."""
    waiting = False
    for s in range(len(book.wanted)):
        if not np.isnan(opens.price[s]):
            book.wanted[s] = np.nan
        waiting = waiting or not np.isnan(book.wanted[s])
    return waiting


@compiled()
def _drifted(mark: Floats, book: Book, weights: Floats, equity: float, terms: Terms) -> bool:
    """Return whether a weight is off its target by more than the drift; what waits to be traded is not looked at.

    Where symbols that are not traded any more are worth more than is left for them, the targets of the others are
    scaled down as trading would.
    """
    if terms.drift == np.inf or equity <= 0.0:
        return False
    gone, total = 0.0, 0.0
    for s in range(len(weights)):
        if np.isnan(weights[s]):
            gone += book.units[s] * mark[s] / equity
        else:
            total += weights[s]
    room = max(terms.exposure - gone, 0.0)
    scale = min(1.0, room / total) if total > 0.0 else 1.0
    for s in range(len(weights)):
        if np.isnan(weights[s]) or not np.isnan(book.wanted[s]):
            continue
        if abs(book.units[s] * mark[s] / equity - weights[s] * scale) > terms.drift:
            return True
    return False


@compiled()
def _room(fills: int) -> Fills:
    return Fills(
        np.empty(fills, np.int64),
        np.empty(fills, np.int64),
        np.empty(fills),
        np.empty(fills),
        np.empty(fills),
        np.empty(fills),
    )


@compiled()
def _grown(fills: Fills, needed: int) -> Fills:
    """Return the same fills with room for at least so many."""
    size, more = len(fills.bar), _room(2 * needed)
    more.bar[:size], more.symbol[:size], more.units[:size] = fills.bar, fills.symbol, fills.units
    more.price[:size], more.reference[:size] = fills.price, fills.reference
    more.commission[:size] = fills.commission
    return more


@compiled()
def _cut(fills: Fills, count: int) -> Fills:
    return Fills(
        fills.bar[:count].copy(),
        fills.symbol[:count].copy(),
        fills.units[:count].copy(),
        fills.price[:count].copy(),
        fills.reference[:count].copy(),
        fills.commission[:count].copy(),
    )
