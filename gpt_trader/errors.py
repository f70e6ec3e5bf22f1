"""Every error a user can meet, drawn as a tree.

    GptTraderError                 exit  HTTP   what happened
    ├── Refused                      2    422   the input is wrong; `problems` names each field
    │   ├── UnknownName              2    422   a strategy, symbol, parameter or setting nobody knows
    │   └── NotEnoughBars            2    422   the range is empty or shorter than the warm-up
    ├── NotFound                     2    404   no such run, snapshot or file
    ├── Conflict                     2    409   same key with another body, or a run in the wrong state
    ├── BadBars                      2    422   rows that break the bars contract
    ├── CorruptLake                  1    500   a stored file is not what the manifest says it is
    ├── SourceUnavailable            1    502   a vendor of data does not answer, in spite of patience
    ├── RunFailed                    1    500   the run ended Failed, Crashed or Cancelled
    ├── EngineUnreachable            3    503   a part of the engine does not answer
    └── Denied                       4    403   no valid credential, or it may not do this
        └── OtpRequired              4    401   the password is right, and a one-time code is missing

One handler in the API and one in the CLI turn any of them into a message: code raises, the edges render.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from reprlib import Repr
from typing import Any, ClassVar, Final, Self


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field: its name, the value given, what is allowed, and the nearest valid choice."""

    field: str
    value: object
    message: str
    allowed: str | None = None
    nearest: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the problem as JSON-ready values (shape: field, value, message, allowed, nearest)."""
        shown = (
            self.value if isinstance(self.value, str | int | float | bool | None) else _in_words(self.value)
        )
        if isinstance(shown, str) and len(shown) > 200:
            shown = shown[:200] + "…"
        return {
            "field": self.field,
            "value": shown,
            "message": self.message,
            "allowed": self.allowed,
            "nearest": self.nearest,
        }

    def __str__(self) -> str:
        """Say it in one line."""
        parts = [f"{self.field}: {self.message}"]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.nearest:
            parts.append(f"did you mean {self.nearest!r}?")
        return "; ".join(parts)


def _in_words(value: object) -> str:
    """Return any value as text, a container only so deep and long: it may be anybody's."""
    return _CONTAINERS.repr(value) if isinstance(value, dict | list | tuple | set | frozenset) else str(value)


_CONTAINERS: Final = Repr()
_CONTAINERS.maxlevel = 5
_CONTAINERS.maxdict = _CONTAINERS.maxlist = _CONTAINERS.maxtuple = _CONTAINERS.maxset = 20
_CONTAINERS.maxfrozenset = 20
_CONTAINERS.maxstring = _CONTAINERS.maxother = _CONTAINERS.maxlong = 200


class GptTraderError(Exception):
    """Base of every error we raise on purpose. `type` is stable: programs may match on it."""

    type: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, detail: str, *, problems: Iterable[Problem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problems: tuple[Problem, ...] = tuple(problems)


class Refused(GptTraderError):
    """The input is wrong; nothing was done."""

    type = "refused-input"
    title = "The request was refused"
    exit_code = 2
    http_status = 422

    @classmethod
    def of(cls, *problems: Problem) -> Self:
        """Build the error from its field problems alone."""
        return cls("; ".join(str(p) for p in problems), problems=problems)


class UnknownName(Refused):
    """A name nobody knows; carries the nearest valid one."""

    type = "unknown-name"
    title = "Unknown name"

    @classmethod
    def among(
        cls,
        field: str,
        value: str,
        known: Sequence[str],
        *,
        hint: str = "",
        shown: int = 20,
        message: str | None = None,
    ) -> UnknownName:
        """Say which names there are (at most `shown`) and which is nearest to `value`."""
        from difflib import get_close_matches

        lowered = {name.lower(): name for name in known}
        close = get_close_matches(value.lower(), list(lowered), n=1, cutoff=0.5)
        allowed = ", ".join(list(known)[:shown]) + (", …" if len(known) > shown else "")
        problem = Problem(
            field=field,
            value=value,
            message=message or f"{value[:80]!r} is not known" + (f"; {hint}" if hint else ""),
            allowed=allowed or "nothing yet",
            nearest=lowered[close[0]] if close else None,
        )
        return cls(str(problem), problems=[problem])


class NotEnoughBars(Refused):
    """The range holds no bars, or fewer than the strategy's warm-up needs."""

    type = "not-enough-bars"
    title = "Not enough bars"


class NotFound(GptTraderError):
    """No such run, snapshot or file (or it belongs to somebody else)."""

    type = "not-found"
    title = "Not found"
    exit_code = 2
    http_status = 404


class Conflict(GptTraderError):
    """The request contradicts something that stands already."""

    type = "conflict"
    title = "Conflict"
    exit_code = 2
    http_status = 409


class BadBars(GptTraderError):
    """Rows that break the bars contract (order, duplicates, finite values, OHLC consistency)."""

    type = "bad-bars"
    title = "The bars break the contract"
    exit_code = 2
    http_status = 422


class CorruptLake(GptTraderError):
    """A stored file is not what the manifest says it is; the message names the file and how to refetch it."""

    type = "corrupt-lake"
    title = "A stored file is damaged"


class SourceUnavailable(GptTraderError):
    """A vendor of data does not answer, or not now, in spite of patience; what had come in before is kept."""

    type = "source-unavailable"
    title = "The data source does not answer"
    http_status = 502


class RunFailed(GptTraderError):
    """The run ended without a result."""

    type = "run-failed"
    title = "The run failed"


class EngineUnreachable(GptTraderError):
    """A part of the engine (database, Prefect, worker, API) does not answer."""

    type = "engine-unreachable"
    title = "The engine does not answer"
    exit_code = 3
    http_status = 503


class Denied(GptTraderError):
    """No valid credential, or the credential may not do this."""

    type = "denied"
    title = "Not allowed"
    exit_code = 4
    http_status = 403


class OtpRequired(Denied):
    """The password is right, and the account wants a one-time code as well."""

    type = "otp-required"
    title = "A one-time code is needed"
    http_status = 401
