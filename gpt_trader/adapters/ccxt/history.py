"""Bars of the past: where they begin, and everything that a window of time holds, whatever a venue's habits.

ccxt promises that a venue gives bars since a time, at most so many. Venues differ in what that is: some give the next
bars there are, some those of the span that so many bars take (none, where it was quiet or before the listing), some
the newest ones whatever was asked, some refuse a time too long ago.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from gpt_trader.adapters.ccxt.bars import Row, milliseconds, raw_bars, since_1970, whole_rows
from gpt_trader.adapters.ccxt.faults import Rejected
from gpt_trader.adapters.ccxt.venue import Venue
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.raw_bars import RawBars

#: No venue is older.
EARLIEST: Final = datetime(2010, 1, 1, tzinfo=UTC)
#: So many bars every venue looks at in one call: an answer without any is believed so far and no further.
_SURE: Final = 100
#: A span that takes more calls is not looked through from its begin.
_MOST_CALLS: Final = 100


class History:
    """Asks for the bars of one market in one timeframe. Times are milliseconds since 1970 in UTC, spans inclusive."""

    def __init__(self, venue: Venue, market: str, symbol: str, timeframe: str) -> None:
        self.timeframe = timeframe
        self.step = milliseconds(TIMEFRAMES[timeframe])
        self._venue = venue
        self._market = market
        self._symbol = symbol
        limit = venue.exchange.feature_value(market, "fetchOHLCV", "limit")
        self._most = int(limit) if limit else _SURE
        self._reach = min(self._most, _SURE) * self.step
        self._horizon = since_1970(datetime.now(UTC)) + self.step
        self._answered: dict[int, list[Row]] = {}

    def windows(self, first: int, last: int) -> Iterator[RawBars]:
        """Yield what windows from `first` to `last` hold, each a whole one; those without a row are left out."""
        while first <= last:
            upto = min(first + self._most * self.step - 1, last)
            rows, following = self._window(first, upto)
            if rows:
                yield raw_bars(rows, self._venue.source, self._symbol, self.timeframe)
            first = max(upto + 1, following or 0)

    def first(self, lower: int, last: int) -> int | None:
        """Return the label of the first bar from `lower` to `last`; None if there is none.

        Where the venue gives none since `lower`, coarser bars lead there: first the week, then the day in it, and so
        on; and where the timeframe does not reach as far back as coarser ones do, bisection. It takes the market to
        trade without long pauses then.
        """
        answer = self._allowed(lower, self._most)
        found = min(self._labels(answer, lower), default=None)
        if found is None:
            found = self._searched(lower, last)
        else:
            self._answered = {found: answer}
        return found if found is not None and found <= last else None

    def newest(self) -> int | None:
        """Return the label of the newest bar."""
        return max(self._labels(self._ask(None, self._most), 0), default=None)

    def holds_back(self, lower: int, found: int) -> bool:
        """Return whether the market traded between `lower` and `found`, its first bar here: coarser bars tell."""
        coarser = self._coarser()
        if not coarser or found - lower < coarser[-1].step:
            return False
        since = max(lower, found - coarser[-1]._reach)
        return any(t <= found - coarser[-1].step for t in self._labels(coarser[-1]._allowed(since), lower))

    def _window(self, first: int, last: int) -> tuple[list[Row], int | None]:
        """Return the rows of a window in the order in which they came, and the label that follows, if one was seen."""
        rows: list[Row] = []
        while first <= last:
            answer = self._answered.pop(first, None) or self._ask(first, self._most)
            rows += [row for row in answer if row[0] is None or first <= row[0] <= last]
            labels = self._labels(answer, first)
            if not labels:
                first += self._reach
                continue
            if max(labels) + self.step > last:
                return rows, min((label for label in labels if label > last), default=None)
            first = max(labels) + 1
        return rows, None

    def _searched(self, lower: int, last: int) -> int | None:
        upto = last
        for finer in [*self._coarser(), self]:
            # The coarse bar that holds `lower` has an earlier label.
            found = finer._scanned(lower if finer is self else lower - finer.step, upto)
            if found is None:
                return self._bisected(lower, last)
            lower = max(lower, found)
            upto = min(lower + 2 * finer.step, last)
        return lower

    def _scanned(self, first: int, last: int) -> int | None:
        """Return the first label of a span, looked for from its begin; by bisection in a very long one."""
        if last - first > _MOST_CALLS * self._reach:
            return self._bisected(first, last)
        while first <= last:
            found = min(self._labels(self._allowed(first), first), default=None)
            if found is not None:
                return found
            first += self._reach
        return None

    def _bisected(self, lower: int, upper: int) -> int | None:
        best = None
        while upper - lower > self._reach:
            middle = (lower + upper) // 2
            found = min(self._labels(self._allowed(middle), middle), default=None)
            if found is None:
                lower = middle
            else:
                best, upper = found, middle
        return best

    def _coarser(self) -> list[History]:
        """Return the history in the venue's coarser timeframes, the coarsest first."""
        offered = self._venue.exchange.timeframes
        names = [
            name for name in TIMEFRAMES if name in offered and milliseconds(TIMEFRAMES[name]) > self.step
        ]
        return [History(self._venue, self._market, self._symbol, name) for name in reversed(names)]

    def _labels(self, rows: Sequence[Row], lower: int) -> list[int]:
        """Return the times of rows from `lower` on; one of the future is no bar's and would end the search."""
        return [row[0] for row in rows if row[0] is not None and lower <= row[0] <= self._horizon]

    def _allowed(self, since: int, limit: int = _SURE) -> list[Row]:
        """Return the next rows; none where the venue refuses so early a time."""
        try:
            return self._ask(since, min(self._most, limit))
        except Rejected:
            return []

    def _ask(self, since: int | None, limit: int) -> list[Row]:
        exchange = self._venue.exchange
        return self._venue.ask(
            lambda: whole_rows(exchange.fetch_ohlcv(self._market, self.timeframe, since, limit)),
            f"{self.timeframe} bars of {self._symbol}",
            self._symbol,
        )
