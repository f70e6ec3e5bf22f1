"""What campaigns share: processes to kill, and a place to say their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.lake import Lake
from tests.contracts.lake_workers import Nursery


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """A process that forks others which may be killed (`tests.contracts.lake_workers`)."""
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def figure(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Say a measured figure on the terminal, whatever pytest captures."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}")  # noqa: T201 - the figure is what a campaign is run for

    return say
