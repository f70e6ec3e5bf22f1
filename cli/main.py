"""The program: `gpt-trader`, and the same as `python -m gpt_trader`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cli.terminal.failures import INTERRUPTED, report
from cli.terminal.options import foreseen, hoisted, use
from cli.terminal.render import ReaderGone


def app(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code (see `cli.terminal.failures`)."""
    _open_standard_streams()
    # pydantic would read the entry points of every installed package for plugins: 40 ms, and we have none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    args = hoisted(sys.argv[1:] if argv is None else argv)
    use(foreseen(args))
    try:
        return _run(args)
    except ReaderGone:
        return _reader_gone()
    except SystemExit as stop:  # completion scripts end this way
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:  # noqa: BLE001 the edge: every error becomes a message and a code
        return report(error)


def _run(args: list[str]) -> int:
    import typer

    from cli.tree import build

    command = typer.main.get_command(build())
    returned = command.main(args=args, prog_name="gpt-trader", standalone_mode=False)
    if returned == INTERRUPTED:  # Typer has made a bare number of Ctrl-C
        raise KeyboardInterrupt
    return returned if isinstance(returned, int) else 0


def _open_standard_streams() -> None:
    """Give a program that was started without one of them (`>&-`) the null device, as daemons do."""
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _reader_gone() -> int:
    """End quietly: this is no failure, and what Python still holds back is not to be written either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(app())
