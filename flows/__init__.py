"""Prefect flows, one a file, and the worker that runs them."""
