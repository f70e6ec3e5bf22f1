"""Passing large values between tasks."""

from __future__ import annotations

from typing import TypeVar, cast

from prefect.utilities.annotations import quote

Value = TypeVar("Value")


def whole(value: Value) -> Value:
    """Pass a value to a task as it is: Prefect walks through every field of others, in search of futures.

    A result with 300 trades took 18 ms a walk, and every task that gets it walks twice; quoted there is none.
    """
    return cast("Value", quote(value))
