"""Row 24 as one campaign: clients that break every rule, against a real process; others go on unharmed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gpt_trader.runs import LOCAL
from gpt_trader.settings import Settings
from tests.api.conftest import Engine, Prefect, free_port
from tests.api.sockets import Plain
from tests.api.test_process import environment, is_live, running
from tests.api.test_slow_clients import stuck
from tests.waiting import eventually

SEED = 24


def close_of(client: Plain) -> int:
    with suppress(ConnectionClosed, OSError):
        while True:
            client.take(30)
    return client.socket.close_code or 0


def floods(engine: Engine) -> int:
    with Plain(engine, engine.key, max_queue=None) as client:
        with suppress(ConnectionClosed, OSError):
            for _ in range(5000):
                client.say("ping")
        return close_of(client)


def sends(content: str | bytes) -> Callable[[Engine], int]:
    def act(engine: Engine) -> int:
        with Plain(engine, engine.key) as client:
            client.socket.send(content)
            return close_of(client)

    return act


def comes_from_elsewhere(engine: Engine) -> int:
    try:
        Plain(engine, headers={"Origin": "https://evil.example"})
    except InvalidStatus as refused:
        return refused.response.status_code
    return 0


def guesses(engine: Engine) -> int:
    with Plain(engine, headers={"Authorization": "Bearer gtk_guess"}) as client:
        return close_of(client)


def vanishes(engine: Engine) -> int:
    with Plain(engine, engine.key) as client:
        client.say("subscribe", channel="custom.row24", recover={"epoch": None, "offset": 0})
        client.socket.socket.shutdown(2)
    return 0


def never_reads(engine: Engine) -> int:
    with stuck(engine) as client:
        client.say("subscribe", channel="custom.row24")
        threading.Event().wait(3)  # while others publish
        return close_of(client)


#: What each does, and how it may end: a code, or a handshake's status (0: the client left).
MISDEEDS: dict[str, tuple[Callable[[Engine], int], set[int]]] = {
    "flood": (floods, {1008, 1006}),  # 1006: cut before it has read its close
    "half a message": (sends("{"), {1008}),
    "deep": (sends("[" * 60_000), {1008}),
    "binary": (sends(b"\x00"), {1003}),
    "oversize": (sends("x" * 70_000), {1009}),
    "foreign origin": (comes_from_elsewhere, {403}),
    "guessed key": (guesses, {4401}),
    "vanishing": (vanishes, {0}),
    "never reading": (never_reads, {4408, 1006}),  # 1006: cut, as it has not read its close in time
}


@pytest.mark.slow
def test_bad_clients_harm_nobody_else(
    engine_api: Engine,
    prefect: Prefect,
    api_settings: Settings,
    tmp_path: Path,
    figure: Callable[[str], None],
) -> None:
    chance = random.Random(SEED)
    port = free_port()
    variables = environment(api_settings, tmp_path / "home", port, prefect.url)
    variables |= {"GPT_TRADER_RATE_LIMIT": "1000000/minute", "GPT_TRADER_LOG_LEVEL": "warning"}
    variables |= {"GPT_TRADER_RATE_LIMITS": '{"GET /ws/v1/": "1000000/minute"}'}
    with running(variables, tmp_path) as process:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=f"{url}/api/v1/system", trust_env=False) as http:
            eventually(lambda: is_live(http) or process.poll(), seconds=60, what="the API's life")
        key = (tmp_path / "home" / "key").read_text().strip()
        rest = httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=20, trust_env=False
        )
        engine = replace(engine_api, url=url, key=key, http=rest)
        with Plain(engine, key) as well, rest:
            well.subscribe("custom.row24")
            calm = latencies(engine, well, 200)
            before = resident(process.pid)
            deeds = chance.choices(list(MISDEEDS), k=120)
            wrong: Counter[str] = Counter()
            threads = [
                threading.Thread(target=act_out, args=(engine, deeds[n::8], wrong), daemon=True)
                for n in range(8)
            ]
            for thread in threads:
                thread.start()
            beside: list[float] = []
            while any(thread.is_alive() for thread in threads):
                beside += latencies(engine, well, 20, size=16_000)
            grown = resident(process.pid) - before
            assert well.ask("ping")["type"] == "pong"
        assert process.poll() is None
    log = (tmp_path / "err").read_text() + (tmp_path / "out").read_text()
    p99 = [sorted(each)[int(len(each) * 0.99)] * 1000 for each in (calm, beside)]
    figure(
        f"{len(deeds)} bad clients (seed {SEED}): crashes 0, RSS +{grown / 2**20:.0f} MB, another's p99 "
        f"{p99[0]:.0f} → {p99[1]:.0f} ms over {len(beside)} messages"
    )
    assert not wrong, f"seed {SEED}: {wrong}"
    assert "Traceback" not in log, log[-3000:]
    assert grown < 64 * 2**20
    assert p99[1] < 1000


def act_out(engine: Engine, deeds: list[str], wrong: Counter[str]) -> None:
    for name in deeds:
        act, allowed = MISDEEDS[name]
        ended = act(engine)
        if ended not in allowed:
            wrong[f"{name} ended with {ended}"] += 1


def latencies(engine: Engine, reader: Plain, count: int, size: int = 100) -> list[float]:
    seconds = []
    for number in range(count):
        began = time.perf_counter()
        engine.events.append(f"custom.{LOCAL}.row24", "message", {"n": number, "filling": "x" * size})
        reader.take_until(lambda message: message["type"] == "publication")
        seconds.append(time.perf_counter() - began)
    return seconds


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
