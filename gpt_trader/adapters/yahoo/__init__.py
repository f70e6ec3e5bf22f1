"""Source `yahoo`: whatever finance.yahoo.com charts, without a key; Yahoo promises nothing of it."""

from gpt_trader.adapters.yahoo.source import YahooSource

__all__ = ["YahooSource"]
