"""The throttle of guesses, shared by several APIs over Redis: each process more is not as many guesses more."""

from __future__ import annotations

import time
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.accounts.throttle import ACCOUNT, ADDRESS, FORGET_SECONDS, Throttle, keys_of

#: Seconds that Redis is left alone after it did not answer; this process counts by itself meanwhile.
_REST_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 1.0

#: As `Throttle.begin` and `Throttle.succeeded`, each in one step for everybody, by Redis's own clock.
_COMMON: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local function pause(failures, i)
  local over = failures - tonumber(ARGV[2 * i])
  if over <= 0 then return 0 end
  return math.min(tonumber(ARGV[2 * i + 1]), 2 ^ math.min(over - 1, 30))
end
local function held(key, name) return tonumber(redis.call('HGET', key, name) or '0') end
local function keep(key, failures, touched, free_at)
  redis.call('HSET', key, 'failures', failures, 'touched', string.format('%.6f', touched),
    'free_at', string.format('%.6f', free_at))
  redis.call('EXPIRE', key, ARGV[1])
end
"""
_BEGIN: Final = (
    _COMMON
    + """
local wait = math.max(held(KEYS[1], 'free_at'), held(KEYS[2], 'free_at')) - now
if wait > 0 then return math.ceil(wait) end
for i = 1, 2 do
  local failures = held(KEYS[i], 'failures') + 1
  keep(KEYS[i], failures, now, now + pause(failures, i))
end
return 0
"""
)
_SUCCEEDED: Final = (
    _COMMON
    + """
local own = held(KEYS[1], 'failures')
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then
  local failures = math.max(0, held(KEYS[2], 'failures') - math.max(own, 1))
  local touched = held(KEYS[2], 'touched')
  keep(KEYS[2], failures, touched, touched + pause(failures, 2))
end
return 0
"""
)
_ARGUMENTS: Final = (int(FORGET_SECONDS), ACCOUNT.free, ACCOUNT.longest, ADDRESS.free, ADDRESS.longest)

_log = structlog.get_logger("api")


class SharedThrottle:
    """Counts in Redis where a storage is given, else, and while that does not answer, in this process.

    Args:
        storage: `redis://host:port/0`, or None. It is never logged: it may hold a password.
    """

    def __init__(self, storage: str | None) -> None:
        self._own = Throttle()
        self._redis: Redis | None = None
        if storage is not None:
            self._redis = Redis.from_url(
                storage, socket_timeout=_ANSWER_SECONDS, socket_connect_timeout=_ANSWER_SECONDS
            )
        self._resting_until = 0.0

    async def begin(self, account: str, address: str) -> int:
        """Let an attempt begin; return 0, or the whole seconds to wait (see `Throttle.begin`)."""
        found = await self._ask(_BEGIN, account, address)
        return self._own.begin(account, address) if found is None else found

    async def succeeded(self, account: str, address: str) -> None:
        """Forget the failures of this account from this address (see `Throttle.succeeded`)."""
        if await self._ask(_SUCCEEDED, account, address) is None:
            self._own.succeeded(account, address)

    async def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            await self._redis.aclose()

    async def _ask(self, script: str, account: str, address: str) -> int | None:
        if self._redis is None or time.monotonic() < self._resting_until:
            return None
        keys = [f"gpt-trader:guesses:{address}:{account}" for account, address in keys_of(account, address)]
        try:
            found: Any = await self._redis.eval(script, len(keys), *keys, *map(str, _ARGUMENTS))
        except (RedisError, OSError) as error:
            self._resting_until = time.monotonic() + _REST_SECONDS
            _log.warning("the shared throttle does not answer", reason=type(error).__name__)
            return None
        return int(found)
