"""One screen of `monitor`: sessions with their curves, positions, fills, runs and alerts, as the room allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cli.terminal.monitored import bar_table, clock, event_table, run_table
from cli.terminal.render import grid, short_strategy
from cli.terminal.sessions import COLUMNS, ledger_grid, short, two_digits

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = Mapping[str, Any]

_BARS: Final = "▁▂▃▄▅▆▇█"
#: A text that stays on its line.
_CUT: Final[Any] = {"no_wrap": True, "overflow": "ellipsis"}
#: Lines around each part's rows: its title, the heading and its rule, and an empty one.
_AROUND: Final = 4
#: Columns that the sessions' table needs beside the curve; what a curve has at least and at most.
_BESIDE, _NARROWEST, _WIDEST = 78, 8, 40
#: The least width of a terminal for each of the columns that not every one has room for.
_FROM: Final = {"strategy": 110, "bar": 76, "drawdown": 76, "equity curve": 66}
_SESSION: Final = ("session", "strategy", "state", "bar", "equity", "return", "drawdown", "equity curve")
_SEVERITY: Final = {"critical": "bold red", "error": "red", "warning": "yellow", "info": "dim"}
_STATE: Final = {
    "active": "green", "paused": "yellow", "reducing": "yellow", "closing": "yellow", "halted": "bold red",
}  # fmt: skip

#: The keys, and what each does.
KEYS: Final = {
    "j, ↓, Tab": "next session",
    "k, ↑": "session before",
    "0": "all sessions",
    "p": "pause the chosen session, or resume it",
    "a": "acknowledge the newest alert",
    "?": "this help",
    "q, Ctrl-C": "leave; sessions go on",
}


def screen(
    known: Row, *, selected: str | None, status: str | None, prompt: str | None, width: int, height: int
) -> list[RenderableType]:
    """Return the parts of one screen.

    Args:
        known: What `monitor --once --output json` writes.
        selected: The chosen session's id, None for all.
        status: What is wrong with the connection, empty for nothing; None: there is none to speak of.
        prompt: What is asked or said at the bottom; None: there is nobody to press a key.
        width: Columns of the terminal.
        height: Its lines.
    """
    from rich.text import Text

    head = Text("gpt-trader monitor  ", style="bold", **_CUT)
    if status is not None:
        head.append(*((f"○ {status}", "bold yellow") if status else ("● live", "green")))
    chosen = [each for each in known["positions"] if selected in (None, each["session_id"])]
    fills = [each for each in known["fills"] if selected in (None, each["session_id"])]
    names = {each["session_id"]: each["name"] for each in known["sessions"]}
    sessions = known["sessions"]
    wanted: list[tuple[str, Sequence[Row], Callable[[Sequence[Row]], RenderableType]]] = [
        ("sessions", sessions, lambda rows: session_table(rows, selected, width)),
        ("alerts", known["alerts"], alert_table),
        ("positions", chosen, lambda rows: position_table(rows, names)),
        ("fills", fills, lambda rows: fill_table(rows, names)),
        ("runs", known["runs"], run_table),
        ("bars", known["bars"], bar_table),
        ("events", [_named(each, names) for each in known["events"][::-1]], event_table),
    ]
    there = [part for part in wanted if part[1]]
    taken = 3 if sessions else 5
    rooms = shares(height - taken, [len(rows) for _, rows, _ in there])
    parts: list[RenderableType] = [] if status is None else [head, ""]
    if not sessions:
        parts += [Text("no sessions yet: gpt-trader paper start --symbol AAPL begins one", **_CUT), ""]
    for (title, rows, table), room in zip(there, rooms, strict=True):
        first = _first(rows, selected, room) if title == "sessions" else 0
        if room:
            more = f" ({first + 1} to {first + room} of {len(rows)})" if room < len(rows) else ""
            parts += [
                Text(title + more, style="bold"),
                _one_line_a_row(table(rows[first : first + room])),
                "",
            ]
    if prompt is None:
        return parts[:-1]
    keys = Text("? help   j/k session   q quit", style="dim", **_CUT)
    return [*parts, Text(prompt, style="reverse", **_CUT) if prompt else keys]


def help_screen() -> list[RenderableType]:
    """Return what the keys do."""
    from rich.text import Text

    rows = [{"key": key, "does": does} for key, does in KEYS.items()]
    return [
        Text("gpt-trader monitor", style="bold"),
        "",
        grid(rows, {"key": "key", "does": ""}),
        "",
        "any key: back",
    ]


def shares(lines: int, wanted: Sequence[int]) -> list[int]:
    """Return how many rows each part gets of `lines`, one after the other in turns; the first parts come first."""
    rooms = [0] * len(wanted)
    while True:
        before = lines
        for place, rows in enumerate(wanted):
            cost = 1 if rooms[place] else _AROUND + 1
            if rooms[place] < rows and cost <= lines:
                rooms[place] += 1
                lines -= cost
        if lines == before:
            return rooms


def sparkline(points: Sequence[float], width: int) -> str:
    """Return a curve as `width` characters at most: each its stretch's last close, between the lowest and highest."""
    if len(points) > width:
        points = [points[(place + 1) * len(points) // width - 1] for place in range(width)]
    if not points:
        return ""
    low, high = min(points), max(points)
    room = high - low
    return "".join(
        _BARS[int((each - low) / room * (len(_BARS) - 1) + 0.5) if room > 0 else 0] for each in points
    )


def session_table(sessions: Iterable[Row], selected: str | None, width: int) -> RenderableType:
    """Return the table of sessions; the chosen one is marked."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    curve = max(_NARROWEST, min(_WIDEST, width - _BESIDE - (18 if width >= _FROM["strategy"] else 0)))
    widths = {"session": 22, "strategy": 16, "equity curve": curve}
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    columns = [name for name in _SESSION if width >= _FROM.get(name, 0)]
    for name in columns:
        numeric = name in ("equity", "return", "drawdown")
        table.add_column(
            name, justify="right" if numeric else "left", min_width=1, max_width=widths.get(name)
        )
    for each in sessions:
        cells: dict[str, RenderableType] = {
            "session": Text(("▶ " if each["session_id"] == selected else "  ") + str(each["name"])),
            "strategy": Text(", ".join(map(short_strategy, str(each["strategy"]).split(", ")))),
            "state": Text(str(each["state"]), style=_STATE.get(each["state"], "dim")),
            "bar": _time(each["bar"]),
            "equity": two_digits(each["equity"]),
            "return": Text(f"{each['return']:+.2%}", style="green" if each["return"] >= 0 else "red"),
            "drawdown": f"{each['drawdown']:.2%}".replace("-0.00%", "0.00%"),
            "equity curve": Text(sparkline(each["equity_points"], curve), style="cyan"),
        }
        table.add_row(*(cells[name] for name in columns))
    return table


def position_table(positions: Iterable[Row], names: Mapping[str, str]) -> RenderableType:
    """Return what is held, a row a leg."""
    rows = [{**each, "session": _called(each, names)} for each in positions]
    columns = {name: said for name, said in COLUMNS["positions"].items() if name != "leg"}
    return ledger_grid(rows, {"session": "session", **columns})


def fill_table(fills: Iterable[Row], names: Mapping[str, str]) -> RenderableType:
    """Return fills, a row each."""
    rows = [{**each, "bar": _time(each["time"]), "session": _called(each, names)} for each in fills]
    columns = ("bar", "session", "symbol", "purpose", "units", "price", "commission")
    return ledger_grid(rows, {name: name for name in columns})


def alert_table(alerts: Iterable[Row]) -> RenderableType:
    """Return open alerts, by color as bad as they are."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for each in alerts:
        style = _SEVERITY.get(str(each["severity"]), "")
        times = f" ({each['count']}×)" if each["count"] > 1 else ""
        message = str(each["message"]).partition("\n")[0] + times
        severity = Text(str(each["severity"]), style=style)
        table.add_row(
            str(each["id"]),
            severity,
            clock(each["last_at"]),
            Text(message, no_wrap=True, overflow="ellipsis"),
        )
    return table


def _named(event: Row, names: Mapping[str, str]) -> Row:
    """Return an event of the engine with the session's name for its id."""
    facts = {name: value for name, value in event.items() if name not in ("schema_version", "session_id")}
    if "session_id" in event:
        facts["session"] = _called(event, names)
    return facts


def _called(row: Row, names: Mapping[str, str]) -> str:
    """Return what a row's session is called; of one that is not listed, the beginning of its id."""
    return names.get(row["session_id"], short(row))


def _one_line_a_row(table: RenderableType) -> RenderableType:
    """Return a table whose cells are cut where they do not fit: rows are counted on to fill the screen."""
    from rich.table import Table

    if isinstance(table, Table):
        for column in table.columns:
            column.no_wrap, column.overflow = True, "ellipsis"
    return table


def _first(sessions: Sequence[Row], selected: str | None, room: int) -> int:
    """Return the place of the first session of a page that has the chosen one."""
    place = next((n for n, each in enumerate(sessions) if each["session_id"] == selected), 0)
    return min(max(0, place - 1) if room > 1 else place, max(0, len(sessions) - room))


def _time(value: object) -> str:
    day, _, time = str(value or "–").partition("T")
    time = time[:5]
    return day if time in ("", "00:00") else f"{day} {time}"
