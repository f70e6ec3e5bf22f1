"""What campaigns share: processes to kill."""

from __future__ import annotations

from collections.abc import Iterator
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
