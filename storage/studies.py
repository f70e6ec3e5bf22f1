"""Trials of adaptive searches as Optuna studies in our database, so that Optuna's own tools can open them.

    .venv/bin/python -m storage.studies      prints the address for these tools, and the studies

They live in the schema `optuna` of our database, made on first use; its tables, and their version, are Optuna's. A
study is one search, named by what it was: the same search again, after a kill say, adds what is missing and nothing
twice. Nothing of ours depends on what is kept here, so that a power cut may cost the last of it.

Trials are written as rows, a round in one transaction: Optuna's own way, some 17 statements a trial, took 9 to 25 ms
each, several times what trying it takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, func, insert, select, text

from storage.outages import outlasting

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

SCHEMA: Final = "optuna"

#: First key of the advisory locks of this module ("optu" as a number); the second is the hash of what is locked.
_LOCK: Final = 0x6F707475

#: Optuna's tables, what refers to another one before it.
_OF_TRIALS: Final = (
    "trial_heartbeats",
    "trial_intermediate_values",
    "trial_params",
    "trial_system_attributes",
    "trial_user_attributes",
    "trial_values",
)
_OF_STUDIES: Final = (
    "trials",
    "study_directions",
    "study_system_attributes",
    "study_user_attributes",
    "studies",
)

#: Studies by id and name whose newest trial is older than a moment (naive, in UTC, as Optuna writes).
_UNUSED: Final = """
    SELECT study_id, study_name FROM studies WHERE (
        SELECT max(coalesce(datetime_complete, datetime_start)) FROM trials WHERE trials.study_id = studies.study_id
    ) < :before
"""


def address(url: URL) -> URL:
    """Return the URL of the schema in the database of `url`, for Optuna and its tools."""
    return url.update_query_dict({"options": f"-csearch_path={SCHEMA}"})


class StudyStore:
    """Optuna studies in the database of an engine. Making one opens no connection.

    Args:
        engine: Connections to our database.
        patience: Seconds for which adding waits for a database that is away.
    """

    def __init__(self, engine: Engine, *, patience: float = 0.0) -> None:
        self.patience = patience
        self._engine = engine

    @outlasting
    def add(self, name: str, trials: Sequence[FrozenTrial], first: int) -> int:
        """Add finished trials, from place `first` (from 0) of the study on, made if need be; return how many.

        What the study has of them already is left out. Any number of processes may add to the same study.
        """
        models = self._tables
        with self._engine.begin() as connection:
            _lock(connection, name)
            connection.execute(text(f"SET LOCAL search_path TO {SCHEMA}"))
            connection.execute(text("SET LOCAL synchronous_commit TO off"))
            study = _study(connection, models, name)
            trial = models.TrialModel.__table__
            counted = select(func.count()).select_from(trial).where(trial.c.study_id == study)
            kept = connection.execute(counted).scalar_one()
            missing = trials[max(kept - first, 0) :]
            if missing:
                _insert(connection, models, study, kept, missing)
        return len(missing)

    def names(self) -> list[str]:
        """Return the names of the studies, sorted; none where nothing was ever added."""
        with self._engine.connect() as connection:
            if connection.execute(text(f"SELECT to_regclass('{SCHEMA}.studies')")).scalar() is None:
                return []
            connection.execute(text(f"SET LOCAL search_path TO {SCHEMA}"))
            return list(connection.execute(text("SELECT study_name FROM studies ORDER BY 1")).scalars())

    def collect(self, before: datetime, *, trial: bool = False) -> list[str]:
        """Remove the studies to which nothing was added since then, or with `trial` only name them; return their names.

        A search that is done again adds its trials anew. Studies without trials are none of ours and stay.
        """
        with self._engine.begin() as connection:
            if connection.execute(text(f"SELECT to_regclass('{SCHEMA}.studies')")).scalar() is None:
                return []
            connection.execute(text(f"SET LOCAL search_path TO {SCHEMA}"))
            moment = {"before": before.astimezone(UTC).replace(tzinfo=None)}
            names = sorted(name for _, name in connection.execute(text(_UNUSED), moment))
            if trial:
                return names
            for name in names:
                _lock(connection, name)  # whoever adds to it waits; what was added before is seen now
            still = connection.execute(
                text(f"{_UNUSED} AND study_name = ANY(:names)"), {"names": names, **moment}
            )
            gone = {name: identity for identity, name in still}
            ids = {"ids": list(gone.values())}
            for table in _OF_TRIALS:
                of_them = "trial_id IN (SELECT trial_id FROM trials WHERE study_id = ANY(:ids))"
                connection.execute(text(f"DELETE FROM {table} WHERE {of_them}"), ids)  # noqa: S608 - our own names
            for table in _OF_STUDIES:
                connection.execute(text(f"DELETE FROM {table} WHERE study_id = ANY(:ids)"), ids)  # noqa: S608
        return sorted(gone)

    @cached_property
    def _tables(self) -> Any:  # noqa: ANN401 - a module of Optuna's that has no types
        """Return Optuna's tables; they are made, or brought to this Optuna's version, when they are first needed."""
        import optuna
        from optuna.storages._rdb import models

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._engine.begin() as connection:
            _lock(connection, SCHEMA)
            with self._engine.begin() as other:  # Optuna has connections of its own: it must find the schema
                other.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            storage = optuna.storages.RDBStorage(
                address(self._engine.url).render_as_string(hide_password=False), skip_compatibility_check=True
            )
            try:
                if storage.get_current_version() != storage.get_head_version():
                    storage.upgrade()
            finally:
                storage.remove_session()
                storage.engine.dispose()
        return models


def _lock(connection: Connection, what: str) -> None:
    """Let nobody else lock this until the end of the transaction."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(:key, hashtext(:what))"), {"key": _LOCK, "what": what}
    )


