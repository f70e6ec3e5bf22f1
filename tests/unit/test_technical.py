"""TA-Lib's indicators over bars, against published worked values and formulas written out here."""

from __future__ import annotations

import numpy as np
import pytest
import talib

from gpt_trader import technical
from gpt_trader.bars import Bars
from gpt_trader.errors import Refused, UnknownName
from tests.bars_factory import bars_of
from tests.sample_bars import sample_bars

AAPL = sample_bars("AAPL", start="2003-01-01", end="2012-12-31")

#: StockCharts' ChartSchool, "Relative Strength Index (RSI)": closes of QQQQ (rounded to cents there) and RSI(14).
QQQQ = [44.34, 44.09, 44.15, 43.61, 44.33, 44.83, 45.10, 45.42, 45.84, 46.08, 45.89, 46.03, 45.61, 46.28,
        46.28, 46.00, 46.03, 46.41, 46.22, 45.64]  # fmt: skip
QQQQ_RSI = [70.53, 66.32, 66.55, 69.41, 66.36, 57.97]
#: The same, "Moving Averages: Simple and Exponential": closes of Intel and EMA(10), begun with the SMA.
INTC = [22.27, 22.19, 22.08, 22.17, 22.18, 22.13, 22.23, 22.43, 22.24, 22.29, 22.15, 22.39, 22.38, 22.61,
        23.36, 24.05, 23.75, 23.83, 23.95, 23.63]  # fmt: skip
INTC_EMA = [22.22, 22.21, 22.24, 22.27, 22.33, 22.52, 22.80, 22.97, 23.13, 23.28, 23.34]


def smoothed(values: np.ndarray, weight: float, start: int, seed: float) -> np.ndarray:
    """Exponential smoothing, begun with `seed` at `start`."""
    result = np.full(len(values), np.nan)
    result[start] = seed
    for i in range(start + 1, len(values)):
        result[i] = result[i - 1] + weight * (values[i] - result[i - 1])
    return result


def test_rsi_as_published():
    found = technical.rsi(bars_of(QQQQ), 14)
    assert np.isnan(found[:14]).all()
    assert found[14:] == pytest.approx(QQQQ_RSI, abs=0.08), "the published prices are rounded to cents"


def test_ema_and_sma_as_published():
    bars = bars_of(INTC)
    found = technical.ema(bars, 10)
    assert np.isnan(found[:9]).all()
    assert found[9:] == pytest.approx(INTC_EMA, abs=0.006)
    assert technical.sma(bars, 10)[9] == pytest.approx(22.221)
    weights = np.arange(1, 11)
    assert technical.wma(bars, 10)[-1] == pytest.approx(np.dot(INTC[-10:], weights) / 55)


def test_rsi_by_wilders_formula():
    change = np.diff(AAPL.close, prepend=np.nan)
    rise, fall = np.clip(change, 0, None), np.clip(-change, 0, None)
    up = smoothed(rise, 1 / 14, 14, rise[1:15].mean())
    down = smoothed(fall, 1 / 14, 14, fall[1:15].mean())
    assert technical.rsi(AAPL)[14:] == pytest.approx((100 * up / (up + down))[14:], rel=1e-9)


def test_atr_by_wilders_formula():
    before = np.append(np.nan, AAPL.close[:-1])
    ranges = np.nanmax([AAPL.high - AAPL.low, np.abs(AAPL.high - before), np.abs(AAPL.low - before)], axis=0)
    expected = smoothed(ranges, 1 / 14, 14, ranges[1:15].mean())
    assert technical.atr(AAPL)[14:] == pytest.approx(expected[14:], rel=1e-9)


def test_adx_by_wilders_formula():
    """Begun otherwise than TA-Lib does (from 0): after enough bars both are the same."""
    up, down = np.diff(AAPL.high, prepend=AAPL.high[0]), -np.diff(AAPL.low, prepend=AAPL.low[0])
    plus = smoothed(np.where((up > down) & (up > 0), up, 0.0), 1 / 14, 0, 0.0)
    minus = smoothed(np.where((down > up) & (down > 0), down, 0.0), 1 / 14, 0, 0.0)
    before = np.append(AAPL.close[0], AAPL.close[:-1])
    ranges = np.max([AAPL.high - AAPL.low, np.abs(AAPL.high - before), np.abs(AAPL.low - before)], axis=0)
    true_range = smoothed(ranges, 1 / 14, 0, ranges[0])
    enough = technical.warmup_of("ADX") + 200
    assert technical.plus_di(AAPL)[enough:] == pytest.approx(100 * (plus / true_range)[enough:], abs=1e-9)
    assert technical.minus_di(AAPL)[enough:] == pytest.approx(100 * (minus / true_range)[enough:], abs=1e-9)
    direction = 100 * np.abs(plus - minus) / np.maximum(plus + minus, 1e-300)
    expected = smoothed(direction, 1 / 14, 0, 0.0)
    assert technical.adx(AAPL)[enough:] == pytest.approx(expected[enough:], abs=1e-9)


