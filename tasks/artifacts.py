"""What a run shows of itself in the Prefect UI."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact

from gpt_trader.report_links import report_url
from tasks.run import CurrentRun
from tasks.stores import stores


def run_artifact(run: CurrentRun, lines: list[str]) -> None:
    """Create the flow run's artifact; its key is the slice's, so the UI keeps a history of it."""
    create_markdown_artifact("\n".join(lines), key=run.slice.replace("_", "-"))


def report_lines(run: CurrentRun) -> list[str]:
    """Return where the report is: a link that opens it (the local engine's API), and its file."""
    kept = stores()
    path = kept.runs.artifact_path(run.id, "report")
    if not path.is_file():
        return []
    origin = kept.home.api_origin()
    if origin is None or not kept.home.key.is_file():
        return [f"Report: `{path}`", ""]
    link = report_url(origin, kept.home.key.read_text(encoding="ascii").strip(), str(run.id))
    return [f"[Open the report]({link}), or the file `{path}`", ""]
