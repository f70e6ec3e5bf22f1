"""The outside world: sources of bars, one vendor a file."""
