"""`gpt-trader data snapshots` and `data collect`: the versions of the lake."""

from __future__ import annotations

from typing import Annotated

import typer


def snapshots(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.", show_default=True)] = 20,
) -> None:
    """List the versions of the lake, newest first, with what each of them changed.

    Any of their ids, the beginning of one, or a time is what --as-of takes.
    """
    from cli.actions.versions import show_snapshots

    show_snapshots(limit)


def collect(
    older_than: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=36_500,
            metavar="DAYS",
            help="Those that were replaced so long ago (default: setting keep_snapshots_days).",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove old snapshots and the files that nothing else needs.

    The newest snapshot stays, and so does each that a run read: it can be reproduced as long as it is kept.
    """
    from cli.actions.versions import collect_snapshots

    collect_snapshots(older_than, dry_run=dry_run)


def register(group: typer.Typer) -> None:
    """Put the commands on the group `data`."""
    group.command()(snapshots)
    group.command()(collect)