def test_macd_is_made_of_emas():
    found = technical.macd(AAPL)
    slow = smoothed(AAPL.close, 2 / 27, 25, AAPL.close[:26].mean())
    fast = smoothed(AAPL.close, 2 / 13, 25, AAPL.close[14:26].mean())  # TA-Lib begins both at the same bar
    line = fast - slow
    signal = smoothed(line, 2 / 10, 33, line[25:34].mean())
    assert found.line[33:] == pytest.approx(line[33:], abs=1e-9)
    assert found.signal[33:] == pytest.approx(signal[33:], abs=1e-9)
    assert found.histogram[33:] == pytest.approx((line - signal)[33:], abs=1e-9)


def test_bollinger_stochastic_williams_and_obv_by_formula():
    windows = np.lib.stride_tricks.sliding_window_view(AAPL.close, 20)
    bands = technical.bollinger(AAPL, 20, 2)
    assert bands.middle[19:] == pytest.approx(windows.mean(axis=1), rel=1e-9)
    assert bands.upper[19:] == pytest.approx(windows.mean(axis=1) + 2 * windows.std(axis=1), rel=1e-7)
    assert bands.lower[19:] == pytest.approx(windows.mean(axis=1) - 2 * windows.std(axis=1), rel=1e-7)

    highest = np.lib.stride_tricks.sliding_window_view(AAPL.high, 14).max(axis=1)
    lowest = np.lib.stride_tricks.sliding_window_view(AAPL.low, 14).min(axis=1)
    place = (AAPL.close[13:] - lowest) / (highest - lowest)
    assert technical.williams_r(AAPL)[13:] == pytest.approx(100 * (place - 1), abs=1e-9)
    k = np.convolve(100 * place, np.full(3, 1 / 3), "valid")
    d = np.convolve(k, np.full(3, 1 / 3), "valid")
    found = technical.stochastic(AAPL, 14, 3, 3)
    assert found.k[17:] == pytest.approx(k[2:], abs=1e-7)
    assert found.d[17:] == pytest.approx(d, abs=1e-7)

    signed = np.sign(np.diff(AAPL.close)) * AAPL.volume[1:]
    assert technical.obv(AAPL) == pytest.approx(AAPL.volume[0] + np.append(0, np.cumsum(signed)))


def test_cci_and_mfi_by_formula():
    typical = (AAPL.high + AAPL.low + AAPL.close) / 3
    windows = np.lib.stride_tricks.sliding_window_view(typical, 20)
    mean = windows.mean(axis=1)
    spread = np.abs(windows - mean[:, None]).mean(axis=1)
    assert technical.cci(AAPL, 20)[19:] == pytest.approx((windows[:, -1] - mean) / (0.015 * spread), abs=1e-6)
    flow, moved = typical * AAPL.volume, np.diff(typical, prepend=typical[0])
    sums = [np.convolve(np.where(sign * moved > 0, flow, 0.0), np.ones(14), "valid")[1:] for sign in (1, -1)]
    tied = np.abs(moved) < 1e-9 * typical  # rounding decides whether that is a move: leave those windows out
    tied[0] = False
    clear = np.convolve(tied, np.ones(14), "valid")[1:] == 0
    assert clear.mean() > 0.95
    assert technical.mfi(AAPL)[14:][clear] == pytest.approx(
        (100 * sums[0] / (sums[0] + sums[1]))[clear], abs=1e-6
    )


def test_any_function_of_talib_by_its_name():
    down, up = technical.compute("aroon", AAPL, timeperiod=25)
    expected = talib.AROON(np.array(AAPL.high), np.array(AAPL.low), 25)
    assert np.array_equal(down, expected[0], equal_nan=True)
    assert np.array_equal(up, expected[1], equal_nan=True)
    assert technical.compute("CDLDOJI", AAPL)[0].dtype == np.float64
    opens = technical.sma(AAPL, 5, of="open")
    assert opens[-1] == pytest.approx(AAPL.open[-5:].mean())


def test_bars_are_left_alone_and_short_ones_are_undefined():
    before = AAPL.close.tobytes()
    for few in (AAPL[:0], AAPL[:1], AAPL[3:9]):
        assert np.isnan(technical.ema(few, 20)).all()
        assert len(technical.macd(few).signal) == len(few)
    assert AAPL.close.tobytes() == before


# History.

