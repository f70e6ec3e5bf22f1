"""Portfolios by hand: small cases whose numbers anybody can check, and what the engine promises beyond them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpt_trader.backtesting import engine as single
from gpt_trader.backtesting import metrics as measure
from gpt_trader.bars import Bars
from gpt_trader.errors import GptTraderError, NotEnoughBars, Refused
from gpt_trader.instruments import Instrument
from gpt_trader.portfolio import engine
from gpt_trader.portfolio.engine import simulate
from gpt_trader.portfolio.panel import Panel
from gpt_trader.portfolio.referee import verified_orders
from gpt_trader.portfolio.request import PortfolioRequest
from gpt_trader.portfolio.result import PortfolioResult, summary
from gpt_trader.portfolio.wishes import wishes
from gpt_trader.requests import BacktestRequest
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.ma_crossover import MaCrossover
from tests.portfolio_samples import panel_of, walking_panel

FREE = {"commission": 0, "slippage": 0}


def run(panel: Panel, **request: Any) -> PortfolioResult:
    return simulate(panel, PortfolioRequest(symbols=panel.symbols, **request))


def fills(result: PortfolioResult) -> list[tuple[int, str, float, float]]:
    """Return the fills as (bar, symbol, units, price)."""
    found = result.fills
    return [
        (int(bar), result.symbols[symbol], pytest.approx(units), pytest.approx(price))
        for bar, symbol, units, price in zip(found.bar, found.symbol, found.units, found.price, strict=True)
    ]


# when, and at which price


def test_what_is_decided_at_a_close_is_filled_at_the_next_open() -> None:
    panel = panel_of({"A": [10, 20, 30], "B": [5, 4, 5]}, {"A": [11, 25, 30], "B": [5, 5, 6]})
    result = run(panel, rebalance="none", **FREE)
    assert fills(result) == [(1, "A", 250.0, 20.0), (1, "B", 1250.0, 4.0)]
    assert result.equity.tolist() == [10_000, 250 * 25 + 1250 * 5, 250 * 30 + 1250 * 6]
    assert result.cash.tolist() == [10_000, 0, 0]
    assert (result.rebalances, result.metrics.trades) == (1, 2)


def test_a_month_is_traded_back_at_its_first_open_by_what_was_known_at_the_close_before() -> None:
    """From Thursday the 30th on: bought on the 31st, traded back at the opens of 1 February, not at its close."""
    panel = panel_of(
        {"A": [10, 10, 20, 20], "B": [10, 10, 10, 10]}, {"A": [10, 10, 99, 20], "B": [10, 10, 1, 10]}
    )
    result = run(panel, **FREE)
    # Worth 15,000 at the opens: 7,500 each, so 125 of A are sold, and 250 of B bought.
    assert fills(result)[2:] == [(2, "A", -125.0, 20.0), (2, "B", 250.0, 10.0)]
    assert result.rebalances == 2


def test_nothing_before_a_bar_depends_on_what_comes_after_it() -> None:
    panel = walking_panel(120, 4)
    request = PortfolioRequest(
        symbols=panel.symbols,
        weights="inverse_volatility",
        volatility_window=10,
        rebalance="week",
        drift=0.02,
    )
    whole = simulate(panel, request)
    for bars in (20, 57, 100):
        known = Panel(panel.instruments, "1d", panel.time[:bars], panel.open[:bars], panel.close[:bars])
        early = simulate(known, request)
        np.testing.assert_array_equal(early.equity, whole.equity[:bars])
        np.testing.assert_array_equal(early.weights, whole.weights[:bars])


@pytest.mark.parametrize(
    ("period", "times"), [("none", 1), ("day", 399), ("week", 58), ("month", 14), ("quarter", 5), ("year", 2)]
)
def test_every_period_is_traded_back_once(period: str, times: int) -> None:
    """From Monday 3 January 2000 to 5 February 2001; the first time counts."""
    result = run(walking_panel(400, 2), rebalance=period)
    assert result.rebalances == times
    first = result.time[np.flatnonzero(result.rebalanced)][1:].astype("datetime64[D]")
    if period == "week":
        assert {str(day) for day in np.datetime_as_string(first)} >= {"2000-01-10", "2000-12-25"}
    if period == "quarter":
        assert [str(day) for day in first] == ["2000-04-01", "2000-07-01", "2000-10-01", "2001-01-01"]


def test_a_drift_trades_back_when_a_weight_is_off_by_more_than_it() -> None:
    panel = panel_of({"A": [10, 10, 11, 13, 13], "B": [10, 10, 10, 10, 10]})
    assert run(panel, rebalance="none", drift=0.07, **FREE).rebalances == 1
    result = run(panel, rebalance="none", drift=0.06, **FREE)
    # 13/23 = 0.565 at the close of bar 3: off by 0.065, traded at the open of bar 4.
    assert np.flatnonzero(result.rebalanced).tolist() == [1, 4]
    assert result.weights[-1] == pytest.approx([0.5, 0.5])


# how much


def test_weights_apply_to_the_equity_after_costs_and_nothing_is_left_over() -> None:
    """With x = V − costs, each of two bought for x/2: x · (1 + c) = V, as cost and price rise together."""
    panel = panel_of({"A": [10, 10], "B": [20, 20]})
    result = run(panel, commission=0.01, slippage=0.02)
    # 1.02 · 1.01 = 1.0302 is paid for each 1 of value at the open.
    worth = 10_000 / 1.0302
    assert result.equity[-1] == pytest.approx(worth, rel=1e-13)
    assert result.weights[-1] == pytest.approx([0.5, 0.5], rel=1e-12)
    assert 0 <= result.cash[-1] <= 1e-9
    assert result.metrics.costs == pytest.approx(10_000 - worth)


def test_rebalancing_with_costs_gives_exactly_the_weights() -> None:
    panel = walking_panel(60, 5)
    result = run(panel, rebalance="day", commission=0.01, slippage=0.01)
    opens = panel.open
    for bar in np.flatnonzero(result.rebalanced):
        units = result.weights[bar] * result.equity[bar] / panel.close[bar]
        worth = units * opens[bar]
        assert worth / worth.sum() == pytest.approx([0.2] * 5, rel=1e-9)
    assert result.cash.max() <= result.cash[0]
    assert result.cash[1:].max() < 1e-7


def test_all_in_one_symbol_is_the_single_backtest() -> None:
    """One symbol at weight 1 and one at 0, bought once: the other engine's all-in, to the last digits."""
    panel = walking_panel(200, 2)
    first, other = panel.symbols
    result = run(panel, weight={first: 1, other: 0}, rebalance="none")
    prices = panel.open[:, 0], panel.close[:, 0]
    high, low = np.maximum(*prices), np.minimum(*prices)
    bars = Bars(panel.instruments[0], "1d", panel.time, prices[0].copy(), high, low, prices[1].copy(), high)
    alone = single.simulate(bars, 0, _Always(), BacktestRequest(symbol=first))
    np.testing.assert_allclose(result.equity, alone.equity, rtol=1e-12)
    for name, value in alone.metrics.as_dict().items():
        mine = result.metrics.as_dict()[name]
        assert (name, mine) == (name, value if value is None else pytest.approx(value, rel=1e-9))


