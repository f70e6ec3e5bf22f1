"""One real engine for the session, started by the command line itself in a home of its own."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House

#: What the contracts for scripts are given.
CONTRACT = shlex.split(
    "backtest --symbol AAPL --strategy ma_crossover --param fast=10 --param slow=30 --start 2005-01-03 "
    "--end 2012-12-31 --commission 0.001 --slippage 0 --capital 10000"
)

TERMS = shlex.split(
    "--symbol AAPL --strategy ma_crossover --start 2005-01-03 --end 2012-12-31 --commission 0.001 --slippage 0 "
    "--capital 10000"
)
OPTIMIZE = ("optimize", *TERMS, "--method", "grid", "--objective", "total_return")

PAPER_RANGE = shlex.split("--symbol AAPL --strategy momentum --start 2012-01-03 --end 2012-12-31")
PAPER_TERMS = shlex.split("--commission 0.001 --slippage 0.0005 --stop-loss 0.05")
PAPER = ("paper", "start", "--replay", *PAPER_RANGE, *PAPER_TERMS, "--speed", "max", "--follow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder but the contracts for scripts is left to `make test-house`."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name != "test_contracts_for_scripts.py":
            item.add_marker("house")


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


@pytest.fixture(scope="session")
def optimized(session_house: House) -> dict[str, Any]:
    """What the contract of an optimization printed."""
    session_house.ensure_up()
    printed: dict[str, Any] = session_house.json(*OPTIMIZE)
    return printed


@pytest.fixture(scope="session")
def traded(session_house: House) -> dict[str, Any]:
    """What the contract of a paper session printed."""
    session_house.ensure_up()
    printed: dict[str, Any] = session_house.json(*PAPER)
    return printed
