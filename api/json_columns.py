"""An Arrow table as JSON: a list a column, and nothing that JSON cannot hold.

| in Arrow | in JSON |
|---|---|
| null | null |
| float: NaN, ±Infinity | "NaN", "Infinity", "-Infinity" (as Protobuf's JSON has it; `float()` reads all three) |
| integer | number, whole to its last digit |
| decimal (also a 128-bit integer) | string |
| timestamp, date | ISO 8601, with `Z` where it has a zone; "infinity" and "-infinity" |
| time | "10:00:00.000000" |
| interval | ISO 8601 duration, e.g. "P1M2DT3.5S" |
| binary | Base64 |
| list | list; map: list of [key, value] |
| struct | object |
"""

from __future__ import annotations

import base64
import math
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyarrow import types

_INFINITE: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}


def json_columns(table: pa.Table) -> dict[str, list[Any]]:
    """Return the columns by name, each value as JSON can hold it; names must be unique."""
    return {name: json_values(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def json_values(column: pa.ChunkedArray) -> list[Any]:
    """Return one column's values as JSON can hold them."""
    return [value for chunk in column.chunks for value in _values(chunk)]


def is_plain(kind: pa.DataType) -> bool:
    """Return whether a text file holds values of this type as they are: numbers, words, true and false."""
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
    )


def _values(array: pa.Array) -> list[Any]:  # noqa: PLR0911 a case a type
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _values(array.storage)
    if types.is_dictionary(kind):
        return _values(array.dictionary_decode())
    if types.is_floating(kind):
        return _floats(array)
    if types.is_timestamp(kind) or types.is_date32(kind):
        return _times(array)
    if types.is_nested(kind):
        return _nested(array)
    if is_plain(kind) or types.is_null(kind):
        found: list[Any] = array.to_pylist()
        return found
    if types.is_time(kind):
        as_text: list[Any] = array.cast(pa.string()).to_pylist()
        return as_text
    return [None if value is None else _scalar(value) for value in array.to_pylist()]


def _floats(array: pa.Array) -> list[Any]:
    values = array.to_pylist()
    if not array.null_count and np.isfinite(array.to_numpy(zero_copy_only=False)).all():
        return values  # type: ignore[no-any-return]
    return [_float(value) for value in values]


def _float(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return _INFINITE.get(value, "NaN")


def _times(array: pa.Array) -> list[Any]:
    """Return ISO 8601 by numpy: Python's own dates end with the year 9999."""
    days = types.is_date32(array.type)
    unit, zone = ("D", "") if days else (array.type.unit, "Z" if array.type.tz else "")
    plain = array.cast(pa.int32() if days else pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    numbers = plain.astype(np.int64)
    moments = numbers.view(f"datetime64[{unit}]")
    if not days and (moments == moments.astype("datetime64[s]")).all():
        moments = moments.astype("datetime64[s]")
    words = np.datetime_as_string(moments)
    known = ~np.asarray(array.is_null())
    largest = int(np.iinfo(plain.dtype).max)
    limits = {largest: "infinity", -largest: "-infinity"}
    return [
        limits.get(number, f"{word}{zone}") if there else None
        for number, word, there in zip(numbers.tolist(), words.tolist(), known.tolist(), strict=True)
    ]


def _nested(array: pa.Array) -> list[Any]:
    kind = array.type
    known = (~np.asarray(array.is_null())).tolist()
    if types.is_struct(kind):
        fields = {kind.field(n).name: _values(array.field(n)) for n in range(kind.num_fields)}
        return [
            {name: fields[name][row] for name in fields} if known[row] else None for row in range(len(array))
        ]
    if types.is_union(kind):
        return [str(value) if value is not None else None for value in array.to_pylist()]
    return [_members(array[row].values, kind) if known[row] else None for row in range(len(array))]


def _members(values: pa.Array, kind: pa.DataType) -> list[Any]:
    found = _values(values)
    return [list(entry.values()) for entry in found] if types.is_map(kind) else found


def _scalar(value: Any) -> str:  # noqa: ANN401 what Arrow makes of a value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{value.nanoseconds / 1e9:.9f}".rstrip("0").rstrip(".") + "S"
    return str(value)
