"""An API with accounts in it, in a database of its own and without Prefect; and what a client of it does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pyotp
from fastapi_users.password import PasswordHelper, PasswordHelperProtocol
from psycopg import sql
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pydantic import SecretStr

from api.accounts.users import Users
from api.limits import ROUTES
from gpt_trader.settings import Home, Settings
from storage import database as databases
from storage.cluster import ROLE, SUPERUSER, Cluster
from tests.api.conftest import Engine, serving

PASSWORD = "correct horse battery"
NOBODY = "http://127.0.0.1:9/api"

#: Argon2 that takes no time: most tests are not about how long it takes.
CHEAP = PasswordHelper(PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),)))

_numbers = itertools.count(1)


def account_settings(postgres: Cluster, **more: Any) -> Settings:
    """Settings that point to a new database, with no limit in the way."""
    name = f"accounts_{next(_numbers)}"
    with psycopg.connect(postgres.url("postgres", role=SUPERUSER), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY FILE_COPY").format(
                *map(sql.Identifier, (name, databases.APP_DATABASE, ROLE))
            )
        )
    unlimited = {"rate_limit": "1000000/minute", "rate_limits": dict.fromkeys(ROUTES, "1000000/minute")}
    return Settings(database_url=SecretStr(postgres.url(name)), api_port=0, **{**unlimited, **more})


@contextmanager
def serving_accounts(postgres: Cluster, folder: Path, **more: Any) -> Iterator[Engine]:
    with serving(account_settings(postgres, **more), Home(folder / "home"), NOBODY) as engine:
        yield with_hasher(engine, CHEAP)


def with_hasher(engine: Engine, hasher: PasswordHelperProtocol) -> Engine:
    """Have the API hash passwords by another helper of fastapi-users."""
    accounts = engine.context.accounts
    users = Users(accounts.store, accounts.thread, accounts.keys.derived("reset tokens"), hasher)
    context = replace(engine.context, accounts=replace(accounts, users=users))
    engine.state.context = context
    return replace(engine, context=context)


@dataclass
class Person:
    """An account and the tokens of its last login."""

    engine: Engine
    email: str
    id: str
    access: str = ""
    refresh: str = ""

    @property
    def principal(self) -> str:
        return f"user:{self.id}"

    def log_in(self, **form: str) -> httpx.Response:
        answer = login(self.engine, self.email, **form)
        if answer.status_code == 200:
            self.access, self.refresh = answer.json()["access_token"], answer.json()["refresh_token"]
        return answer

    def ask(self, method: str, path: str, credential: str | None = None, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {credential or self.access}", **more.pop("headers", {})}
        return httpx.request(method, f"{self.engine.url}/api/v1{path}", headers=headers, timeout=20, **more)


def person(engine: Engine, role: str = "researcher", name: str = "") -> Person:
    """Make an account and log it in."""
    email = f"{name or 'person'}-{next(_numbers)}@example.com"
    body = {"email": email, "role": role, "password": PASSWORD}
    answer = engine.http.post("/auth/users", json=body)
    assert answer.status_code == 201, answer.text
    made = Person(engine, email, answer.json()["id"])
    assert made.log_in().status_code == 200
    return made


def login(engine: Engine, email: str, password: str = PASSWORD, **form: str) -> httpx.Response:
    return httpx.post(
        f"{engine.url}/api/v1/auth/login",
        data={"username": email, "password": password, **form},
        timeout=20,
    )


def refreshed(engine: Engine, token: str) -> httpx.Response:
    return httpx.post(f"{engine.url}/api/v1/auth/refresh", json={"refresh_token": token}, timeout=20)


def enroll(who: Person) -> pyotp.TOTP:
    """Switch one-time codes on; the present step is taken with that."""
    answer = who.ask("POST", "/auth/otp/enroll", json={"current_password": PASSWORD})
    assert answer.status_code == 201, answer.text
    totp = pyotp.TOTP(answer.json()["secret"])
    confirmed = who.ask("POST", "/auth/otp/confirm", json={"code": totp.now()})
    assert confirmed.status_code == 200, confirmed.text
    return totp


def audit(engine: Engine, event: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = engine.http.get("/system/audit", params={"event": event}).json()["items"]
    return items
