"""The engine's worker with the sample's flows instead of ours."""

import sys
from pathlib import Path

from flows.worker import PREFECT, main

if __name__ == "__main__":
    sys.exit(
        main(
            preload=(*PREFECT, "tests.flows.sample.runs"),
            warm=("flows.rehearsal:rehearse",),
            later=(),
            folder=Path(__file__).parent,
        )
    )
