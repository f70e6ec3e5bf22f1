"""Streams of the event log to clients."""
