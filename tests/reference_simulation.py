"""A backtest by hand: one bar at a time, plain Python floats, written from the documented rules and nothing else.

It shares no code with the engine, so that an error would have to be made twice to go unseen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gpt_trader.bars import Bars
from gpt_trader.requests import BacktestRequest


@dataclass
class ByHand:
    """What the hand simulation found; a trade is (entry bar, exit bar or None, side, size, prices, pnl, reason)."""

    equity: list[float] = field(default_factory=list)
    position: list[float] = field(default_factory=list)
    trades: list[dict[str, float | int | str | None]] = field(default_factory=list)
    costs: float = 0.0


class _Account:
    """Cash, one position, and the trades it made."""

    def __init__(self, request: BacktestRequest) -> None:
        self.terms, self.cash, self.units, self.found = request, request.capital, 0.0, ByHand()
        self.entry_bar, self.entry_price = -1, 0.0

    def _fill(self, units: float, price: float) -> tuple[float, float]:
        """Buy (> 0) or sell (< 0) at `price` ± slippage; return the fill's price and commission."""
        fill = _slipped(price, 1 if units > 0 else -1, self.terms)
        commission = _charged(abs(units), fill, self.terms)
        if self.units > 0 > units:  # a sale costs no more than it brings
            commission = min(commission, -units * fill)
        self.cash -= units * fill + commission
        self.units += units
        self.found.costs += commission + abs(units) * abs(fill - price)
        return fill, commission

    def open(self, bar: int, side: int, fraction: float, price: float) -> None:
        fill = _slipped(price, side, self.terms)
        units = _affordable(fraction * self.cash, fill, self.terms)
        if units == 0 or _charged(units, fill, self.terms) > units * fill:
            return
        self.before = self.cash
        self.entry_bar, (self.entry_price, _) = bar, self._fill(side * units, price)
        self.found.trades.append({
            "entry": bar, "exit": None, "side": side, "size": units, "entry_price": self.entry_price,
            "exit_price": None, "pnl": None, "reason": "open",
        })  # fmt: skip

    def close(self, bar: int, price: float, reason: str) -> None:
        fill = _slipped(price, 1, self.terms)
        cost = -self.units * fill + _charged(abs(self.units), fill, self.terms)
        if self.units < 0 and cost > self.cash * (1 + 1e-9):
            self.ruin(bar)
            return
        fill, _ = self._fill(-self.units, price)
        self.units = 0.0
        self._book(bar, fill, reason)

    def _book(self, bar: int, price: float, reason: str) -> None:
        self.found.trades[-1].update(exit=bar, exit_price=price, pnl=self.cash - self.before, reason=reason)

    def ruin(self, bar: int) -> None:
        """The broker takes all the cash for the short."""
        price = self.cash / -self.units
        self.cash = self.units = 0.0
        self._book(bar, price, "ruin")

    def value(self, price: float) -> float:
        return self.cash + self.units * price

    def mark(self, close: float) -> None:
        """Value what is still open at the last close: nothing is sold, nothing is paid."""
        if self.units:
            self.found.trades[-1].update(exit_price=close, pnl=self.value(close) - self.before)


def _slipped(price: float, side: int, terms: BacktestRequest) -> float:
    """Return the price of a fill that buys (1) or sells (−1)."""
    if isinstance(terms.slippage, float):
        return price * (1 + side * terms.slippage)
    # Of what is sold a tenth of the price is left, however much the slippage.
    return max(price + side * (price * terms.slippage.rate + terms.slippage.per_unit), price / 10)


def _charged(size: float, fill: float, terms: BacktestRequest) -> float:
    """Return the commission of a fill."""
    model, notional = terms.commission, size * fill
    if isinstance(model, float):
        return notional * model
    if notional == 0:
        return 0.0
    charged = max(notional * model.rate + size * model.per_unit + model.per_order, model.minimum)
    return charged if model.maximum is None else min(charged, notional * model.maximum)


def _affordable(budget: float, fill: float, terms: BacktestRequest) -> float:
    """Return the most units whose outlay is within the budget: by bisection where there is no formula."""
    if isinstance(terms.commission, float):
        return budget / (fill * (1 + terms.commission))
    low, high = 0.0, budget / fill
    for _ in range(200):
        middle = (low + high) / 2
        if middle * fill + _charged(middle, fill, terms) <= budget:
            low = middle
        else:
            high = middle
    return low


def by_hand(bars: Bars, targets: list[float], request: BacktestRequest) -> ByHand:
    """Simulate the targets of the bars (range only, direction applied already)."""
    account, prices = _Account(request), list(zip(bars.open, bars.high, bars.low, bars.close, strict=True))
    for bar, (open_, high, low, close) in enumerate(prices):
        wanted = targets[bar - 1] if bar >= 1 else 0.0
        held = targets[bar - 2] if bar >= 2 else 0.0
        ruined = bool(account.found.equity) and account.found.equity[-1] == 0.0
        if not ruined:
            _trade_bar(account, bar, wanted, held, float(open_), float(high), float(low))
            if account.units and account.value(close) <= 0:
                account.ruin(bar)
        account.found.equity.append(account.value(float(close)))
        account.found.position.append(account.units)
    account.mark(float(prices[-1][3]))
    return account.found


def _trade_bar(
    account: _Account, bar: int, wanted: float, held: float, open_: float, high: float, low: float
) -> None:
    if account.units and account.value(open_) <= 0:
        account.ruin(bar)
        return
    if account.units and wanted != held:
        account.close(bar, open_, "target")
    if account.units:
        _stop(account, bar, open_, high, low)
    if wanted not in (held, 0.0) and account.cash > 0:
        account.open(bar, 1 if wanted > 0 else -1, abs(wanted) * account.terms.size, open_)


def _stop(account: _Account, bar: int, open_: float, high: float, low: float) -> None:
    """Check the stops of a position from an earlier bar: the open first, then stop-loss before take-profit."""
    side, entry = (1 if account.units > 0 else -1), account.entry_price
    loss, profit = account.terms.stop_loss, account.terms.take_profit
    worst, best = (low, high) if side > 0 else (high, low)
    worst_level = entry * (1 - side * loss) if loss is not None else -side * float("inf")
    best_level = entry * (1 + side * profit) if profit is not None else side * float("inf")
    if side * (open_ - worst_level) <= 0:
        account.close(bar, open_, "stop_loss")
    elif side * (open_ - best_level) >= 0:
        account.close(bar, open_, "take_profit")
    elif side * (worst - worst_level) <= 0:
        account.close(bar, worst_level, "stop_loss")
    elif side * (best - best_level) >= 0:
        account.close(bar, best_level, "take_profit")
