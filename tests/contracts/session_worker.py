"""Trades a session of the database in a process of its own: `URL SESSION HOLDER SEED [GATE]`, printing how it ended.

With GATE (a folder) it writes `ready` before each bar and waits until `go` is there. Without arguments it is a nursery:
it forks a child for each line of JSON (the arguments and a crash point), and writes the child's pid, then its status.
A fork takes milliseconds where a fresh interpreter takes seconds, so that hundreds can be killed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from uuid import UUID

from sqlalchemy import make_url

from gpt_trader.errors import Conflict
from gpt_trader.trading.desk import Desk
from gpt_trader.trading.feed import moments
from gpt_trader.trading.trader import Trader
from storage.database import engine_for
from storage.events import EventLog
from storage.session_ledger import SessionJournal, load
from storage.session_stream import Publisher, PublishingJournal
from storage.sessions import SessionStore
from tests.trading_samples import opening, paper_broker, random_session, traded


def main(url: str, session: str, holder: str, seed: str, gate: str = "") -> None:
    engine, id_ = engine_for(make_url(url)), UUID(session)
    store = SessionStore(engine)
    request, strategies, bars = random_session(int(seed))
    lease = store.lease(id_, holder, seconds=1.0 if gate else 15.0)
    ledger, snapshot = load(engine, id_)
    journal = SessionJournal(engine, lease, ledger.seq, snapshot_at=snapshot)
    publisher = Publisher(store, EventLog(engine), id_, "somebody")
    publisher.start(store.get(id_).told, ledger.seq)
    broker = paper_broker(request)
    telling = PublishingJournal(journal, publisher)
    trader = Trader(Desk(request, strategies), ledger, broker, telling)
    try:
        if ledger.seq == 0:
            trader.open(opening(request))
        broker.restore(trader.state)
        trader.resume()
        for moment in moments(bars):
            if trader.state.over:
                break
            if trader.state.time is not None and moment.time <= trader.state.time:
                continue
            if gate:
                Path(gate, "ready").touch()
                while not Path(gate, "go").exists():
                    time.sleep(0.01)
            trader.step(moment)
        if not trader.state.over:
            trader.finish("completed", "its range has ended")
    except Conflict as error:
        sys.stdout.write(json.dumps({"conflict": error.detail, "seq": ledger.seq}))
        return
    telling.close()
    publisher.close()
    store.release(lease)
    sys.stdout.write(json.dumps({"hash": ledger.hash, "seq": ledger.seq}))


def nursery() -> None:
    traded(*random_session(4))  # compiles what every child needs
    for line in sys.stdin:
        *arguments, crash_at = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.environ["GPT_TRADER_CRASH_AT"] = crash_at
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the child's end
            main(*arguments)
            os._exit(0)
        say(pid)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:]) if sys.argv[1:] else nursery()
