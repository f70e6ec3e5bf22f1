"""A market on the Alpaca fake that trades minute by minute: its history grows, and its stream tells each bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from tests.fakes.alpaca_server import AlpacaServer, Row, asset, row

MINUTE: Final = timedelta(minutes=1)


class LiveMarket:
    """Pairs that never close. Bar n is labeled n minutes after `begin`; all bars are over by now."""

    def __init__(self, alpaca: AlpacaServer, symbols: Sequence[str], begin: datetime, history: int) -> None:
        self.alpaca, self.symbols, self.begin = alpaca, tuple(symbols), begin
        alpaca.assets += [asset(pair(symbol), "CRYPTO") for symbol in symbols]
        self.minute = 0
        for _ in range(history):
            self.go(live=False)

    def go(self, *symbols: str, live: bool = True) -> datetime:
        """Let a minute pass in which these traded (default: all), and the stream tell it; return its label."""
        at, self.minute = self.begin + self.minute * MINUTE, self.minute + 1
        for symbol in symbols or self.symbols:
            self.tell(symbol, at, live=live)
        return at

    def tell(self, symbol: str, at: datetime, *, live: bool = True) -> None:
        """Put a bar into the history, and on the stream."""
        bar = self.bar(symbol, at)
        self.alpaca.bars.setdefault((pair(symbol), "1Min"), []).append(bar)
        self.alpaca.bars[pair(symbol), "1Min"].sort(key=lambda each: str(each["t"]))
        if live:
            self.alpaca.say({"T": "b", "S": pair(symbol), **bar})

    def bar(self, symbol: str, at: datetime) -> Row:
        """Return a bar of a wave, another for each symbol: what follows trends trades it often."""
        n = (at - self.begin) / MINUTE
        return row(at, round(100 + 5 * math.sin(n / 2 + self.symbols.index(symbol)), 2))


def pair(symbol: str) -> str:
    """Return a pair as Alpaca writes it."""
    return symbol.replace("-", "/")


def minutes_ago(count: int) -> datetime:
    """Return the whole minute so many minutes ago."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - count * MINUTE
