"""Whether a run gave once more what an earlier run found, and what is different where it did not.

Of each run it takes what is kept of it. Causes come before effects: code, libraries, platform, data and request, then
what came out. A cause may differ while the result is equal: that is worth knowing, and no fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from gpt_trader.slices import Slice

_TAG: Final = "reproduces:"


class KeptRun(Protocol):
    """What is kept of a finished run; `summary` is its result as programs read it."""

    @property
    def run_id(self) -> UUID:
        """Its id."""

    @property
    def request(self) -> Mapping[str, Any]:
        """What was asked, with every default filled in."""

    @property
    def schema_version(self) -> int:
        """Of the request."""

    @property
    def snapshot_id(self) -> str | None:
        """The version of the lake that it read."""

    @property
    def result_hash(self) -> str | None:
        """Of everything that it found."""

    @property
    def summary(self) -> Mapping[str, Any] | None:
        """Its result: `metrics`, `benchmark`, `params`, `bars_hash`, `provenance`, …, as far as its slice has them."""

    @property
    def code_version(self) -> str | None:
        """Of this package."""

    @property
    def libraries(self) -> Mapping[str, str] | None:
        """Versions by name."""


@dataclass(frozen=True)
class Difference:
    """One thing that differs, with both values, JSON-ready; None: that run had no such thing."""

    what: str
    original: Any
    now: Any


@dataclass(frozen=True)
class Reproduction:
    """A run beside the one that it reproduces; `equal`: their result hashes are."""

    run_id: UUID
    original_run_id: UUID
    snapshot_id: str | None
    result_hash: str | None
    equal: bool
    differences: tuple[Difference, ...]


def compared(original: KeptRun, now: KeptRun) -> Reproduction:
    """Return what a finished run gave beside the earlier one that it reproduces."""
    equal = original.result_hash == now.result_hash
    causes, effects = [*_causes(original, now)], [*_effects(original, now)]
    if not equal and not effects:  # metrics are not all that is hashed
        effects = [Difference("trades and equity", original.result_hash, now.result_hash)]
    return Reproduction(
        now.run_id, original.run_id, now.snapshot_id, now.result_hash, equal, (*causes, *effects)
    )


def tag_of(run_id: UUID) -> str:
    """Return the tag of runs that reproduce this one."""
    return f"{_TAG}{run_id}"


def original_of(tags: Sequence[str]) -> UUID | None:
    """Return the run that a run with these tags reproduces; None where they name none."""
    for tag in tags:
        if tag.startswith(_TAG):
            try:
                return UUID(tag.removeprefix(_TAG))
            except ValueError:  # anybody may write tags in the Prefect UI
                continue
    return None


def reads_snapshot(row: Slice) -> bool:
    """Return whether runs of a slice read one snapshot; those that change the lake cannot be reproduced."""
    return "snapshot" in row.request_type().model_fields


def _causes(original: KeptRun, now: KeptRun) -> Iterator[Difference]:
    before, after = original.summary or {}, now.summary or {}
    yield from _one("code version", original.code_version, now.code_version)
    yield from _each("library", original.libraries, now.libraries)
    yield from _one("platform", _platform(before), _platform(after))
    yield from _one("data", before.get("bars_hash"), after.get("bars_hash"))
    yield from _one("request schema version", original.schema_version, now.schema_version)
    yield from _each("request", _asked(original), _asked(now))
    yield from _each("parameter", before.get("params"), after.get("params"))


def _effects(original: KeptRun, now: KeptRun) -> Iterator[Difference]:
    before, after = original.summary or {}, now.summary or {}
    yield from _one("result schema version", before.get("schema_version"), after.get("schema_version"))
    yield from _each("metric", before.get("metrics"), after.get("metrics"))
    yield from _each("benchmark", before.get("benchmark"), after.get("benchmark"))


def _platform(summary: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever was kept
    return (summary.get("provenance") or {}).get("platform")


def _asked(run: KeptRun) -> dict[str, Any]:
    """Return a request without what has an entry of its own: its version, and the data that it named."""
    return {
        name: value
        for name, value in run.request.items()
        if name not in ("schema_version", "snapshot", "params")
    }


def _each(
    kind: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> Iterator[Difference]:
    before, after = before or {}, after or {}
    for name in dict.fromkeys([*before, *after]):
        yield from _one(f"{kind} {name}", before.get(name), after.get(name))


def _one(what: str, before: Any, after: Any) -> Iterator[Difference]:  # noqa: ANN401 - whatever was kept
    if before != after:
        yield Difference(what, before, after)
