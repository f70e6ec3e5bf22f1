"""The composition root: everything the API is made of comes together here, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Final

import structlog
from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import WebSocketRoute

import gpt_trader
from api import docs, errors
from api.accounts.accounts import open_accounts
from api.alerting import Alerting
from api.context import Context
from api.deadman import Deadman
from api.front import Front
from api.keeper import Keeper
from api.kept_answers import KeptAnswers
from api.launcher import Launcher
from api.limits import limits_of
from api.metrics import Metrics
from api.middleware import BodyLimit, RequestFrame, TrustedSource
from api.prefect_server import PrefectServer
from api.principals import LocalKey, ensure_key
from api.routes import (
    alerts as alerts_routes,
)
from api.routes import (
    api_keys,
    audit,
    auth,
    compare,
    instruments,
    market,
    market_cache,
    market_query,
    market_versions,
    me,
    paper_trade,
    portfolio,
    quality,
    run_steps,
    runs,
    schedules,
    slices,
    strategies,
    strategy_check,
    system,
    users,
    walk_forward,
    workflows,
)
from api.routes import streams as streams_routes
from api.run_states import RunStates, listen
from api.session_runs import SessionRuns
from api.sessions import Sessions
from api.streams.endpoint import PATH, StreamEndpoint
from api.streams.streams import Streams
from api.streams.tally import StreamCollector
from gpt_trader.settings import Home, Settings
from storage import database
from storage.alerts import AlertStore
from storage.event_reader import AsyncEventReader
from storage.events import EventLog
from storage.lake import Lake
from storage.runs import RunStore
from storage.session_care import SessionCare
from storage.session_cases import SessionCases
from storage.session_views import SessionViews
from storage.sessions import SessionStore

_log = structlog.get_logger("api")

DESCRIPTION: Final = """Workflow-orchestrated trading research.

Work is a run: a POST answers 202 with a run id, `links.events` streams what happens (SSE), `links.result` holds what
came out. Errors are `application/problem+json` (RFC 9457)."""

_LIBRARIES: Final = ("fastapi", "uvicorn", "prefect", "sqlalchemy", "duckdb", "pyarrow", "numpy", "vectorbt")


def create_app(
    settings: Settings, home: Home, *, prefect_url: str | None = None, prefect_auth: str | None = None
) -> FastAPI:
    """Return the app of one engine. Its parts are opened when it starts and closed when it ends.

    Args:
        settings: The engine's settings.
        home: The engine's home; its database must be answering when the app starts.
        prefect_url: Prefect's API, where `settings.prefect_api_url` does not say; default: the settings' port.
        prefect_auth: Prefect's `user:password`, where it wants one.
    """
    metrics = Metrics()
    url = settings.prefect_api_url or prefect_url or f"http://127.0.0.1:{settings.prefect_port}/api"
    app = FastAPI(
        title="gpt-trader",
        version=gpt_trader.__version__,
        description=DESCRIPTION,
        openapi_url=docs.OPENAPI_URL,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # a generated client's names of functions
        lifespan=_lifespan(settings, home, url, prefect_auth, metrics),
        # Outermost first.
        middleware=[
            Middleware(RequestFrame, metrics=metrics),
            Middleware(
                TrustedSource,
                bound=settings.api_host,
                names=settings.public_hosts,
                origins=settings.cors_origins,
            ),
            *_cors(settings),
            Middleware(BodyLimit),
        ],
    )
    app.state.closing = asyncio.Event()
    app.state.died = False
    for router in (
        system.router,
        streams_routes.router,
        alerts_routes.router,
        audit.router,
        auth.router,
        me.router,
        api_keys.router,
        users.router,
        slices.router(),
        runs.router,
        run_steps.router,
        schedules.router,
        workflows.router,
        paper_trade.router,
        portfolio.router,
        compare.router,  # before what would take its name for a strategy's
        strategies.router,
        strategy_check.router(),
        walk_forward.router,
        market.router,
        market.kept,
        market_query.router(),
        market_cache.router(),
        instruments.router,
        quality.router,
        market_versions.router,
    ):
        app.include_router(router)
    app.router.routes.append(WebSocketRoute(PATH, StreamEndpoint()))
    errors.install(app)
    docs.install(app)
    app.router.routes.insert(0, Front(app.router.routes))
    return app


def _cors(settings: Settings) -> list[Middleware]:
    """Return what answers web pages of other origins: nothing, unless the settings name some."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-API-Key"],
            expose_headers=["ETag", "Location", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"],
        )
    ]


def _lifespan(
    settings: Settings, home: Home, prefect_url: str, prefect_auth: str | None, metrics: Metrics
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        local_key = LocalKey(await asyncio.to_thread(ensure_key, home.key))
        engine = await asyncio.to_thread(_database, settings, home)
        accounts = await asyncio.to_thread(open_accounts, settings, home, engine)
        prefect = PrefectServer(prefect_url, prefect_auth)
        launcher = Launcher(prefect)
        run_states = RunStates(launcher, EventLog(engine))
        alerts = AlertStore(engine)
        kept = RunStore(engine, home)
        session_runs = SessionRuns(launcher, kept, run_states)
        sessions = Sessions(SessionStore(engine), SessionViews(engine), SessionCare(engine), session_runs)
        cases = SessionCases(engine)
        deadman = Deadman(settings.alerts, sessions.care, cases, alerts, EventLog(engine))
        keeper = Keeper(sessions.care, cases, session_runs, prefect, deadman)
        alerting = Alerting(settings, alerts)
        async with AsyncExitStack() as stack:
            stack.callback(engine.dispose)
            # A task that was cancelled leaves its thread with a connection in hand: it is waited for first.
            stack.push_async_callback(asyncio.get_running_loop().shutdown_default_executor)
            stack.push_async_callback(prefect.close)
            stack.push_async_callback(accounts.close)
            reader = await stack.enter_async_context(AsyncEventReader(engine.url))
            streams = Streams(reader)
            stack.push_async_callback(streams.topics.close)
            metrics.include(StreamCollector(streams))
            app.state.context = Context(
                settings=settings,
                home=home,
                version=app.version,
                libraries={name: version(name) for name in _LIBRARIES},
                authenticators=(local_key, *accounts.authenticators),
                local_key=local_key,
                accounts=accounts,
                limits=limits_of(settings),
                metrics=metrics,
                database=engine,
                runs=kept,
                alerts=alerts,
                reader=reader,
                lake=Lake(home.lake),
                prefect=prefect,
                launcher=launcher,
                run_states=run_states,
                streams=streams,
                sessions=sessions,
                answers=KeptAnswers(),
                closing=app.state.closing,
            )
            for work in (
                launcher.warm(),
                listen(prefect_url, prefect_auth, run_states),
                keeper.run(),
                alerting.run(),
            ):
                task = asyncio.create_task(work)
                task.add_done_callback(partial(_end_with, app))
                stack.push_async_callback(_ended, task)
            yield

    return lifespan


def _database(settings: Settings, home: Home) -> Engine:
    """Return the engine of our database, made and migrated where it is not."""
    database.ensure_databases(settings, home)
    engine = database.engine_of_its_own(database.app_url(settings, home))
    database.migrate(engine)
    return engine


def _end_with(app: FastAPI, task: asyncio.Task[None]) -> None:
    """Have the API end where a part of it that looks after others has died: its supervisor starts another.

    An API that answers and watches nothing would hide what it is there to see.
    """
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("a part of the API has died, and the API ends", exc_info=error)
        app.state.died = True


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
