"""Writes a result on stdout as table, JSON, YAML or CSV. Rich is loaded for tables alone."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from cli.terminal.options import Output, current

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Row = Mapping[str, Any]


class ReaderGone(Exception):
    """Nobody reads our output any more. Not an OSError: Typer would end the program by itself, with code 1."""


def emit(
    value: object,
    *,
    table: Callable[[], Iterable[RenderableType]],
    rows: Callable[[], Iterable[Row]] | None = None,
) -> None:
    """Write `value` in the format that was asked for.

    JSON and YAML hold `value` itself; CSV the `rows` (default: `value`, a list of mappings or one mapping as
    rows of field and value); a table what `table()` gives, one renderable after the other.
    """
    output = current().output
    if output is Output.JSON:
        write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    elif output is Output.YAML:
        import yaml

        write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    elif output is Output.CSV:
        write(csv_text(rows() if rows else _as_rows(value)))
    else:
        out = console()
        for part in table():
            out.print(part)
        write(out.file.getvalue())  # type: ignore[attr-defined] # a StringIO, see console()


def emit_line(value: object, line: str) -> None:
    """Write `value` in the machine format that was asked for, else `line` as it is: a token must not be wrapped."""
    if current().machine:
        emit(value, table=list)
    else:
        write(line + "\n")


def listing(items: Sequence[Row], columns: Mapping[str, str], *, empty: str, value: object = None) -> None:
    """Write a list: `columns` maps the fields that a table shows to their headings; CSV and JSON show all.

    `empty` is what a table says instead of no rows; `value` replaces the items in JSON and YAML.
    """
    emit(
        list(items) if value is None else value,
        rows=lambda: items,
        table=lambda: [grid(items, columns) if items else empty],
    )


def grid(items: Iterable[Row], columns: Mapping[str, str], *, numbers: Container[str] = ()) -> RenderableType:
    """Return a compact table of `items`; numbers are set to the right, and the fields of `numbers`, written already."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = list(items)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for field, heading in columns.items():
        numeric = field in numbers or all(
            isinstance(row.get(field), int | float | None) and not isinstance(row.get(field), bool)
            for row in rows
        )
        table.add_column(heading, justify="right" if numeric and rows else "left", overflow="fold")
    for row in rows:
        table.add_row(*(shown(row.get(field)) for field in columns))
    return table


def pairs(facts: Mapping[str, Any]) -> RenderableType:
    """Return two columns, name and value, without a frame; what is None is left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, Text(shown(value)))
    return table


def shown(value: object) -> str:
    """Return a value as a person reads it: no None, lists by comma, mappings as `name=value`."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e6 else f"{value:,.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={shown(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(shown(part) for part in value)
    return str(value)


def to_the_second(time: object) -> str:
    """Return an ISO time as a table has it: day and time of day, no fraction, no zone; of nothing, nothing."""
    return str(time or "")[:19].replace("T", " ")


def short_strategy(name: str | None) -> str:
    """Return a name as it is, and `user:<sha256>:<Class>` as the class and what tells the file."""
    parts = (name or "").split(":")
    return f"{parts[2]} [{parts[1][:12]}]" if len(parts) == 3 and parts[0] == "user" else name or ""


def csv_text(rows: Iterable[Row]) -> str:
    """Return rows as CSV with a header of every field met, in order; nested values as JSON."""
    listed = list(rows)
    header = list(dict.fromkeys(field for row in listed for field in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n", restval="")
    if header:
        writer.writeheader()
    writer.writerows({field: _cell(part) for field, part in row.items()} for row in listed)
    return text.getvalue()


def console() -> Console:
    """Return a rich console that collects what stdout shall show, with its colors and width.

    Without a terminal the width is that of `COLUMNS` or wide enough that nothing is cut.
    """
    from rich.console import Console

    terminal = sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
    width = None if terminal or "COLUMNS" in os.environ else 160
    # Rich itself honors NO_COLOR; collecting first means that a broken pipe meets one write, not many.
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=width or _columns(), highlight=False, markup=False
    )


def write(text: str) -> None:
    """Write on stdout; raise ReaderGone where whoever read it has closed it (`| head`)."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None


def _columns() -> int | None:
    import shutil

    return shutil.get_terminal_size().columns


def _as_rows(value: object) -> Iterable[Row]:
    if isinstance(value, Mapping):
        return [{"field": name, "value": part} for name, part in value.items()]
    return [row if isinstance(row, Mapping) else {"value": row} for row in value] if _many(value) else []


def _many(value: object) -> TypeGuard[Iterable[object]]:
    return isinstance(value, list | tuple)


def _cell(value: object) -> object:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value
