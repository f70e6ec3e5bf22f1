"""A portfolio by hand: one bar and one symbol at a time, in decimal numbers, from the documented rules alone.

It shares no code with the engine, so that an error would have to be made twice to go unseen.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np

from gpt_trader.portfolio.panel import Panel
from gpt_trader.portfolio.request import PortfolioRequest

Prices = dict[str, Decimal]
NOTHING = Decimal(0)


@dataclass
class ByHand:
    """What the hand simulation found, a value a bar; a fill is (bar, symbol, units, price, commission)."""

    equity: list[Decimal] = field(default_factory=list)
    cash: list[Decimal] = field(default_factory=list)
    units: list[Prices] = field(default_factory=list)
    fills: list[tuple[int, str, Decimal, Decimal, Decimal]] = field(default_factory=list)
    rebalances: int = 0


def by_hand(panel: Panel, request: PortfolioRequest, wanted: np.ndarray | None = None) -> ByHand:
    """Simulate the range of a panel."""
    with localcontext() as context:
        context.prec = 40
        return _Account(panel, request, wanted).run()


class _Account:
    def __init__(self, panel: Panel, request: PortfolioRequest, wanted: np.ndarray | None) -> None:
        self.panel, self.request, self.wanted = panel, request, wanted
        self.dates = [each.astype(datetime.datetime) for each in panel.time]
        self.opens = [_row(panel, row) for row in panel.open]
        self.closes = [_row(panel, row) for row in panel.close]
        self.cash = Decimal(request.capital)
        self.held: Prices = dict.fromkeys(panel.symbols, NOTHING)
        self.value: Prices = {}
        self.waiting: dict[str, Decimal] = {}
        self.fresh, self.found = False, ByHand()

    def run(self) -> ByHand:
        last = len(self.dates) - 1
        for bar in range(self.panel.first, last + 1):
            self.trade(bar)
            self.value |= self.closes[bar]
            equity = self.cash + sum(units * self.value.get(s, NOTHING) for s, units in self.held.items())
            self.found.equity.append(equity)
            self.found.cash.append(self.cash)
            self.found.units.append(dict(self.held))
            if bar < last:
                self.decide(bar, equity)
        return self.found

    # deciding

    def decide(self, bar: int, equity: Decimal) -> None:
        weights, gone = self.weights(bar)
        whole = bar == self.panel.first or self.begins(bar + 1)
        if whole or self.drifted(weights, gone, equity):
            self.waiting, self.fresh = dict(weights), True
            return
        if self.wanted is not None:
            for place, symbol in enumerate(self.panel.symbols):
                if self.wanted[bar, place] != self.wanted[bar - 1, place]:
                    self.waiting.pop(symbol, None)
                    if symbol in weights:
                        self.waiting[symbol] = weights[symbol]

    def begins(self, bar: int) -> bool:
        def period(date: datetime.datetime) -> object:
            return {
                "none": None,
                "day": date.date(),
                "week": date.isocalendar()[:2],
                "month": (date.year, date.month),
                "quarter": (date.year, (date.month + 2) // 3),
                "year": date.year,
            }[self.request.rebalance]

        return period(self.dates[bar]) != period(self.dates[bar - 1])

    def drifted(self, weights: Prices, gone: set[str], equity: Decimal) -> bool:
        if self.request.drift is None:
            return False
        share = {s: units * self.value.get(s, NOTHING) / equity for s, units in self.held.items()}
        room = max(Decimal(self.request.exposure) - sum(share[s] for s in gone), NOTHING)
        total = sum(weights.values())
        scale = min(Decimal(1), room / total) if total else Decimal(1)
        limit = Decimal(self.request.drift)
        return any(
            abs(share[s] - weight * scale) > limit for s, weight in weights.items() if s not in self.waiting
        )

    def weights(self, bar: int) -> tuple[Prices, set[str]]:
        """Return the target of each symbol that is traded, and the symbols that are gone."""
        raw: Prices = {}
        gone = set()
        for symbol in self.panel.symbols:
            bars = [b for b in range(bar + 1) if symbol in self.closes[b]]
            if not bars:
                raw[symbol] = NOTHING
            elif self.dates[bar] - self.dates[bars[-1]] > datetime.timedelta(days=30):
                gone.add(symbol)
            else:
                raw[symbol] = self.share([self.closes[b][symbol] for b in bars], symbol)
        exposure, most = Decimal(self.request.exposure), Decimal(self.request.max_weight)
        total = (
            sum(map(Decimal, self.request.weight.values())) if self.request.weights == "given" else exposure
        )
        full: Prices = {}
        while True:
            open_ = {s: r for s, r in raw.items() if r > 0 and s not in full}
            left = max(min(total, exposure) - sum(full.values()), NOTHING)
            parts = {s: r / sum(open_.values()) * left for s, r in open_.items()}
            over = {s: most for s, part in parts.items() if part > most * (1 + Decimal("1e-15"))}
            if not over:
                break
            full |= over
        found = dict.fromkeys(raw, NOTHING) | full | parts
        if self.wanted is not None:
            for place, symbol in enumerate(self.panel.symbols):
                if symbol in found:
                    found[symbol] *= Decimal(float(self.wanted[bar, place]))
        return found, gone

    def share(self, closes: list[Decimal], symbol: str) -> Decimal:
        if self.request.weights == "given":
            return Decimal(self.request.weight[symbol])
        if self.request.weights != "inverse_volatility":
            return Decimal(1)
        returns = [b / a - 1 for a, b in pairwise(closes)][-self.request.window :]
        if len(returns) < self.request.window:
            return NOTHING
        mean = sum(returns) / len(returns)
        variance = sum((r - mean) ** 2 for r in returns) / (len(returns) - 1)
        return 1 / variance.sqrt() if variance > Decimal("1e-24") else NOTHING

    # trading

    def trade(self, bar: int) -> None:
        opens = self.opens[bar]
        prices = self.value | opens
        equity = self.cash + sum(u * prices[s] for s, u in self.held.items() if u)
        ready = {s: w for s, w in self.waiting.items() if s in opens}
        self.waiting = {s: w for s, w in self.waiting.items() if s not in opens}
        chosen = {s: w for s, w in ready.items() if self.worth_it(s, w, opens[s], equity)}
        while True:
            base = self.base(chosen, opens, prices)
            kept = {
                s: w
                for s, w in chosen.items()
                if w == 0
                or (
                    abs(w * base - self.held[s] * opens[s]) > Decimal("1e-9") * equity
                    and not self.eaten(w * base / opens[s] - self.held[s], opens[s])
                )
            }
            if len(kept) == len(chosen):
                break
            chosen = kept
        changes = {s: w * base / opens[s] - self.held[s] for s, w in chosen.items()}
        sells = [s for s in self.panel.symbols if changes.get(s, NOTHING) < 0]
        buys = [s for s in self.panel.symbols if changes.get(s, NOTHING) > 0]
        for symbol in sells + buys:
            price, commission = self.charge(changes[symbol], opens[symbol])
            self.cash -= changes[symbol] * price + commission
            self.held[symbol] += changes[symbol]
            self.found.fills.append((bar - self.panel.first, symbol, changes[symbol], price, commission))
        if sells + buys and self.fresh:
            self.found.rebalances += 1
            self.fresh = False

    def worth_it(self, symbol: str, weight: Decimal, price: Decimal, equity: Decimal) -> bool:
        if weight == 0:
            return self.held[symbol] > 0 and self.charge(-self.held[symbol], price)[0] > 0
        change = weight * equity - self.held[symbol] * price
        least = max(Decimal(self.request.min_trade), Decimal("1e-9")) * equity
        return abs(change) > least and not self.eaten(change / price, price)

    def base(self, chosen: Prices, opens: Prices, prices: Prices) -> Decimal:
        """Return the largest equity that the weights can apply to, by bisection."""
        equity = self.cash + sum(u * prices[s] for s, u in self.held.items() if u)
        others = sum(u * prices[s] for s, u in self.held.items() if u and s not in chosen)

        def possible(base: Decimal) -> bool:
            after, invested = equity, others
            for symbol, weight in chosen.items():
                change = weight * base / opens[symbol] - self.held[symbol]
                price, commission = self.charge(change, opens[symbol])
                after -= commission + change * (price - opens[symbol])
                invested += weight * base
            return base <= after and invested <= Decimal(self.request.exposure) * after

        low, high = NOTHING, equity
        if possible(high):
            return high
        for _ in range(120):
            middle = (low + high) / 2
            low, high = (middle, high) if possible(middle) else (low, middle)
        return low

    def charge(self, change: Decimal, price: Decimal) -> tuple[Decimal, Decimal]:
        """Return price and commission of a fill."""
        if change == 0:
            return price, NOTHING
        side = 1 if change > 0 else -1
        fill = max(
            price * (1 + side * self.part("slippage", "rate")) + side * self.part("slippage", "per_unit"),
            price / 10,  # a sale brings that much
        )
        commission = self.commission(abs(change), fill)
        return fill, min(commission, -change * fill) if change < 0 else commission

    def eaten(self, change: Decimal, price: Decimal) -> bool:
        if change == 0:
            return False
        fill = self.charge(change, price)[0]
        return 2 * self.commission(abs(change), fill) > abs(change) * fill

    def commission(self, size: Decimal, fill: Decimal) -> Decimal:
        notional = size * fill
        if notional == 0:
            return NOTHING
        charged = notional * self.part("commission", "rate") + size * self.part("commission", "per_unit")
        charged = max(charged + self.part("commission", "per_order"), self.part("commission", "minimum"))
        most = getattr(self.request.commission, "maximum", None)
        return charged if most is None else min(charged, notional * Decimal(most))

    def part(self, model: str, name: str) -> Decimal:
        terms = getattr(self.request, model)
        if isinstance(terms, float):
            return Decimal(terms) if name == "rate" else NOTHING
        return Decimal(getattr(terms, name))


def _row(panel: Panel, prices: np.ndarray) -> Prices:
    found = zip(panel.symbols, prices.tolist(), strict=True)
    return {symbol: Decimal(price) for symbol, price in found if price == price}