class _Always(Strategy):
    name = "always"

    def targets(self, bars: Bars, first: int = 0) -> Any:
        return np.where(np.arange(len(bars)) >= first, 1.0, 0.0)


def test_an_exposure_below_one_keeps_cash() -> None:
    result = run(walking_panel(40, 4), exposure=0.6, rebalance="day")
    assert result.weights[1:].sum(axis=1) == pytest.approx([0.6] * 39, abs=0.02)
    opens = np.flatnonzero(result.rebalanced)
    assert (result.weights[opens].sum(axis=1) < 0.62).all()


def test_a_cap_gives_the_rest_to_the_others_and_what_nobody_can_take_to_cash() -> None:
    panel = panel_of({"A": [10, 10], "B": [10, 10], "C": [10, 10]})
    capped = run(panel, weight={"A": 0.5, "B": 0.25, "C": 0.25}, max_weight=0.5, **FREE)
    assert capped.weights[-1] == pytest.approx([0.5, 0.25, 0.25])
    assert run(panel, max_weight=0.2, **FREE).weights[-1] == pytest.approx([0.2, 0.2, 0.2])
    late = panel_of({"A": [10, 10], "B": [10, 10], "C": [None, None], "D": [None, 10]})
    shared = run(panel_of({"A": [10, 10], "B": [10, 10], "C": [None, 10]}), max_weight=0.4, **FREE)
    assert shared.weights[-1] == pytest.approx([0.4, 0.4, 0])
    with pytest.raises(NotEnoughBars, match="C has no bars in the range"):
        run(late)


