"""Source `synthetic`: markets that nobody trades, made by chance from a seed, for load and fault tests."""

from gpt_trader.adapters.synthetic.source import SyntheticSource

__all__ = ["SyntheticSource"]
