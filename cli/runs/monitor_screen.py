"""The screen of `monitor`: which session is chosen, what was asked, and what each key does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.runs.watching import Watching
from cli.terminal.trading_view import help_screen, screen
from gpt_trader.errors import GptTraderError

if TYPE_CHECKING:
    from rich.console import RenderableType

_NEXT, _BEFORE = frozenset({"j", "down"}), frozenset({"k", "up"})


@dataclass
class Question:
    """Something that is done only if `y` is pressed next."""

    text: str
    do: Callable[[], object]


@dataclass
class Screen:
    """What somebody at the terminal sees, and has asked for."""

    watching: Watching
    selected: str | None = None
    question: Question | None = None
    help: bool = False
    said: str = ""
    leaving: bool = False

    def press(self, key: str) -> None:
        """Do what a key says."""
        self.said = ""
        if self.question is not None:
            asked, self.question = self.question, None
            self._answered(asked, yes=key == "y")
        elif self.help:
            self.help = False
        elif key == "q":
            self.leaving = True
        elif key == "?":
            self.help = True
        elif key in _NEXT or key in _BEFORE:
            self._choose(1 if key in _NEXT else -1)
        elif key in ("0", "escape"):
            self.selected = None
        elif key == "p":
            self._ask_to_pause()
        elif key == "a":
            self._ask_to_acknowledge()

    def drawn(self, width: int, height: int) -> list[RenderableType]:
        """Return the screen's parts."""
        if self.help:
            return help_screen()
        stream = self.watching.stream
        status = self.watching.trouble if stream.connected else "not connected: coming back"
        prompt = self.question.text if self.question else self.said
        known = self.watching.as_dict()
        return screen(known, selected=self.selected, status=status, prompt=prompt, width=width, height=height)

    def _choose(self, step: int) -> None:
        ids: list[str | None] = [None, *self.watching.trading.sessions]
        at = ids.index(self.selected) if self.selected in ids else 0
        self.selected = ids[(at + step) % len(ids)]

    def _ask_to_pause(self) -> None:
        session = self.watching.trading.sessions.get(self.selected or "")
        if session is None or session.ended:
            self.said = "choose an open session first: j and k"
            return
        client = self.watching.client
        what, do = ("resume", client.resume) if session.state == "paused" else ("pause", client.pause)
        self.question = Question(f"{what} {session.name}? y/n", lambda: do(session.session_id))

    def _ask_to_acknowledge(self) -> None:
        alerts = self.watching.trading.alerts
        if not alerts:
            self.said = "no alert is open"
            return
        newest = alerts[0]
        text = f"acknowledge alert {newest['id']} ({newest['message'][:60]})? y/n"
        self.question = Question(text, lambda: self._acknowledge(newest["id"]))

    def _acknowledge(self, alert_id: int) -> None:
        self.watching.client.acknowledge(alert_id)
        self.watching.trading.alerts = [
            each for each in self.watching.trading.alerts if each["id"] != alert_id
        ]

    def _answered(self, asked: Question, *, yes: bool) -> None:
        if not yes:
            self.said = "left as it is"
            return
        try:
            asked.do()
            self.said = "done, or between two bars"
        except GptTraderError as refused:
            self.said = refused.detail
