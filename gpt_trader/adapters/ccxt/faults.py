"""What an error of ccxt means for whoever asked."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gpt_trader.adapters.patience import Passing
from gpt_trader.credentials import PREFIX
from gpt_trader.errors import Denied, Problem, SourceUnavailable, UnknownName

#: An address may hold keys in its query, and the name and password of a proxy.
_ADDRESS: Final = re.compile(r"\b(?:https?|wss?)://\S+")
#: What ccxt's code raises on an answer of another form than it expects.
UNREADABLE: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class Rejected(SourceUnavailable):
    """The venue understood the question and refuses it: whoever knows why may catch it."""


def meaning(
    error: Exception,
    source: str,
    what: str,
    symbol: str | None,
    *,
    clean: Callable[[str], str],
    wait: float | None,
) -> Exception:
    """Return what to raise instead of an error of ccxt: Passing, Denied, UnknownName or Rejected.

    `what` was asked, of `symbol` if of one; `wait` is what the venue asked for, in seconds.
    """
    import ccxt

    if not isinstance(error, ccxt.BaseError):
        return Passing(f"an answer that cannot be read ({type(error).__name__})", wait)
    said = f"{type(error).__name__}: {clean(str(error))}"
    if isinstance(error, ccxt.AuthenticationError):
        variables = f"{PREFIX}{re.sub(r'[^A-Z0-9]', '_', source.upper())}_KEY, …_SECRET"
        return Denied(
            f"{what}: {said}; give or check its key and secret: `gpt-trader data credentials set {source}`, "
            f"or {variables} in the engine's environment"
        )
    if isinstance(error, ccxt.BadSymbol):
        problem = Problem("symbol", symbol, f"{source} lists it and gives nothing of it ({said})")
        return UnknownName(str(problem), problems=[problem])
    if isinstance(error, ccxt.OperationFailed):
        return Passing(said, wait)
    return Rejected(f"{what}: {source} refuses the question ({said})")


def cleaned(text: str, secrets: Iterable[str]) -> str:
    """Return what a venue says, short, without addresses and `secrets`."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return " ".join(_ADDRESS.sub("", text).split())[:200]


def wait_asked(headers: Mapping[str, str] | None) -> float | None:
    """Return the seconds of Retry-After."""
    try:
        seconds = float((headers or {}).get("Retry-After") or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
