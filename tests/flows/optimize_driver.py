"""Runs the optimize flow in this process and prints how it ended: `REQUEST-AS-JSON CHUNK LOG`.

CHUNK trials are a chunk. In LOG a line `kept NUMBER` says that a chunk has come back, by its first combination.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    # Here, not above: a computing process imports its parent's main module.
    from storage.database import migrate
    from tasks import optimize as tasks
    from tasks.places import compute
    from tasks.stores import stores

    request, chunk, log = json.loads(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])

    def noted(what: str, function: Callable[..., Any], shared: object, *rest: Any) -> Any:
        found = compute(what, function, shared, *rest)
        with log.open("a") as file:
            file.write(f"kept {rest[0][0]}\n")
        return found

    tasks.CHUNK, tasks.compute = chunk, noted  # type: ignore[misc]
    migrate(stores().engine)
    from flows.optimize import optimize
    from gpt_trader.requests import OptimizeRequest

    state = optimize(OptimizeRequest.model_validate(request), return_state=True)
    run_id = state.state_details.flow_run_id
    found: dict[str, Any] = {"run_id": str(run_id), "state": state.type.value, "message": state.message}
    if state.is_completed() and run_id is not None:
        summary = stores().runs.summary(run_id)
        found |= {name: summary[name] for name in ("result_hash", "trials", "reasons")}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
