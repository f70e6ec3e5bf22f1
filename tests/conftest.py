"""One embedded PostgreSQL for the whole session, and a fresh migrated database for each test that asks."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx._transports.default as transports
import psycopg
import pytest
import structlog
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import URL, Engine, make_url

from gpt_trader.settings import Home, Settings
from storage import database as databases
from storage.cluster import ROLE, SUPERUSER, Cluster
from storage.preparation import prepare
from storage.unprivileged import STATE

_numbers = itertools.count(1)

# A client of httpx reads all certificates when it is made, 20 to 40 ms each time, and loopback needs none of them.
transports.create_ssl_context = functools.cache(transports.create_ssl_context)

# An API that runs within the tests logs through the standard library, where pytest collects it: stdout is a command's.
structlog.configure(
    wrapper_class=structlog.stdlib.BoundLogger, logger_factory=structlog.stdlib.LoggerFactory()
)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running embedded server, started as the engine starts it (but for fsync: no test pulls the plug)."""
    home = Home(tmp_path_factory.mktemp("pg") / "home")
    cluster = prepare(home)
    with (cluster.data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write("fsync = off\n")
    log = (home.root / "postgres.log").open("wb")
    environment = {**os.environ, "GPT_TRADER_HOME": str(home.root)}
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "storage.postgres"], env=environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            databases.wait_ready(Settings(), home, timeout=30)
            databases.ensure_databases(Settings(), home)
            databases.migrate(databases.engine(Settings(), home))
            databases.dispose_engines()  # a database with connections cannot be a template
            yield cluster
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


@pytest.fixture
def database(postgres: Cluster) -> Iterator[URL]:
    """URL of a migrated database of this test's own, dropped afterwards whoever is still connected."""
    name = f"test_{next(_numbers)}"
    admin = psycopg.connect(postgres.url("postgres", role=SUPERUSER), autocommit=True)
    with admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY FILE_COPY").format(
                *map(sql.Identifier, (name, databases.APP_DATABASE, ROLE))
            )
        )
    yield make_url(postgres.url(name)).set(drivername="postgresql+psycopg")
    with psycopg.connect(postgres.url("postgres", role=SUPERUSER), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_settings(database: URL) -> Settings:
    """Settings that point to this test's database, as any external one (Prefect's is the session's)."""
    return Settings(database_url=SecretStr(database.render_as_string(hide_password=False)))


@pytest.fixture
def engine(database: URL) -> Iterator[Engine]:
    """This process's engine for the test's database."""
    engine = databases.engine_for(database)
    yield engine
    engine.dispose()


@pytest.fixture
def figure(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Say a measured figure on the terminal, whatever pytest captures."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}")  # noqa: T201 - the figure is what a campaign is run for

    return say


@pytest.fixture(scope="session", autouse=True)
def _clusters_of_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """As root a home's cluster lies outside the home (`storage.unprivileged`): take it away with the session.

    So are those of temporary homes that are gone, which killed sessions left behind.
    """
    yield
    for record in (STATE / "clusters").glob("*/home") if os.geteuid() == 0 else ():
        home = Path(record.read_text(encoding="utf-8"))
        ours = home.is_relative_to(tmp_path_factory.getbasetemp())
        if ours or (home.is_relative_to(tempfile.gettempdir()) and not home.exists()):
            shutil.rmtree(record.parent, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_to_the_collector() -> Iterator[None]:
    """What a module's tests leave open fails the last of them, and not whichever test runs when it is collected."""
    yield
    gc.collect()
