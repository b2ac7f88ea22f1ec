"""Objects as a table in CSV: one line for each object, one column for each property, `id` first.

A cell holds a text as it is, any other value as JSON, and nothing where the property is missing. A text that would be
read as something else, or that a spreadsheet would take for a formula, is written as JSON too, in quotes. So every
value comes back as it was, and tables of other programs are read as one expects: `12` is a number, `true` is true.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

from dxos.client.state import object_ids
from dxos.echo.mutation import check_value
from dxos.echo.rows import ObjectRow
from dxos.errors import InvalidValueError
from dxos.keys.ids import is_object_id
from dxos.limits import DOCUMENT_BYTES_MAX

ID: Final = "id"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_MISSING: Final = object()
_NUMBER_CHARS_MAX: Final = 15  # What is longer, such as an account's number, is text: a number might not hold it.


def write_table(rows: Iterable[ObjectRow]) -> Iterator[str]:
    """The table of some objects, line by line; columns stand in the order in which they are first met."""
    kept = list(rows)
    # No property is called `id` here; what a peer called so would be taken for the object's own.
    names = list(dict.fromkeys(name for row in kept for name in row.data if name != ID))
    yield _line([ID, *map(_text, names)])
    for row in kept:
        yield _line([row.object_id, *(_cell(row.data[name]) if name in row.data else "" for name in names)])


def _line(cells: list[str]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()


def read_table(data: bytes, type: str | None) -> Iterator[ObjectRow]:
    """The objects of a table, one by one; those without an id get one.

    Args:
        data: The CSV, in UTF-8; its first line names the columns.
        type: What the objects get as their type.

    Raises:
        InvalidValueError: It is no such table; the message names the line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidValueError("This table is not in UTF-8.") from None
    limit = csv.field_size_limit(DOCUMENT_BYTES_MAX)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise InvalidValueError(f"This is no CSV: {error}.") from None
    finally:
        csv.field_size_limit(limit)
    if not lines or not any(lines[0]):
        raise InvalidValueError("This table has no line that names its columns.")
    names = [_name(cell) for cell in lines[0]]
    if len(set(names)) != len(names) or "" in lines[0]:
        raise InvalidValueError("Two columns of this table have the same name, or one has none.")
    met: set[str] = set()
    for number, line in enumerate(lines[1:], start=2):
        if line:
            row = _row(number, names, line, type)
            if row.object_id in met:
                raise InvalidValueError("Two lines of this table have the same id.")
            met.add(row.object_id)
            yield row


def _row(number: int, names: list[str], cells: list[str], type_: str | None) -> ObjectRow:
    if len(cells) > len(names):
        raise InvalidValueError(f"Line {number} of this table has more cells than there are columns.")
    values = dict(zip(names, map(_value, cells), strict=False))
    values = {name: value for name, value in values.items() if value is not _MISSING}
    given = values.pop(ID, None)
    if given is not None and not (isinstance(given, str) and is_object_id(given)):
        raise InvalidValueError(f"Line {number} of this table: {given!r:.40} is no object id; rename the column.")
    try:
        check_value(values)
    except InvalidValueError as error:
        raise InvalidValueError(f"Line {number} of this table: {error}") from error
    return ObjectRow(given or object_ids.next(), type=type_, data=values)


def _cell(value: Any) -> str:
    return _text(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(text: str) -> str:
    is_safe = text and not text.startswith(_FORMULA) and _value(text) == text
    return text if is_safe else json.dumps(text, ensure_ascii=False)


def _name(cell: str) -> str:
    found = _value(cell)
    return found if isinstance(found, str) else cell


def _value(cell: str) -> Any:
    if not cell:
        return _MISSING
    try:
        value = json.loads(cell, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return cell
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_short = len(cell.strip("-")) <= _NUMBER_CHARS_MAX
        return value if (is_short and math.isfinite(value)) or _is_own_number(cell, value) else cell
    return value


def _is_own_number(cell: str, value: int | float) -> bool:
    """Whether a long number is one that was written here."""
    try:
        check_value(value)
    except InvalidValueError:
        return False
    return json.dumps(value) == cell


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
