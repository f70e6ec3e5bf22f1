"""Prefect tasks: thin wraps of core functions plus I/O; retries and caching live here."""
