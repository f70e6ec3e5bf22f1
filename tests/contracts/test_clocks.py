"""The database's clock, as live sessions go by it."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from storage.clock import DatabaseClock


def test_it_is_the_databases_time(engine: Engine) -> None:
    clock = DatabaseClock(engine)
    with engine.connect() as connection:
        before = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        between = clock.now()
        connection.rollback()
        after = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    assert before - timedelta(seconds=0.1) <= between <= after + timedelta(seconds=0.1)
    assert between.tzinfo is UTC
    assert abs(clock.skew) < 1


def test_it_goes_on_while_the_database_is_away_and_begins_with_none(engine: Engine) -> None:
    clock = DatabaseClock(engine, every=0)
    first = clock.now()
    clock._engine = nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:9/none")
    assert first <= clock.now() < first + timedelta(seconds=60)
    with pytest.raises(OperationalError):
        DatabaseClock(nowhere).now()
    nowhere.dispose()
