"""What the `cache` commands do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cli.client.connect import connect
from cli.terminal.render import emit, pairs

#: Seconds that a matrix of thousands of symbols may take.
_PATIENCE: Final = 600.0


def show_size() -> None:
    """Show how much the cache holds."""
    with connect() as client:
        size = client.cache()
    held = f"{size['bytes'] / 1e6:,.1f} of {size['limit_bytes'] / 1e6:,.0f} MB"
    emit(size, table=lambda: [pairs({"entries": size["entries"], "size": held})])


def clear_all() -> None:
    """Empty the cache and say how much it held."""
    with connect() as client:
        removed = client.clear_cache()
    emit(removed, table=lambda: [f"removed {removed['entries']} matrices, {removed['bytes'] / 1e6:,.1f} MB"])


def fill(request: Mapping[str, Any]) -> None:
    """Have a matrix computed and say what it is."""
    with connect() as client:
        client.patience(_PATIENCE)
        made = client.warm_cache(request)
    emit(made, table=lambda: [pairs(made)])
