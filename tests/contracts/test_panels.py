"""The prices of many symbols as the lake has them, with and without the cache of matrices."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import NotEnoughBars, UnknownName
from gpt_trader.instruments import Instrument
from storage.array_cache import ArrayCache
from storage.lake import Lake
from storage.panels import panel_in_range
from tests.lake_samples import AAPL, IBM, some_bars

COIN = Instrument(symbol="COIN", bars_a_year=365)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.upsert(AAPL, "1d", some_bars(120), source="sample")
    actions = CorporateActions.of({date(2020, 3, 3): 2.0}, {date(2020, 4, 1): 0.2})
    lake.upsert(IBM, "1d", some_bars(80, seed=2, start="2020-01-20"), source="csv", actions=actions)
    gappy = some_bars(150, seed=3, start="2019-12-20")
    lake.upsert(COIN, "1d", gappy[np.random.default_rng(1).random(150) < 0.8], source="csv")
    return lake


@pytest.mark.parametrize(
    ("start", "end"), [(None, None), (date(2020, 2, 1), date(2020, 3, 20)), (date(2020, 3, 1), None)]
)
def test_prices_are_those_of_the_lake_in_the_same_view(
    lake: Lake, tmp_path: Path, start: date | None, end: date | None
) -> None:
    symbols = ("AAPL", "COIN", "IBM")
    cache = ArrayCache(tmp_path / "cache", 10**8)
    plain = panel_in_range(lake, symbols, "1d", start, end, snapshot=None)
    panels = [
        plain,
        *(panel_in_range(lake, symbols, "1d", start, end, snapshot=None, cache=cache) for _ in range(2)),
    ]
    assert cache.size().entries == 2
    for panel in panels:
        assert panel.symbols == symbols
        assert panel.periods_a_year == 365
        assert panel.bars_hash == plain.bars_hash
        for place, symbol in enumerate(symbols):
            bars = lake.bars(symbol, "1d", known_at=end)
            bars = bars[: bars.between(None, end)[1]]
            own = ~np.isnan(panel.close[:, place])
            np.testing.assert_array_equal(panel.time[own], bars.time)
            np.testing.assert_array_equal(panel.open[own, place], bars.open)
            np.testing.assert_array_equal(panel.close[own, place], bars.close)
        assert panel.time[panel.first] >= np.datetime64(start or "1970-01-01")
        assert start is None or panel.time[panel.first - 1] < np.datetime64(start)


def test_a_range_without_bars_and_a_symbol_that_is_not_there_are_named(lake: Lake) -> None:
    with pytest.raises(NotEnoughBars, match="2 symbols in this range"):
        panel_in_range(lake, ("AAPL", "IBM"), "1d", date(2030, 1, 1), None, snapshot=None)
    with pytest.raises(UnknownName, match="AAPPL is not in the lake"):
        panel_in_range(lake, ("AAPPL", "IBM"), "1d", None, None, snapshot=None)
