"""Which representation a client wants (RFC 9110, section 12.5.1), and whether it has it already."""

from __future__ import annotations

from collections.abc import Sequence

from api.errors import NotAcceptable
from gpt_trader.errors import Problem


def chosen_media_type(accept: str | None, offers: Sequence[str]) -> str:
    """Return the offer that the `Accept` header prefers; the first offer where it has no preference.

    Raises:
        NotAcceptable: It accepts none of them.
    """
    if not accept:
        return offers[0]
    ranges = [_range(part) for part in accept.split(",")[:32]]
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    if _quality(best, ranges) <= 0:
        allowed = ", ".join(offers)
        problem = Problem("Accept", accept[:200], "names nothing that this route can give", allowed=allowed)
        raise NotAcceptable(str(problem), problems=[problem])
    return best


def has_current(if_none_match: str | None, etag: str) -> bool:
    """Return whether an `If-None-Match` header names this entity tag (weak comparison)."""
    if not if_none_match:
        return False
    given = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in given or etag.removeprefix("W/") in given


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip() for piece in part.lower().split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, min(max(float(parameter[2:]), 0.0), 1.0)
            except ValueError:
                return name, 0.0
    return name, 1.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality of the most specific range that covers the offer; 0 if none does."""
    family = offer.partition("/")[0] + "/*"
    for pattern in (offer, family, "*/*"):
        for name, quality in ranges:
            if name == pattern:
                return quality
    return 0.0
