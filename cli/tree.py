"""The tree of commands. Building it imports Typer and the light command modules, nothing else."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from cli.commands import (
    alerts,
    backtest,
    cache,
    config,
    data,
    engine,
    login,
    monitor,
    optimize,
    paper,
    portfolio,
    strategy,
    user,
    workflow,
)
from cli.terminal.options import Options, Output, use

#: What one group of commands is called in `--help`.
GROUPS = {
    "portfolio": (portfolio, "Many symbols, one cash account."),
    "paper": (paper, "Trading sessions on paper: start, watch, pause, stop, prove."),
    "workflow": (workflow, "Runs of any kind: start, follow, list, cancel, retry, reproduce, schedule."),
    "data": (data, "The lake of bars: ingest, list, show."),
    "strategy": (strategy, "Strategies and their parameters."),
    "alerts": (alerts, "What somebody should know: list, acknowledge, send."),
    "user": (user, "Accounts of the engine: add, list, roles, switch off, reset."),
    "config": (config, "Settings of this engine's home."),
    "cache": (cache, "What was computed and is kept (matrices, finished trials): stats, clear, warm."),
}

#: Other names of groups, for who takes REST's plural; no help lists them.
ALIASES = {"strategies": "strategy"}


def build() -> typer.Typer:
    """Return the whole command tree."""
    markup: Literal["rich"] | None = "rich" if sys.stdout.isatty() else None
    app = typer.Typer(
        name="gpt-trader",
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=markup,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback(invoke_without_command=True)(_root)
    engine.register(app)
    backtest.register(app)
    optimize.register(app)
    paper.register_run(app)
    monitor.register(app)
    login.register(app)
    for name, (module, summary) in GROUPS.items():
        group = typer.Typer(name=name, help=summary, no_args_is_help=True, rich_markup_mode=markup)
        module.register(group)
        app.add_typer(group)
        for alias in (alias for alias, meant in ALIASES.items() if meant == name):
            app.add_typer(group, name=alias, hidden=True)
    return app


_HELP = """Backtests of trading strategies as observable, reproducible workflows.

The local engine is started when a command needs it. Global options may also stand after the command.
Exit codes: 0 ok, 1 the run failed, 2 refused input, 3 no engine, 4 not allowed, 130 interrupted."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from gpt_trader import __version__

        typer.echo(f"gpt-trader {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    *,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="GPT_TRADER_SERVER",
            show_envvar=True,
            help="Use the API there instead of the local engine, by `login` or a key in GPT_TRADER_API_KEY.",
        ),
    ] = None,
    output: Annotated[
        Output,
        typer.Option(
            envvar="GPT_TRADER_OUTPUT",
            show_envvar=True,
            show_default=True,
            help="How results are written on stdout; anything else goes to stderr.",
        ),
    ] = Output.TABLE,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr; tracebacks too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but results and errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
    mode: Annotated[
        engine.Mode | None,
        typer.Option(
            help="Instead of a command: run this part of the engine alone, as a service does (as `up --only`)."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="With --mode api or prefect: its port (0: any free).")
    ] = None,
) -> None:
    use(Options(server=server or None, output=output, verbose=verbose, quiet=quiet))
    if context.invoked_subcommand is None:
        if mode is None:
            context.fail("Missing command.")
        engine.run_mode(mode, port)
    elif mode is not None or port is not None:
        context.fail("--mode and --port stand instead of a command.")
