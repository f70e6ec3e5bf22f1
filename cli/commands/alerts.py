"""`gpt-trader alerts`: what somebody should know."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def list_(
    everything: Annotated[bool, typer.Option("--all", help="Those that were acknowledged as well.")] = False,
) -> None:
    """List the alerts that are open, newest first."""
    from cli.actions.alerts import list_alerts

    list_alerts(everything=everything)


def acknowledge(alert: Annotated[int, typer.Argument(metavar="ID", help="Its id in the list.")]) -> None:
    """Acknowledge an alert: it is sent no more, and the next one like it is new."""
    from cli.actions.alerts import acknowledge_alert

    acknowledge_alert(alert)


def send(
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="What to say.")],
    severity: Annotated[
        Literal["info", "warning", "error", "critical"], typer.Option(help="How bad it is.")
    ] = "warning",
) -> None:
    """Raise an alert by hand: to try the channels of the setting `alert_channels`."""
    from cli.actions.alerts import send_alert

    send_alert(message, severity)


def register(group: typer.Typer) -> None:
    """Add the commands to their group."""
    group.command("list")(list_)
    group.command("ack")(acknowledge)
    group.command("send")(send)
