"""What a query gives: a list of objects that notebooks show as a table."""

from __future__ import annotations

from typing import Any, TypeVar, final

from dxos.client.object import EchoObject
from dxos.client.tables import objects_table
from dxos.limits import TABLE_ROWS_MAX

T = TypeVar("T", bound=EchoObject)


@final
class Results(list[T]):
    """The objects that a query has found, in its order."""

    __slots__ = ()

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain data for data-frame libraries: `id` and the properties of each; references are `{"/": DXN}`."""
        return [{"id": one.id, **_properties(one)} for one in self]

    def _repr_html_(self) -> str:
        shown = [(one.id, _properties(one)) for one in self[:TABLE_ROWS_MAX]]
        return objects_table(shown, len(self))


def _properties(target: EchoObject) -> dict[str, Any]:
    return target.to_dict() if target.loaded else {}
