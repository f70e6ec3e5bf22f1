"""Passwords: what is accepted as one, and the thread that hashes them.

Argon2 takes 150 to 260 ms of a core, and fastapi-users runs it on its event loop: with it there, three logins a second
delay everybody else's requests by 140 ms. So fastapi-users runs as a whole in a thread and on a loop of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from fastapi_users.password import PasswordHelper
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from api.errors import TooManyRequests
from gpt_trader.errors import Problem, Refused

Found = TypeVar("Found")

SHORTEST: Final = 12
LONGEST: Final = 200
_FEWEST_DIFFERENT: Final = 5
_SHORTEST_NAME: Final = 4

#: Passwords that wait for the thread; at 200 ms each the last one waits for 3 seconds.
WAITING: Final = 16


def check_password(password: str, email: str, field: str = "password") -> None:
    """Raise Refused for a password that would be guessed; the problem does not repeat it."""
    problem = None
    if not SHORTEST <= len(password) <= LONGEST:
        problem = f"must have {SHORTEST} to {LONGEST} characters"
    elif len(set(password)) < _FEWEST_DIFFERENT:
        problem = f"must have at least {_FEWEST_DIFFERENT} different characters"
    elif password.lower() in email.lower() or _tells(password, email):
        problem = "must not be made of the email address"
    elif "\x00" in password:
        problem = "must not hold a NUL"
    if problem:
        raise Refused.of(
            Problem(field, None, problem, f"{SHORTEST} to {LONGEST} characters, e.g. four words")
        )


def _tells(password: str, email: str) -> bool:
    """Whether the address's own part stands in the password; one of a few letters stands in most of them."""
    name = email.lower().partition("@")[0]
    return len(name) >= _SHORTEST_NAME and name in password.lower()


def argon2() -> PasswordHelper:
    """Return what hashes passwords: Argon2id with the library's 64 MiB and 3 passes, on one core.

    The library's four lanes are four threads: one login would take every core of a small machine from all others.
    Passwords that were hashed so are hashed anew at their next login.
    """
    return PasswordHelper(PasswordHash((Argon2Hasher(parallelism=1),)))


def _give_way() -> None:
    """Let the event loop go first where both want a core (Linux has priorities of threads)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


class PasswordThread:
    """One thread that runs what hashes passwords; a bounded number waits for it, and more are turned away."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="passwords", initializer=_give_way)
        self._places = threading.BoundedSemaphore(waiting)

    async def run(self, work: Callable[[], Coroutine[Any, Any, Found]]) -> Found:
        """Return what the coroutine returns that `work` makes; it runs in the thread, on a loop of its own.

        Raises:
            TooManyRequests: Too many wait already.
        """
        if not self._places.acquire(blocking=False):
            raise TooManyRequests(
                "too many passwords are being checked: try again in a few seconds", retry_after=3
            )
        # A client that hangs up gives its place free only once its work is done or was never begun.
        future = self._pool.submit(lambda: asyncio.run(work()))
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread; what waits is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
