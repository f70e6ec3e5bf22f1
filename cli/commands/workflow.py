"""`gpt-trader workflow`: runs of any kind, by their general names."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands import workflow_steps
from cli.commands.complete import complete_workflow

RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="Id of the run, as `workflow runs` shows it.")]


def list_workflows() -> None:
    """List the workflows that can be run."""
    from cli.actions.workflow import show_workflows

    show_workflows()


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID|WORKFLOW", help="A run, or a workflow.", autocompletion=complete_workflow
        ),
    ],
) -> None:
    """Show a run (state, times, request, links), or a workflow with the fields of its request."""
    from cli.actions.workflow import show_run_or_workflow

    show_run_or_workflow(name)


def run(
    name: Annotated[
        str,
        typer.Argument(metavar="WORKFLOW", help="Name of the workflow.", autocompletion=complete_workflow),
    ],
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A field of the request, or a parameter of its strategy (also as params.NAME); repeatable.",
        ),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            "--snapshot",
            metavar="TIME|SNAPSHOT",
            help="Read the lake as it was at a time, or by a snapshot's id (default: newest).",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for the end and show the result.")] = False,
) -> None:
    """Start a run of a workflow; with --follow, wait for its result (Ctrl-C cancels it).

    Example: gpt-trader workflow run backtest --param symbol=AAPL --param strategy=momentum --follow
    """
    from cli.actions.workflow import run_workflow
    from cli.runs.parameters import pairs

    run_workflow(name, pairs(param or []), as_of=as_of, follow=follow)


def runs(
    name: Annotated[
        str | None,
        typer.Option(metavar="WORKFLOW", help="Only this workflow's.", autocompletion=complete_workflow),
    ] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state, e.g. COMPLETED, FAILED.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag, e.g. symbol:AAPL.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.", show_default=True)] = 20,
) -> None:
    """List runs, newest first."""
    from cli.actions.workflow import show_runs

    show_runs(name=name, state=state, tag=tag, limit=limit)


def logs(
    run_id: RunId,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
) -> None:
    """Show the log of a run."""
    from cli.actions.workflow import show_logs

    show_logs(run_id, follow=follow)


def cancel(
    run_id: RunId,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has stopped.")] = True,
) -> None:
    """Cancel a run."""
    from cli.actions.workflow import cancel_run

    cancel_run(run_id, wait=wait)


def result(run_id: RunId) -> None:
    """Show what a run found."""
    from cli.actions.workflow import show_run_result

    show_run_result(run_id)


def reproduce(run_id: RunId) -> None:
    """Run once more what a run did, on the snapshot that it read; exit code 1 if the result is another.

    Says what differs: code, libraries, data, and each metric.
    """
    from cli.actions.workflow import reproduce_run

    reproduce_run(run_id)


def register(app: typer.Typer) -> None:
    """Put the commands on the group."""
    app.command("list")(list_workflows)
    for command in (show, run, runs, logs, cancel, result, reproduce):
        app.command()(command)
    workflow_steps.register(app)
