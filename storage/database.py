"""Our two databases on one PostgreSQL: their URLs, their creation, the SQLAlchemy engine, the migrations.

Without settings it is the embedded server (`storage.postgres`); `database_url` points to any PostgreSQL ≥ 14.
For the embedded one no URL holds a password: it names the password file, which libpq and asyncpg read themselves.
No error or log line of this module shows a password.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import Pool

from gpt_trader.errors import EngineUnreachable, Problem, Refused
from gpt_trader.settings import Home, Settings
from storage import migrations
from storage.cluster import ROLE, SUPERUSER, Cluster, is_ready, locate

APP_DATABASE: Final = "gpt_trader"
PREFECT_DATABASE: Final = "prefect"

_OLDEST_SERVER: Final = 14
#: Key of the advisory lock around creation and migration ("gpt-trade" as a number, any constant would do).
_LOCK: Final = 0x6770742D74726164
_CONNECT_SECONDS: Final = 10

_engines: dict[URL, Engine] = {}


def app_url(settings: Settings, home: Home) -> URL:
    """Return the URL of our database, driver psycopg.

    Raises:
        EngineUnreachable: The embedded database has not been made yet.
        Refused: The setting is no PostgreSQL URL.
    """
    if settings.database_url is not None:
        url = _checked("database_url", settings.database_url.get_secret_value())
        return url if url.database else url.set(database=APP_DATABASE)
    return _embedded(home).set(database=APP_DATABASE)


def prefect_url(settings: Settings, home: Home) -> str:
    """Return the URL of Prefect's database, driver asyncpg, as Prefect's setting wants it.

    With an external server it holds that server's password: hand it on in the environment, never in argv.

    Raises:
        EngineUnreachable: The embedded database has not been made yet.
        Refused: The setting is no PostgreSQL URL, or has an option that asyncpg does not know.
    """
    return _for_asyncpg(_prefect_url(settings, home)).render_as_string(hide_password=False)


def wait_ready(settings: Settings, home: Home, timeout: float) -> None:
    """Return as soon as the server accepts connections; raise EngineUnreachable after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if settings.database_url is None:
            cluster = locate(home)
            if cluster is not None and is_ready(cluster):
                return
            reason = f"the embedded database of {home.root} is not running: `gpt-trader up` starts it"
        else:
            url = app_url(settings, home)
            try:
                _connect(url).close()
            except EngineUnreachable as error:
                reason = error.detail
            else:
                return
            if _answers(url.set(database="postgres")):  # our database may have to be created yet
                return
        if time.monotonic() >= deadline:
            raise EngineUnreachable(f"no database within {timeout:g} s: {reason}")
        time.sleep(0.02 if settings.database_url is None else 0.25)


def ensure_databases(settings: Settings, home: Home) -> None:
    """Create what is missing of: our role, our database, Prefect's database with its extension pg_trgm.

    Cheap when all is there (two short connections); several processes may call it at once.

    Raises:
        EngineUnreachable: The server does not answer.
        Refused: It is too old, or the user of the URL may not create what is missing.
    """
    owner: str | None = None
    if settings.database_url is None:
        owner = ROLE
        _ensure_role(home)
    _ensure_database(app_url(settings, home), owner)
    url = _prefect_url(settings, home)
    _ensure_database(url, owner)
    with _connect(url) as connection:
        found = connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'").fetchone()
        if found is None:
            # IF NOT EXISTS alone does not hold against another process that does the same at this moment.
            connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            _create(connection, sql.SQL("CREATE EXTENSION IF NOT EXISTS pg_trgm"), str(url.database))


def libpq_arguments(url: URL) -> dict[str, Any]:
    """Return what to give psycopg to connect to a URL (written out again as text, not every name would survive)."""
    options = {
        name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()
    }
    place = url.translate_connect_args(username="user", database="dbname")
    return {"connect_timeout": _CONNECT_SECONDS, "application_name": "gpt-trader", **place, **options}


def engine(settings: Settings, home: Home) -> Engine:
    """Return this process's engine for our database; see `engine_for`."""
    return engine_for(app_url(settings, home))


def engine_for(url: URL) -> Engine:
    """Return this process's engine for a URL: one pool of up to 10 connections, made on first use.

    Thread-safe. After a fork the child's pool starts empty, so no connection is shared with the parent, and a
    connection that died with a restarted server is replaced when it is next taken.
    """
    known = _engines.get(url)
    return known if known is not None else _engines.setdefault(url, engine_of_its_own(url))


def engine_of_its_own(url: URL) -> Engine:
    """Return a new engine for a URL, with a pool as `engine_for`'s, for whoever disposes of it at its end."""
    return create_engine(
        url,
        pool_size=5,
        max_overflow=5,
        pool_pre_ping=True,
        json_serializer=partial(json.dumps, allow_nan=False),  # PostgreSQL knows no NaN: say so here
        connect_args={"connect_timeout": _CONNECT_SECONDS, "application_name": "gpt-trader"},
    )


def told_of(url: URL) -> str:
    """Return what to call a database that does not answer: its address and the setting that gives it, no credential."""
    if not url.host:
        return "the embedded database"
    return f"the database at {url.host}:{url.port or 5432} (setting database_url)"


def dispose_engines() -> None:
    """Close the connections of every engine of this process."""
    while _engines:
        _engines.popitem()[1].dispose()


def migrate(engine: Engine) -> None:
    """Bring our database to this version's schema; two small queries when it is current.

    Raises:
        EngineUnreachable: The server does not answer.
        Refused: A newer gpt-trader has migrated it already.
    """
    try:
        with engine.connect() as connection:
            if _schema(connection) == migrations.HEAD:
                return
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            found = _schema(connection)
            if found == migrations.HEAD:  # another process was first
                return
            if found is not None and found not in migrations.REVISIONS:
                raise Refused(
                    f"the database {engine.url.database} has schema {found}, newer than this gpt-trader "
                    f"(it knows up to {migrations.HEAD}): install the newer version again, or restore a backup "
                    "made before the upgrade"
                )
            migrations.upgrade(connection)
    except OperationalError as error:
        raise _unreachable(engine.url, error.orig) from None


