"""One leads, and another once that one has ended, is cut off, or says nothing any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import Engine, text

from storage.leadership import Leadership
from tests.waiting import eventually

SILENCE = 0.2


@pytest.fixture
def holder(engine: Engine) -> Iterator[Leadership]:
    with closing(Leadership(engine, "collect", silence=SILENCE)) as leads:
        assert leads.held()
        yield leads


@pytest.fixture
def next_one(engine: Engine) -> Iterator[Leadership]:
    with closing(Leadership(engine, "collect", silence=60)) as waits:
        yield waits


def test_one_leads_at_a_time_and_each_thing_has_its_own(
    engine: Engine, holder: Leadership, next_one: Leadership
) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(closing(Leadership(engine, "collect something else")))
        assert (next_one.held(), holder.held(), other.held()) == (False, True, True)
    holder.close()
    assert next_one.held()
    assert not holder.held()


def test_who_asks_often_enough_goes_on_leading(next_one: Leadership, engine: Engine) -> None:
    with closing(Leadership(engine, "collect", silence=2)) as holder, engine.connect() as clock:
        for _ in range(8):
            assert holder.held()
            assert not next_one.held()
            clock.execute(text("SELECT pg_sleep(0.3)"))
        assert holder.held(), "longer than it may be silent"


def test_who_is_stopped_leads_no_more_and_hears_of_it(holder: Leadership, next_one: Leadership) -> None:
    """As a process under SIGSTOP, or a machine that is gone: nothing is asked, the connection stands."""
    eventually(next_one.held, what="another leads")
    assert not holder.held()
    next_one.close()
    assert holder.held(), "it may lead again"


def test_who_is_cut_off_leads_no_more(holder: Leadership, next_one: Leadership, engine: Engine) -> None:
    with engine.connect() as server:
        server.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid != pg_backend_pid()"
            )
        )
    eventually(next_one.held, what="another leads")
    assert not holder.held()


def test_what_was_set_for_a_leader_reaches_nobody_else(engine: Engine) -> None:
    for _ in range(10):
        leads = Leadership(engine, "collect", silence=SILENCE)
        assert leads.held()
        leads.close()
        with engine.connect() as another:
            assert another.execute(text("SHOW idle_session_timeout")).scalar() == "0"