def _study(connection: Connection, models: Any, name: str) -> int:  # noqa: ANN401
    """Return the id of the study of this name, made if it is new. Objectives are maximized."""
    from optuna.study import StudyDirection

    study, direction = models.StudyModel.__table__, models.StudyDirectionModel.__table__
    known: int | None = connection.execute(
        select(study.c.study_id).where(study.c.study_name == name)
    ).scalar()
    if known is not None:
        return known
    made: int = connection.execute(
        insert(study).returning(study.c.study_id), {"study_name": name}
    ).scalar_one()
    maximized = {"study_id": made, "objective": 0, "direction": StudyDirection.MAXIMIZE}
    connection.execute(insert(direction), maximized)
    return made


def _insert(
    connection: Connection,
    models: Any,  # noqa: ANN401
    study: int,
    first: int,
    trials: Sequence[FrozenTrial],
) -> None:
    """Write trials with the numbers from `first` on."""
    table = models.TrialModel.__table__
    rows = [
        {
            "number": first + at,
            "study_id": study,
            "state": trial.state,
            "datetime_start": _utc(trial.datetime_start),
            "datetime_complete": _utc(trial.datetime_complete),
        }
        for at, trial in enumerate(trials)
    ]
    made = connection.execute(
        insert(table).returning(table.c.trial_id, sort_by_parameter_order=True), rows
    ).scalars()
    pairs = list(zip(made, trials, strict=True))
    finite = models.TrialValueModel.TrialValueType.FINITE
    for model, several in (
        (
            models.TrialValueModel,
            [
                {"trial_id": made, "objective": 0, "value": trial.value, "value_type": finite}
                for made, trial in pairs
                if trial.value is not None
            ],
        ),
        (models.TrialParamModel, [row for made, trial in pairs for row in _params(made, trial)]),
        (
            models.TrialUserAttributeModel,
            [row for made, trial in pairs for row in _attributes(made, trial.user_attrs)],
        ),
        (
            models.TrialSystemAttributeModel,
            [row for made, trial in pairs for row in _attributes(made, trial.system_attrs)],
        ),
    ):
        if several:
            connection.execute(insert(model.__table__), several)


def _params(made: int, trial: FrozenTrial) -> Iterator[dict[str, Any]]:
    from optuna.distributions import distribution_to_json

    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        yield {
            "trial_id": made,
            "param_name": name,
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }


def _attributes(made: int, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in values.items():
        yield {"trial_id": made, "key": key, "value_json": json.dumps(value)}


def _utc(moment: datetime | None) -> datetime | None:
    """Return a naive local time as Optuna stores it: naive, in UTC."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


def main() -> None:
    """Print the address of the studies, without a password, and their names; nothing where there are none."""
    from gpt_trader.settings import home, load_settings
    from storage.database import engine

    ours = engine(load_settings(), home())
    names = StudyStore(ours).names()
    shown = [address(ours.url).render_as_string(hide_password=True)] if names else []
    print("\n  ".join([*shown, *names]))  # noqa: T201 - it is what was asked for


if __name__ == "__main__":
    main()
