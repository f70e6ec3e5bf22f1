"""What a run shows of itself in the Prefect UI."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact

from tasks.run import CurrentRun


def run_artifact(run: CurrentRun, lines: list[str]) -> None:
    """Create the flow run's artifact; its key is the slice's, so the UI keeps a history of it."""
    create_markdown_artifact("\n".join(lines), key=run.slice.replace("_", "-"))
