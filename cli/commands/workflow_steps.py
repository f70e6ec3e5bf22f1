"""`gpt-trader workflow`: what may be done with a run that has stopped, and when workflows run by themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands.complete import complete_workflow

RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="Id of the run, as `workflow runs` shows it.")]
Workflow = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="Name of the workflow.", autocompletion=complete_workflow)
]
Slug = Annotated[
    str | None, typer.Option(metavar="SLUG", help="One of its schedules (default: all of them).")
]


def retry(
    run_id: RunId,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for the end and show the result.")] = False,
) -> None:
    """Try once more what a run did not complete: a new run with its request."""
    from cli.actions.workflow_steps import retry_run

    retry_run(run_id, follow=follow)


def approve(
    run_id: RunId,
    give: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A field that the run waits for; repeatable."),
    ] = None,
) -> None:
    """Let a run that waits for an approval go on."""
    from cli.actions.workflow_steps import approve_run
    from cli.runs.parameters import literal, pairs

    approve_run(
        run_id, {name: literal(value) for name, value in pairs(give or [], option="give").items()} or None
    )


def reject(run_id: RunId) -> None:
    """End a run that waits for an approval."""
    from cli.actions.workflow_steps import reject_run

    reject_run(run_id)


def schedule(
    name: Workflow,
    *,
    cron: Annotated[
        str | None,
        typer.Option(metavar="CRON", help='Minute, hour, day, month, day of week, e.g. "30 17 * * 1-5".'),
    ] = None,
    timezone: Annotated[
        str, typer.Option(metavar="ZONE", help="Zone of the cron's times.", show_default=True)
    ] = "UTC",
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A field of the request, as in `workflow run`; repeatable."),
    ] = None,
    slug: Annotated[
        str, typer.Option(metavar="SLUG", help="Which of its schedules: one of this name is replaced.")
    ] = "default",
    paused: Annotated[bool, typer.Option("--paused", help="Make it, and leave it switched off.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the schedule instead.")] = False,
) -> None:
    """Run a workflow by the clock. Its runs belong to `system`.

    Example: gpt-trader workflow schedule data --cron "30 17 * * 1-5" --timezone America/New_York --param refresh=true
    """
    from cli.actions.workflow_steps import remove_schedule, schedule_workflow
    from cli.runs.parameters import pairs

    if remove:
        remove_schedule(name, slug)
        return
    schedule_workflow(
        name, cron=cron, timezone=timezone, given=pairs(param or []), slug=slug, active=not paused
    )


def schedules() -> None:
    """List the schedules of all workflows, those that were made in the Prefect UI too."""
    from cli.actions.workflow_steps import show_schedules

    show_schedules()


def pause(name: Workflow, slug: Slug = None) -> None:
    """Switch a workflow's schedules off; what runs goes on."""
    from cli.actions.workflow_steps import switch_schedules

    switch_schedules(name, slug, active=False)


def resume(name: Workflow, slug: Slug = None) -> None:
    """Switch a workflow's schedules on; times that were missed are not made up for."""
    from cli.actions.workflow_steps import switch_schedules

    switch_schedules(name, slug, active=True)


def register(app: typer.Typer) -> None:
    """Put the commands on the group."""
    for command in (retry, approve, reject, schedule, schedules, pause, resume):
        app.command()(command)
