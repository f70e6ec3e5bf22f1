"""The trading core: pure functions and values. It knows no Prefect, FastAPI, Typer, DuckDB or files."""

__version__ = "0.1.0"
