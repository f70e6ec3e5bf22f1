"""Runs paper flows, each in a child of its own: a line of JSON on stdin, the child's pid and its exit status on stdout.

A fork takes milliseconds where a fresh interpreter takes seconds, so that many can be killed. A job is `flow`,
`request`, `out` (the file for how it ended) and `crash_at`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    from flows.paper_certificate import paper_certificate
    from flows.paper_daily import paper_daily
    from flows.paper_trade import paper_trade
    from gpt_trader.backtesting.execution import load_vectorbt
    from gpt_trader.trading import request as requests
    from storage.database import dispose_engines, migrate
    from tasks.stores import stores
    from tests.trading_samples import random_session, traded

    load_vectorbt()
    traded(*random_session(4))  # compiles what every child needs
    migrate(stores().engine)
    dispose_engines()
    flows: dict[str, Any] = {
        "paper_trade": (paper_trade, requests.PaperTradeRequest),
        "paper_daily": (paper_daily, requests.PaperDailyRequest),
        "paper_certificate": (paper_certificate, requests.PaperCertificateRequest),
    }
    say({"ready": True})
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.environ["GPT_TRADER_CRASH_AT"] = job["crash_at"]
            flow, model = flows[job["flow"]]
            state = flow(model.model_validate(job["request"]), return_state=True)
            run_id = state.state_details.flow_run_id
            ended = {"run_id": str(run_id), "state": state.type.value, "message": state.message}
            summary = stores().runs.summary(run_id) if state.is_completed() else None
            Path(job["out"]).write_text(json.dumps({**ended, "summary": summary}))
            os._exit(0)
        say({"pid": pid})
        say({"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})


def say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
