"""One real engine for the session, started by the command line itself in a home of its own."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.house import House

#: What issue 2 calls the contract for scripts, word by word.
CONTRACT = shlex.split(
    "backtest --symbol AAPL --strategy ma_crossover --param fast=10 --param slow=30 --start 2005-01-03 "
    "--end 2012-12-31 --commission 0.001 --slippage 0 --capital 10000"
)


@pytest.fixture(scope="session")
def session_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House.in_folder(tmp_path_factory.mktemp("e2e"))
    yield house
    down = house.run("down")
    left = house.processes()
    assert (down.returncode, left) == (0, {}), down.stderr


@pytest.fixture
def house(session_house: House) -> House:
    """The engine of the session, running whatever the tests before did to it."""
    session_house.ensure_up()
    return session_house


@pytest.fixture(scope="session")
def contract(session_house: House) -> dict[str, Any]:
    """What the contract for scripts printed."""
    printed: dict[str, Any] = session_house.json(*CONTRACT)
    return printed
