"""URLs, creation, engine and migrations of our databases, and that no password shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import URL, Engine, make_url, text

from gpt_trader.errors import EngineUnreachable, Refused
from gpt_trader.settings import Home, Settings
from storage import database as databases
from storage import migrations
from storage.cluster import SUPERUSER, Cluster
from storage.tables import METADATA

SECRET = "hunter2-hunter2"


def settings_for(url: str, **more: str) -> Settings:
    return Settings(database_url=SecretStr(url), **{name: SecretStr(value) for name, value in more.items()})


def admin_url(postgres: Cluster, database: str = "postgres") -> str:
    return postgres.url(database, role=SUPERUSER)


@pytest.fixture
def nowhere(tmp_path: Path) -> Home:
    return Home(tmp_path / "nowhere")


def test_without_a_database_the_url_says_what_to_do(nowhere: Home) -> None:
    for ask in (databases.app_url, databases.prefect_url):
        with pytest.raises(EngineUnreachable, match="gpt-trader up"):
            ask(Settings(), nowhere)
    with pytest.raises(EngineUnreachable, match=r"no database within 0\.05 s.*gpt-trader up"):
        databases.wait_ready(Settings(), nowhere, timeout=0.05)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2"])
def test_any_postgresql_url_is_taken(nowhere: Home, scheme: str) -> None:
    settings = settings_for(f"{scheme}://bob:{SECRET}@db.example:5433/trading?sslmode=require")
    app = databases.app_url(settings, nowhere)
    assert app.render_as_string(hide_password=False) == (
        f"postgresql+psycopg://bob:{SECRET}@db.example:5433/trading?sslmode=require"
    )
    assert databases.prefect_url(settings, nowhere) == (
        f"postgresql+asyncpg://bob:{SECRET}@db.example:5433/prefect?ssl=require"
    )


def test_prefect_may_have_a_server_of_its_own(nowhere: Home) -> None:
    settings = settings_for("postgresql://a@one/x", prefect_database_url="postgresql://b@two")
    assert databases.prefect_url(settings, nowhere) == "postgresql+asyncpg://b@two/prefect"
    assert databases.app_url(settings_for("postgresql://a@one"), nowhere).database == "gpt_trader"


@pytest.mark.parametrize(
    "url",
    [
        f"sqlite:///{SECRET}.db",
        f"mysql://bob:{SECRET}@db/x",
        SECRET,
        f"postgresql://bob:{SECRET}@{SECRET}@db/x",
        f"postgresql://bob:{SECRET}@db:port/x",
        "",
    ],
)
def test_no_other_url_is_taken_and_none_is_shown(nowhere: Home, url: str) -> None:
    with pytest.raises(Refused, match="database_url") as refusal:
        databases.app_url(settings_for(url), nowhere)
    assert SECRET not in str(refusal.value.problems) + refusal.value.detail
    assert refusal.value.__cause__ is None


def test_an_option_that_prefect_s_driver_lacks_is_named(nowhere: Home) -> None:
    settings = settings_for(f"postgresql://bob:{SECRET}@db/x?sslmode=require&target_session_attrs=any")
    with pytest.raises(Refused, match=r"target_session_attrs.*GPT_TRADER_PREFECT_DATABASE_URL"):
        databases.prefect_url(settings, nowhere)


def test_a_server_that_does_not_answer_is_named_without_its_password(nowhere: Home) -> None:
    settings = settings_for(f"postgresql://bob:{SECRET}@127.0.0.1:1/trading")
    for call in (
        lambda: databases.wait_ready(settings, nowhere, timeout=0.05),
        lambda: databases.ensure_databases(settings, nowhere),
        lambda: databases.migrate(databases.engine(settings, nowhere)),
    ):
        with pytest.raises(EngineUnreachable, match=r"127\.0\.0\.1") as failure:
            call()
        assert SECRET not in failure.value.detail
        assert failure.value.__cause__ is None
        assert failure.value.__context__ is None or failure.value.__suppress_context__


def test_the_embedded_urls_hold_no_password(postgres: Cluster) -> None:
    home = Home(postgres.password_file.parent)  # any home: only the cluster below matters
    assert not home.database.exists()
    words = [line.rsplit(":", 1)[-1] for line in postgres.password_file.read_text().splitlines()]
    assert not any(word in postgres.url("gpt_trader") for word in words)
    with psycopg.connect(postgres.url("gpt_trader")) as connection:
        row = connection.execute(
            "SELECT current_user, rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == ("gpt_trader", False, False)


def test_missing_databases_are_created_once(postgres: Cluster, nowhere: Home) -> None:
    """As on an external server whose user may create databases; the second call finds them."""
    names = ("fresh app", "fresh prefect")
    app, prefect = (make_url(admin_url(postgres)).set(database=name).render_as_string() for name in names)
    settings = settings_for(app, prefect_database_url=prefect)
    try:
        for _ in range(2):
            databases.wait_ready(settings, nowhere, timeout=10)
            databases.ensure_databases(settings, nowhere)
        with psycopg.connect(postgres.url("fresh%20prefect")) as connection:
            found = connection.execute(
                "SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'"
            ).fetchone()
        assert found == ("pg_trgm",)
        psycopg.connect(postgres.url("fresh%20app")).close()
    finally:
        with psycopg.connect(admin_url(postgres), autocommit=True) as admin:
            for name in names:
                admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_user_who_may_not_create_databases_is_told_which(postgres: Cluster, nowhere: Home) -> None:
    url = make_url(postgres.url("missing")).render_as_string()
    with pytest.raises(Refused, match=r'user gpt_trader may not do `CREATE DATABASE "missing"`'):
        databases.ensure_databases(settings_for(url), nowhere)


def test_creators_at_the_same_time_do_not_collide(postgres: Cluster) -> None:
    names = ("created_together", "created_together_for_prefect")
    ours, prefects = (
        make_url(admin_url(postgres)).set(database=name).render_as_string(hide_password=False)
        for name in names
    )
    script = (
        "import sys; from pathlib import Path; from gpt_trader.settings import *; from storage import database as d\n"
        "s = Settings(database_url=sys.argv[1], prefect_database_url=sys.argv[2]); h = Home(Path('/nonexistent'))\n"
        "d.ensure_databases(s, h); d.migrate(d.engine(s, h)); d.migrate(d.engine(s, h))"
    )
    try:
        processes = [subprocess.Popen([sys.executable, "-P", "-c", script, ours, prefects]) for _ in range(3)]
        assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
        with psycopg.connect(ours) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
                (migrations.HEAD,)
            ]
        with psycopg.connect(prefects) as connection:
            found = connection.execute("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'")
            assert found.fetchone() == (1,)
    finally:
        with psycopg.connect(admin_url(postgres), autocommit=True) as admin:
            for name in names:
                admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


_SHAPE = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
        WHERE table_schema = :schema AND table_name <> 'alembic_version' ORDER BY 1, 2
    """,
    "indexes": """
        SELECT replace(indexdef, schemaname || '.', '') FROM pg_indexes
        WHERE schemaname = :schema AND tablename <> 'alembic_version' ORDER BY 1
    """,
    "constraints": """
        SELECT conname, replace(pg_get_constraintdef(oid), :schema || '.', '') FROM pg_constraint
        WHERE connamespace = CAST(:schema AS regnamespace) AND conrelid <> CAST('alembic_version' AS regclass)
        ORDER BY 1
    """,
}