def test_inverse_volatility_is_over_each_symbols_own_returns() -> None:
    panel = walking_panel(60, 3, seed=4)
    result = run(
        replace(panel, first=30), weights="inverse_volatility", volatility_window=20, rebalance="none", **FREE
    )
    returns = panel.close[11:31] / panel.close[10:30] - 1  # up to the first close of the range
    share = 1 / returns.std(axis=0, ddof=1)
    units = result.fills.units
    worth = units * panel.open[31]
    assert worth / worth.sum() == pytest.approx(share / share.sum(), rel=1e-12)


def test_a_symbol_without_volatility_yet_waits_and_the_others_share_its_part() -> None:
    close = walking_panel(50, 2).close
    opens = {"A": close[:, 0].tolist(), "B": [None] * 45 + close[45:, 1].tolist(), "C": close[:, 1].tolist()}
    result = run(panel_of(opens), weights="inverse_volatility", volatility_window=10, rebalance="day")
    assert result.weights[9].sum() == 0
    assert result.weights[12].sum() == pytest.approx(1)
    assert result.weights[-1, 1] == 0


def test_dust_is_not_traded_but_what_is_to_go_goes() -> None:
    panel = panel_of({"A": [10, 10, 10.1, 10.1, 10.1], "B": [10, 10, 10, 10, 10]})
    assert len(run(panel, rebalance="day", **FREE).fills.bar) == 4
    assert len(run(panel, rebalance="day", min_trade=0.01, **FREE).fills.bar) == 2
    wanted = np.array([[1, 1], [1, 0.0], [1, 0], [1, 0], [1, 0]])
    request = PortfolioRequest(
        symbols=panel.symbols, strategy="momentum", rebalance="none", min_trade=0.9, **FREE
    )
    assert len(simulate(panel, request, wanted=wanted).fills.bar) == 0, "half of the equity is dust here"
    request = request.model_copy(update={"min_trade": 0.4})
    assert fills(simulate(panel, request, wanted=wanted)) == [
        (1, "A", 500.0, 10.0),
        (1, "B", 500.0, 10.0),
        (2, "B", -500.0, 10.0),
    ]


def test_what_a_commission_would_eat_is_not_traded() -> None:
    panel = panel_of({"A": [10, 10], "B": [10, 10]})
    result = run(panel, capital=20, commission={"minimum": 6})
    assert len(result.fills.bar) == 0
    assert result.equity.tolist() == [20, 20]
    result = run(panel, capital=200, commission={"minimum": 6}, slippage=0)
    assert result.fills.commission.tolist() == [6, 6]
    assert result.equity[-1] == pytest.approx(188)


# symbols that come and go


def test_before_its_first_bar_a_symbol_has_no_weight_and_the_others_share_it() -> None:
    panel = panel_of({"A": [10] * 5, "B": [10] * 5, "C": [None, None, 10, 10, 10]})
    result = run(panel, rebalance="day", **FREE)
    assert result.weights[1] == pytest.approx([0.5, 0.5, 0])
    assert result.weights[2] == pytest.approx([0.5, 0.5, 0]), "its first close is known, its open was not"
    assert result.weights[3] == pytest.approx([1 / 3] * 3)


def test_where_a_market_is_closed_a_symbol_keeps_its_value_and_is_traded_at_its_next_open() -> None:
    panel = panel_of(
        {"A": [10, 10, 10, 10, 10], "B": [10, None, None, 20, 20]},
        {"A": [10] * 5, "B": [10, None, None, 20, 25]},
    )
    result = run(panel, rebalance="none", **FREE)
    assert fills(result) == [(1, "A", 500.0, 10.0), (3, "B", 250.0, 20.0)]
    assert result.equity.tolist() == [10_000, 10_000, 10_000, 10_000, 5_000 + 250 * 25]
    held = panel_of(
        {"A": [10, 10, 10, 10], "B": [10, 10, None, 30]}, {"A": [10] * 4, "B": [10, 12, None, 30]}
    )
    assert run(held, rebalance="none", **FREE).equity.tolist() == [10_000, 11_000, 11_000, 20_000]


