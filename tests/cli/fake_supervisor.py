"""Our supervisor with our plan, but each part's command replaced by `fake_part.py`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cli.engine.plan import Plan, make_plan
from cli.engine.supervisor import main
from gpt_trader.settings import Home, Settings

FAKE = str(Path(__file__).with_name("fake_part.py"))


def fake_plan(settings: Settings, home: Home, only: Sequence[str]) -> Plan:
    plan = make_plan(settings, home, only)
    parts = (
        replace(
            part,
            command=(sys.executable, "-S", FAKE, part.name),
            stop_seconds=0.5,
            restart_seconds=0.05,
            orphan_seconds=float(os.environ.get("GPT_TRADER_TEST_ORPHAN_SECONDS", "0")),
        )
        for part in plan.parts
    )
    return replace(plan, parts=tuple(parts))


if __name__ == "__main__":
    sys.exit(main(make=fake_plan))