def _schema(connection: Connection) -> str | None:
    """Return the revision the database is at, or None for an empty one."""
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _embedded(home: Home) -> URL:
    cluster = _cluster(home)
    return make_url(cluster.url(APP_DATABASE)).set(drivername="postgresql+psycopg")


def _cluster(home: Home) -> Cluster:
    cluster = locate(home)
    if cluster is None:
        raise EngineUnreachable(f"{home.root} has no database yet: `gpt-trader up` makes and starts it")
    return cluster


def _prefect_url(settings: Settings, home: Home) -> URL:
    if settings.prefect_database_url is not None:
        url = _checked("prefect_database_url", settings.prefect_database_url.get_secret_value())
        return url if url.database else url.set(database=PREFECT_DATABASE)
    return app_url(settings, home).set(database=PREFECT_DATABASE)


def _checked(field: str, given: str) -> URL:
    """Return the setting as a URL with our driver; refuse what is none, without showing it."""
    allowed = "postgresql://user:password@host:port/name"
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise Refused.of(Problem(field, None, "is not a URL", allowed)) from None
    dialect = url.get_backend_name() if url.drivername != "postgres" else "postgresql"
    if dialect != "postgresql":
        raise Refused.of(Problem(field, None, f"{dialect[:40]!r} is not PostgreSQL", allowed))
    if "@" in (url.host or ""):
        raise Refused.of(Problem(field, None, "write @ in a password as %40", allowed))
    return url.set(drivername="postgresql+psycopg")


def _for_asyncpg(url: URL) -> URL:
    """Translate libpq's options to what asyncpg calls them."""
    query = dict(url.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    unknown = sorted(set(query) - {"host", "port", "passfile", "ssl"})
    if unknown:
        raise Refused.of(
            Problem(
                "database_url",
                None,
                f"Prefect's driver does not know {', '.join(unknown)}: "
                "give Prefect a URL of its own with GPT_TRADER_PREFECT_DATABASE_URL",
                allowed="host, port, passfile, sslmode",
            )
        )
    return url.set(drivername="postgresql+asyncpg", query=query)


def _connect(url: URL) -> psycopg.Connection[tuple[object, ...]]:
    """Return an autocommitting connection, or raise EngineUnreachable."""
    try:
        return psycopg.connect(**libpq_arguments(url), autocommit=True)
    except psycopg.OperationalError as error:
        raise _unreachable(url, error) from None


def _unreachable(url: URL, error: object) -> EngineUnreachable:
    reason = " ".join(str(error).split()) or type(error).__name__
    return EngineUnreachable(
        f"the database {url.render_as_string(hide_password=True)} does not answer: {reason}"
    )


def _ensure_role(home: Home) -> None:
    """Create the embedded server's working role with the password that the password file has for it."""
    cluster = _cluster(home)
    admin = make_url(cluster.url("postgres", role=SUPERUSER))
    with _connect(admin) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
            return
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
            return
        # The server gets the hash, so that no log of its statements can show the password.
        hashed = connection.pgconn.encrypt_password(_password(cluster), ROLE.encode(), b"scram-sha-256")
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(ROLE), hashed.decode())
        )


def _password(cluster: Cluster) -> bytes:
    for line in cluster.password_file.read_text(encoding="utf-8").splitlines():
        *_, role, password = line.split(":")
        if role == ROLE:
            return password.encode()
    raise Refused(f"{cluster.password_file} has no line for the role {ROLE}: restore it from a backup")


def _ensure_database(url: URL, owner: str | None) -> None:
    """Create the database if it is missing; check the server's version."""
    name = str(url.database)
    admin = url.set(database="postgres")
    if owner is not None:
        admin = admin.set(username=SUPERUSER)
    elif _answers(url):
        return
    with _connect(admin) as connection:
        _refuse_old(connection)
        known = "SELECT 1 FROM pg_database WHERE datname = %s"
        if connection.execute(known, [name]).fetchone():
            if owner is None:
                _connect(url).close()  # it is there and did not let us in: say why
            return
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        if connection.execute(known, [name]).fetchone():
            return
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if owner is not None:
            statement += sql.SQL(" OWNER {}").format(sql.Identifier(owner))
        _create(connection, statement, name)


def _answers(url: URL) -> bool:
    """Return whether the database lets us in (if not, the maintenance database knows whether it is missing)."""
    try:
        connection = _connect(url)
    except EngineUnreachable:
        return False
    with connection:
        _refuse_old(connection)
    return True


def _refuse_old(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    version = connection.info.server_version // 10_000
    if version < _OLDEST_SERVER:
        raise Refused.of(
            Problem(
                "database_url", None, f"the server is PostgreSQL {version}", f"PostgreSQL ≥ {_OLDEST_SERVER}"
            )
        )


def _create(
    connection: psycopg.Connection[tuple[object, ...]], statement: sql.SQL | sql.Composed, database: str
) -> None:
    try:
        connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        shown = statement.as_string(connection)
        raise Refused(
            f"the user {connection.info.user} may not do `{shown}` for the database {database}: "
            "let its administrator do it once"
        ) from None


#: A parent's connections in a forked child: neither closed (it is the parent's session) nor deleted, which warns.
_of_parent: list[Pool] = []


def _forget_connections_of_parent() -> None:
    for each in _engines.values():
        _of_parent.append(each.pool)
        each.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections_of_parent)
atexit.register(dispose_engines)