def test_a_delisted_symbol_stays_at_its_last_close_and_the_others_share_the_rest() -> None:
    gone = [10, 10, 12] + [None] * 40
    panel = panel_of({"A": [10] * 43, "B": [10] * 43, "C": gone})
    result = run(panel, rebalance="week", **FREE)
    assert result.metrics.final_equity == pytest.approx(10_000 + 10_000 / 3 * 0.2)
    assert result.weights[-1, 2] == pytest.approx(4_000 / (32_000 / 3))
    assert result.weights[-1, 0] == result.weights[-1, 1] == pytest.approx((1 - result.weights[-1, 2]) / 2)
    holding = result.holdings[2]
    assert (holding.symbol, holding.target) == ("C", None)
    assert str(holding.last)[:10] == "2020-02-01"
    open_ = next(trade for trade in result.trades if trade.symbol == "C")
    assert (open_.exit_reason, open_.exit_price) == ("open", 12)


# a strategy for each


def bars_of(panel: Panel) -> list[Bars]:
    """Return what a panel has of each symbol as bars."""
    found = []
    for place, instrument in enumerate(panel.instruments):
        own = ~np.isnan(panel.close[:, place])
        opened, closed = panel.open[own, place], panel.close[own, place]
        high, low = np.maximum(opened, closed), np.minimum(opened, closed)
        found.append(Bars(instrument, "1d", panel.time[own], opened, high, low, closed, np.ones(own.sum())))
    return found


def test_a_symbol_is_held_while_its_strategy_wants_it() -> None:
    panel = replace(walking_panel(300, 3), first=50)
    request = PortfolioRequest(
        symbols=panel.symbols, strategy="ma_crossover", params={"fast": 5, "slow": 20}, rebalance="none"
    )
    strategy = MaCrossover(fast=5, slow=20)
    wished = wishes(panel, bars_of(panel), strategy, request)
    for place, bars in enumerate(bars_of(panel)):
        np.testing.assert_array_equal(wished.targets[50:, place], strategy.targets(bars, 0)[50:])
    assert not wished.targets[:50].any()
    result = simulate(panel, request, wanted=wished.targets, bars_hash=wished.bars_hash)
    assert result.bars_hash == wished.bars_hash
    held = result.weights > 0
    np.testing.assert_array_equal(held[1:], wished.targets[50:-1] > 0)
    assert {trade.exit_reason for trade in result.trades} == {"target", "open"}
    entered = np.argmax(held[:, 0])
    assert result.weights[entered, 0] == pytest.approx(1 / 3, rel=0.05)


def test_a_strategy_that_looks_ahead_is_refused() -> None:
    class Ahead(Strategy):
        name = "ahead"

        def targets(self, bars: Bars, first: int = 0) -> Any:
            return np.append(bars.close[1:] > bars.close[:-1], False).astype(float)

    panel = walking_panel(40, 2)
    request = PortfolioRequest(symbols=panel.symbols, strategy="ahead")
    with pytest.raises(Refused, match="looks into the future"):
        wishes(panel, bars_of(panel), Ahead(), request)


# what is made of it


def test_trades_are_at_average_cost() -> None:
    """Bought at 10 and at 20, sold at 40: the books of B, whose weight is traded back every day."""
    panel = panel_of({"A": [10, 10, 40, 40], "B": [10, 10, 20, 80]}, start="2020-03-02")
    result = run(panel, rebalance="day", **FREE)
    # Bar 1: 500 each. Bar 2: 30,000 in all, 15,000 each: 125 of A sold, 250 of B bought, 750 at 40/3 on average.
    # Bar 3: 75,000 in all, 37,500 each: 281.25 of B sold.
    sold = [trade for trade in result.trades if trade.symbol == "B" and trade.exit_time is not None]
    assert [(t.size, t.entry_price, t.exit_price) for t in sold] == [
        (pytest.approx(281.25), pytest.approx(40 / 3), pytest.approx(80))
    ]
    assert sold[0].pnl == pytest.approx(281.25 * (80 - 40 / 3))
    assert (sold[0].exit_reason, sold[0].bars) == ("rebalance", 2)
    assert sum(t.pnl for t in result.trades) == pytest.approx(result.equity[-1] - 10_000)
    assert sum(h.pnl for h in result.holdings) == pytest.approx(result.equity[-1] - 10_000)


