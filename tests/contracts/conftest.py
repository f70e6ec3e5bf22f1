"""What campaigns share: processes to kill, an Alpaca on loopback and a home that asks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from storage.lake import Lake
from tests.contracts.lake_workers import Nursery
from tests.fakes.alpaca_server import KEY, SECRET, AlpacaServer


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """A process that forks others which may be killed (`tests.contracts.lake_workers`)."""
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture(scope="module")
def alpaca_server() -> Iterator[AlpacaServer]:
    """Give an Alpaca on loopback, for all tests of a file."""
    with AlpacaServer().serving() as fake:
        yield fake


@pytest.fixture
def urls() -> dict[str, str]:
    """Addresses of the sources of a test's home, by name."""
    return {}


@pytest.fixture
def engine_home(
    urls: dict[str, str], database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """A home of this test's own; what it gives sets a source's address there."""
    from prefect.logging import disable_run_logger  # seconds, which other contracts need not wait

    from tasks import stores as composition

    monkeypatch.setenv("GPT_TRADER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GPT_TRADER_DATABASE_URL", database.render_as_string(hide_password=False))
    monkeypatch.setenv("GPT_TRADER_CREDENTIAL_ALPACA_KEY", KEY)
    monkeypatch.setenv("GPT_TRADER_CREDENTIAL_ALPACA_SECRET", SECRET)
    monkeypatch.setattr(composition, "_stores", {})

    def asks(source: str, url: str) -> None:
        urls[source] = url
        monkeypatch.setenv("GPT_TRADER_SOURCE_URLS", json.dumps(urls))

    with disable_run_logger():
        yield asks
    composition.stores().engine.dispose()


@pytest.fixture
def alpaca(alpaca_server: AlpacaServer, engine_home: Callable[[str, str], None]) -> AlpacaServer:
    """The fake, as a source of a home of this test's own."""
    alpaca_server.reset()
    engine_home("alpaca", alpaca_server.url)
    return alpaca_server
