"""Runs that do once more what an earlier run did: may they, and did it come out the same?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.principals import Principal
from gpt_trader.errors import CorruptLake, NotFound
from gpt_trader.reproduction import compared, original_of
from storage.lake import Lake
from storage.runs import Run, RunStore


class DifferenceView(BaseModel):
    """One thing that differs: `code version`, `library numpy`, `data` (the bars' hash) or `metric sharpe`."""

    model_config = ConfigDict(from_attributes=True)

    what: str
    original: Any = Field(description="Null: the original had no such thing.")
    now: Any


class ReproductionView(BaseModel):
    """A run beside the one that it reproduces. Code and libraries may differ while the results are equal."""

    model_config = ConfigDict(from_attributes=True)

    run_id: UUID
    original_run_id: UUID
    snapshot_id: str | None
    result_hash: str
    equal: bool = Field(description="Are the result hashes?")
    differences: list[DifferenceView] = Field(description="Causes first, then what came out; empty: none.")


def comparison(store: RunStore, kept: Run, tags: Sequence[str], caller: Principal) -> ReproductionView | None:
    """Return how a finished run compares with the one that its tags name.

    None where they name none, or one that is not there (any more) for the caller.
    """
    named = original_of(tags)
    if named is None:
        return None
    try:
        original = store.get(named)
    except NotFound:
        return None
    if not caller.may_see(original.owner) or original.result_hash is None:
        return None
    return ReproductionView.model_validate(compared(original, kept))


def require_data(lake: Lake, kept: Run) -> None:
    """Read the data that a run saw, so that what is missing is said before another run is started.

    Raises NotFound or CorruptLake, which say what is gone and how to bring it back.
    """
    if all(known.id != kept.snapshot_id for known in lake.snapshots()):
        raise NotFound(
            f"run {kept.run_id} read snapshot {kept.snapshot_id}, and the lake does not hold it any more: restore "
            f"{lake.root} from a backup, or ingest the same bars into an empty lake (an id names what is stored, so "
            "the same bars make the same snapshot)"
        )
    symbol = kept.request.get("symbol")
    try:
        for each in kept.request.get("symbols") or ([] if symbol is None else [symbol]):
            lake.bars(each, kept.request["timeframe"], snapshot=kept.snapshot_id)
    except CorruptLake as damage:
        raise CorruptLake(
            f"run {kept.run_id} cannot be reproduced now: {damage.detail}. That brings snapshot {kept.snapshot_id} "
            "back only while the source gives the same bars as then; otherwise restore the file from a backup"
        ) from None
