"""Source `alpaca`: US stocks and crypto of Alpaca, historical and live; nothing here can trade."""

from gpt_trader.adapters.alpaca.source import AlpacaSource

__all__ = ["AlpacaSource"]
