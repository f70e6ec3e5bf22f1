"""Source `ccxt:VENUE`: spot and derivatives of the venues that the library ccxt knows; nothing here can trade."""

from gpt_trader.adapters.ccxt.source import CcxtSource

__all__ = ["CcxtSource"]