RECURSIVE = (
    "EMA",
    "DEMA",
    "TEMA",
    "TRIX",
    "MACD",
    "RMA",
    "RSI",
    "CMO",
    "ATR",
    "NATR",
    "PLUS_DI",
    "MINUS_DI",
    "DX",
    "ADX",
)


def unlike(name: str, history: int, starts: range, bars: Bars = AAPL, **params: float) -> float:
    """The largest difference between values after `history` bars and after all of them, relative to 1 at least."""
    whole, worst = technical.compute(name, bars, **params), 0.0
    for at in starts:
        part = technical.compute(name, bars[at - history + 1 : at + 1], **params)
        for known, seen in zip(whole, part, strict=True):
            worst = max(worst, abs(known[at] - seen[-1]) / max(1.0, abs(known[at])))
    return worst


@pytest.mark.parametrize("name", RECURSIVE)
def test_a_recursive_indicator_is_stable_after_its_warm_up_and_not_after_its_lookback(name):
    warmup, lookback = technical.warmup_of(name), technical.lookback_of(name)
    starts = range(warmup, len(AAPL), 31)
    assert unlike(name, warmup, starts) < 1e-9
    assert unlike(name, lookback + 1, starts) > 1e-4
    assert np.isnan(technical.compute(name, AAPL)[0][:lookback]).all()
    assert np.isfinite(technical.compute(name, AAPL)[0][lookback])


@pytest.mark.parametrize(("name", "period"), [("EMA", 5), ("EMA", 50), ("RSI", 2), ("ATR", 30), ("ADX", 7)])
def test_so_with_other_periods(name, period):
    warmup = technical.warmup_of(name, timeperiod=period)
    assert unlike(name, warmup, range(warmup, len(AAPL), 17), timeperiod=period) < 1e-9


def test_warm_ups_as_the_page_states_them():
    stated = {"EMA": {"timeperiod": 20}, "RSI": {"timeperiod": 14}, "ATR": {"timeperiod": 14}, "MACD": {}}
    assert {name: technical.warmup_of(name, **params) for name, params in stated.items()} == {
        "EMA": 297, "RSI": 388, "ATR": 388, "MACD": 518,
    }  # fmt: skip
    assert technical.warmup_of("SMA", timeperiod=20) == 20
    assert technical.warmup_of("EMA", timeperiod=1) == 1


def test_every_function_is_windowed_as_far_as_warmup_of_says_so():
    """All of TA-Lib: what is called windowed is, and what is not called so, or staged, is refused."""
    counts = {"windowed": 0, "recursive": 0, "refused": 0}
    for name in talib.get_functions():
        try:
            warmup = technical.warmup_of(name)
        except Refused:
            counts["refused"] += 1
            continue
        if name in RECURSIVE:
            counts["recursive"] += 1
            continue
        counts["windowed"] += 1
        assert warmup == technical.lookback_of(name) + 1
        # The running sums carry rounding along, and a fraction of a flat price magnifies it.
        assert unlike(name, warmup, range(600, len(AAPL), 97)) < 1e-6, name
    assert counts["recursive"] == len(RECURSIVE)
    assert counts["windowed"] > 120


@pytest.mark.parametrize("name", ["OBV", "AD", "PVT"])
def test_a_total_has_no_warm_up(name):
    with pytest.raises(Refused, match="a total since the first bar"):
        technical.warmup_of(name)


@pytest.mark.parametrize(
    ("name", "params"),
    [("SAR", {}), ("KAMA", {}), ("ADXR", {}), ("BBANDS", {"matype": 1}), ("STOCH", {"slowk_matype": 1})],
)
def test_what_is_not_known_is_said(name, params):
    with pytest.raises(Refused, match="how fast it forgets is not known here"):
        technical.warmup_of(name, **params)


@pytest.mark.parametrize(
    ("name", "params", "kind", "said"),
    [
        ("EMO", {}, UnknownName, "did you mean"),
        ("EMA", {"period": 3}, UnknownName, "did you mean 'timeperiod'"),
        ("EMA", {"timeperiod": 0}, Refused, "EMA does not take timeperiod=0"),
        ("EMA", {"timeperiod": 2.5}, Refused, "expected int"),
    ],
)
def test_wrong_names_and_values_are_refused(name, params, kind, said):
    for asked in (technical.lookback_of, technical.warmup_of):
        with pytest.raises(kind, match=said):
            asked(name, **params)
    if kind is UnknownName:
        with pytest.raises(kind, match=said):
            technical.compute(name, AAPL, **params)


def test_a_period_that_talib_does_not_take_is_refused_where_it_is_computed():
    with pytest.raises(Refused, match="EMA is refused by TA-Lib"):
        technical.ema(AAPL, 0)
    with pytest.raises(Refused, match="RSI is refused by TA-Lib"):
        technical.compute("RSI", AAPL, timeperiod=1)
