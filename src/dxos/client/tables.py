"""Tables for notebooks: spaces, objects and results as HTML, in which nothing that a peer wrote is markup."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from dxos.echo.rows import reference_dxn
from dxos.limits import TABLE_CELL_CHARS_MAX, TABLE_COLUMNS_MAX, TABLE_ROWS_MAX

_ID: Final = "id"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, total: int | None = None) -> str:
    """Rows under their columns; `total`, if there are more rows than are shown, is said below."""
    head = "".join(f"<th>{_shown(one)}</th>" for one in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_shown(cell)}</td>' for cell in row)}</tr>" for row in rows)
    html = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return html if total is None else f"{html}<p>{total} in all</p>"


def properties_table(title: str, properties: Mapping[str, Any]) -> str:
    """One thing: a line for each of its properties."""
    shown = list(properties.items())[:TABLE_ROWS_MAX]
    return table((title, ""), shown, total=len(properties) if len(properties) > len(shown) else None)


def objects_table(shown: Sequence[tuple[str, Mapping[str, Any]]], total: int) -> str:
    """Objects as their ids and properties: a line for each, a column for each property that one of them has."""
    names = list(dict.fromkeys(name for _, properties in shown for name in properties))[:TABLE_COLUMNS_MAX]
    rows = [(one, *(properties.get(name, "") for name in names)) for one, properties in shown]
    return table((_ID, *names), rows, total=total if total > len(shown) else None)


def _shown(value: Any) -> str:
    dxn = reference_dxn(value)
    if dxn is not None:
        text = f"→ {dxn.rpartition(':')[2]}"
    elif isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > TABLE_CELL_CHARS_MAX:
        text = text[: TABLE_CELL_CHARS_MAX - 1] + "…"
    from html import escape  # Here, for it brings a large table that only notebooks ask for.

    # Isolated, so that text that runs from right to left does not turn its neighbours round.
    return f"<bdi>{escape(text)}</bdi>"
