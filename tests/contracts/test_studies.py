"""Studies for Optuna's tools: what was added is there once, in order, as Optuna itself would have written it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import URL, Engine, text

from storage.database import dispose_engines, libpq_arguments
from storage.studies import SCHEMA, StudyStore, address, main
from storage.tables import METADATA

SHOWN: dict[str, Any] = {
    "fast": IntDistribution(2, 20),
    "size": FloatDistribution(0.5, 1.5),
    "side": CategoricalDistribution(("long", "both")),
}


def trial(at: int, **changes: Any) -> FrozenTrial:
    values: dict[str, Any] = {
        "value": at / 7,
        "params": {"fast": 2 + at % 19, "size": 0.5 + at / 100, "side": ("long", "both")[at % 2]},
        "distributions": SHOWN,
        "user_attrs": {"number": 2**40 + at, "state": "run", "reason": "ü ␀"},
        "constraints": {"min_trades": -1.0 if at % 3 else 0.25},
        **changes,
    }
    return create_trial(**values)


TRIALS = [trial(at) for at in range(40)]
TRIALS[7] = trial(7, state=TrialState.PRUNED, value=None, constraints={"objective": 3.0})


@contextmanager
def opened(url: URL) -> Iterator[optuna.storages.RDBStorage]:
    """Optuna's storage at our address, as its tools open it; it checks the version of the tables."""
    storage = optuna.storages.RDBStorage(address(url).render_as_string(hide_password=False))
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def same(found: FrozenTrial, wanted: FrozenTrial) -> None:
    for name in (
        "state",
        "values",
        "params",
        "distributions",
        "user_attrs",
        "constraints",
        "datetime_complete",
    ):
        assert (name, getattr(found, name)) == (name, getattr(wanted, name))


def test_optuna_opens_what_was_added(engine: Engine, database: URL) -> None:
    store = StudyStore(engine)
    assert store.names() == []
    assert store.add("b", TRIALS[:20], 0) == 20
    assert store.add("b", TRIALS[20:], 20) == 20
    assert store.add("a", TRIALS[:1], 0) == 1
    assert store.names() == ["a", "b"]
    with opened(database) as storage:
        study = optuna.load_study(study_name="b", storage=storage)
        assert study.direction == optuna.study.StudyDirection.MAXIMIZE
        assert [one.number for one in study.trials] == list(range(40))
        for found, wanted in zip(study.trials, TRIALS, strict=True):
            same(found, wanted)
        assert study.best_trial.number == 38, "39 breaks its constraint"


def test_it_is_as_optuna_would_have_written_it(engine: Engine, database: URL) -> None:
    StudyStore(engine).add("ours", TRIALS, 0)
    with opened(database) as storage:
        theirs = optuna.create_study(study_name="theirs", storage=storage, direction="maximize")
        theirs.add_trials(TRIALS)
        ours = optuna.load_study(study_name="ours", storage=storage)
        for found, wanted in zip(ours.trials, theirs.trials, strict=True):
            same(found, wanted)
        theirs.sampler = ours.sampler = optuna.samplers.TPESampler(seed=1)
        ours.tell(ours.ask(SHOWN), 1.0)
        assert ours.trials[-1].number == 40, "and it may be gone on with"


def test_what_is_there_is_not_added_again(engine: Engine, database: URL) -> None:
    for stop in (5, 5, 13, 40, 20):
        again = StudyStore(engine)  # another process, after a kill
        for first in range(0, stop, 5):
            again.add("one", TRIALS[first : min(first + 5, stop)], first)
    with opened(database) as storage:
        trials = optuna.load_study(study_name="one", storage=storage).trials
    assert [one.user_attrs["number"] - 2**40 for one in trials] == list(range(40))


def test_several_add_to_the_same_study_at_once_and_make_the_schema(engine: Engine, database: URL) -> None:
    def add(_: int) -> int:
        store = StudyStore(engine)
        return sum(store.add("one", TRIALS[first : first + 4], first) for first in range(0, 40, 4))

    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(add, range(4)))
    assert sum(added) == 40
    with opened(database) as storage:
        trials = optuna.load_study(study_name="one", storage=storage).trials
    assert [one.user_attrs["number"] - 2**40 for one in trials] == list(range(40))


def test_its_tables_are_not_among_ours(engine: Engine, database: URL) -> None:
    StudyStore(engine).add("one", TRIALS[:1], 0)
    with engine.connect() as connection:
        ours = connection.execute(
            text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        ).scalars()
        assert set(ours) == {*METADATA.tables, "alembic_version"}


def test_tables_of_an_older_optuna_are_brought_up(engine: Engine, database: URL) -> None:
    StudyStore(engine).add("one", TRIALS[:1], 0)
    with psycopg.connect(**libpq_arguments(database)) as connection:
        connection.execute("UPDATE optuna.alembic_version SET version_num = 'v3.0.0.d'")
    StudyStore(engine).add("one", TRIALS[:2], 0)
    with opened(database) as storage:
        assert storage.get_current_version() == storage.get_head_version()


def test_what_no_search_added_to_for_long_is_collected(engine: Engine, database: URL) -> None:
    store = StudyStore(engine)
    now = datetime.now(UTC)
    assert store.collect(now) == []
    old = [trial(at) for at in range(3)]
    for one in old:
        one.datetime_start = one.datetime_complete = datetime.now() - timedelta(days=10)  # noqa: DTZ005 - as Optuna
    store.add("old", old, 0)
    store.add("gone on with", old, 0)
    store.add("gone on with", [*old, trial(3)], 0)
    store.add("new", TRIALS[:20], 0)
    week = now - timedelta(days=7)
    assert store.collect(week, trial=True) == ["old"]
    assert store.names() == ["gone on with", "new", "old"]
    assert store.collect(week) == ["old"]
    assert store.names() == ["gone on with", "new"]
    with engine.connect() as connection:
        for table in (
            "trials",
            "trial_params",
            "trial_values",
            "trial_user_attributes",
            "trial_system_attributes",
        ):
            left = f"SELECT count(DISTINCT trial_id) FROM {SCHEMA}.{table}"
            assert connection.execute(text(left)).scalar() == (23 if table == "trial_values" else 24)
    with opened(database) as storage:
        assert len(optuna.load_study(study_name="new", storage=storage).trials) == 20
    store.add("old", old, 0)
    assert store.names() == ["gone on with", "new", "old"], "done again, it is there again"


def test_the_address_that_is_printed_shows_no_password(
    engine: Engine,
    database: URL,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("GPT_TRADER_HOME", str(tmp_path))
    monkeypatch.setenv("GPT_TRADER_DATABASE_URL", database.render_as_string(hide_password=False))
    try:
        main()
        assert capsys.readouterr().out == "\n"
        StudyStore(engine).add("one", TRIALS[:1], 0)
        main()
        where, name = capsys.readouterr().out.splitlines()
        assert (where, name) == (address(database).render_as_string(), "  one")
    finally:
        dispose_engines()
    assert "hunter2" not in address(database.set(password="hunter2")).render_as_string()