@pytest.mark.parametrize("part", _SHAPE)
def test_the_migrations_make_the_tables(engine: Engine, part: str) -> None:
    """The tables as the code sees them, made in a schema of their own, equal those the migrations made."""
    with engine.connect() as connection:
        connection.execute(text("CREATE SCHEMA twin"))
        METADATA.create_all(connection.execution_options(schema_translate_map={None: "twin"}))
        migrated, declared = (
            [tuple(row) for row in connection.execute(text(_SHAPE[part]), {"schema": schema})]
            for schema in ("public", "twin")
        )
        connection.rollback()
    assert migrated == declared
    assert len(migrated) > 3


def test_the_revisions_written_down_are_those_in_the_folder() -> None:
    script = ScriptDirectory.from_config(migrations.config())
    assert tuple(each.revision for each in reversed(list(script.walk_revisions()))) == migrations.REVISIONS
    assert script.get_current_head() == migrations.HEAD


def test_a_current_database_is_recognized_without_alembic(engine: Engine) -> None:
    script = (
        "import sys; from sqlalchemy import make_url; from storage.database import engine_for, migrate\n"
        "migrate(engine_for(make_url(sys.argv[1]))); sys.exit('alembic' in sys.modules)"
    )
    url = engine.url.render_as_string()
    done = subprocess.run([sys.executable, "-P", "-c", script, url], check=False, timeout=60)
    assert done.returncode == 0


def test_a_newer_database_is_refused_and_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Refused, match=r"schema 9999, newer than this gpt-trader.*install the newer version"):
        databases.migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"


def test_an_engine_is_one_a_process_and_url(database: URL, engine: Engine) -> None:
    assert databases.engine_for(database) is engine


def test_a_forked_child_has_connections_of_its_own(database: URL) -> None:
    """In a process of its own: forking one that has threads is what we do not do."""
    script = """
import os, sys, warnings
from sqlalchemy import make_url, text
from storage.database import dispose_engines, engine_for
warnings.simplefilter("error")
engine = engine_for(make_url(sys.argv[1]))
def backend():
    with engine.connect() as connection:
        return connection.execute(text("SELECT pg_backend_pid()")).scalar()
mine = backend()
child = os.fork()
if child == 0:
    theirs = backend()
    dispose_engines()
    os._exit(0 if theirs != mine else 1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status) or (0 if backend() == mine else 2))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, database.render_as_string()],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_restarted_server_s_dead_connections_are_replaced(engine: Engine) -> None:
    with engine.connect() as first:
        dead = first.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with psycopg.connect(
        engine.url.set(drivername="postgresql").render_as_string(), autocommit=True
    ) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", [dead])
    with engine.connect() as second:
        assert second.execute(text("SELECT pg_backend_pid()")).scalar_one() != dead