def test_costs_and_turnover_are_those_of_the_fills() -> None:
    result = run(walking_panel(300, 6), rebalance="week", commission=0.002, slippage=0.001)
    found = result.fills
    notional = np.abs(found.units) * found.price
    slipped = np.abs(found.units) * np.abs(found.price - found.reference)
    assert found.commission == pytest.approx(notional * 0.002)
    assert result.metrics.costs == pytest.approx(found.commission.sum() + slipped.sum())
    turnover = notional.sum() / result.equity.mean() * 252 / 300
    assert result.metrics.turnover == pytest.approx(turnover)
    assert sum(trade.pnl for trade in result.trades) == pytest.approx(result.equity[-1] - 10_000)
    assert sum(holding.costs for holding in result.holdings) == pytest.approx(result.metrics.costs)


def test_the_benchmark_buys_equal_parts_at_first_closes_and_holds() -> None:
    panel = panel_of({"A": [10, 20, 20], "B": [10, 10, 5], "C": [None, 4, 8]})
    result = run(panel)
    assert result.benchmark_equity == pytest.approx([10_000, 10_000 * 4 / 3, 10_000 * (2 + 0.5 + 2) / 3])
    assert result.benchmark.costs == 0
    assert result.metrics.sharpe == measure.sharpe(measure.returns(result.equity), 252)
    assert summary(result)["metrics"]["benchmark_return"] == pytest.approx(0.5)


def test_the_year_is_that_of_the_market_with_most_bars() -> None:
    panel = walking_panel(10, 2)
    around_the_clock = Instrument(symbol="S0001", bars_a_year=365)
    assert replace(panel, instruments=(panel.instruments[0], around_the_clock)).periods_a_year == 365


def test_the_hash_is_of_what_matters_alone() -> None:
    panel = walking_panel(50, 3)
    one = run(panel)
    assert one.result_hash == run(panel, report=False, on_gaps="warn", snapshot="abc").result_hash
    assert one.result_hash == replace(one, warnings=("look",), provenance={}, snapshot_id="y").result_hash
    shuffled = PortfolioRequest(symbols=panel.symbols[::-1])
    assert simulate(panel, shuffled).result_hash == one.result_hash
    for other in ({"rebalance": "week"}, {"capital": 9_999}, {"commission": 0.0011}, {"drift": 0.3}):
        assert run(panel, **other).result_hash != one.result_hash
    moved = Panel(panel.instruments, "1d", panel.time, panel.open, panel.close * 1.01)
    assert run(moved).result_hash != one.result_hash
    window = run(panel, weights="inverse_volatility", volatility_window=60)
    assert window.result_hash == run(panel, weights="inverse_volatility").result_hash


# the referee


@pytest.mark.parametrize(("column", "factor"), [("units", 0.999), ("price", 0.999), ("commission", 0.5)])
def test_fills_that_do_not_make_the_equity_fail_the_run_and_name_the_first_bar(
    column: str, factor: float
) -> None:
    panel = walking_panel(200, 3)
    request = PortfolioRequest(symbols=panel.symbols)
    found, course = engine.trade(panel.traded, engine.decide(panel, request, None), request)
    verified_orders(panel.traded, found, course, request.capital)
    bar = int(found.bar[10])
    wrong = getattr(found, column).copy()
    place = int(np.flatnonzero((found.bar == bar) & (found.symbol == 1))[0])
    wrong[place] *= factor
    with pytest.raises(GptTraderError, match="vectorbt disagree") as raised:
        verified_orders(panel.traded, found._replace(**{column: wrong}), course, request.capital)
    assert ("the position of S0001 is worth" if column == "units" else "the cash is") in raised.value.detail
    assert str(panel.time[bar])[:10] in raised.value.detail


def test_an_equity_that_is_not_what_is_held_fails_the_run() -> None:
    panel = walking_panel(50, 2)
    request = PortfolioRequest(symbols=panel.symbols)
    found, course = engine.trade(panel.traded, engine.decide(panel, request, None), request)
    course.equity[33] *= 1 + 1e-8
    with pytest.raises(GptTraderError, match=str(panel.time[33])[:10]):
        verified_orders(panel.traded, found, course, request.capital)
