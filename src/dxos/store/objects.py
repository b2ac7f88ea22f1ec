"""The objects of all spaces as rows of plain JSON: what is read and queried, so that no document need be loaded."""

# ruff: noqa: S608 - the statements are put together from constants of this module; values are parameters.

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from dxos.errors import CorruptionError
from dxos.store.checksum import check_sum, checked
from dxos.store.conditions import (
    PROPERTY_FUNCTION,
    Condition,
    Order,
    canonical_json,
    order_to_sql,
    property_text,
    to_sql,
)
from dxos.store.database import Database, Parameter, Row
from dxos.store.documents import Heads, unpack_heads
from dxos.store.numbering import space_number

JsonObject = dict[str, Any]

_COLUMNS: Final = (
    "objects.id, documents.id, objects.kind, types.name, objects.deleted, objects.source, objects.target,"
    " objects.meta, objects.data, objects.version, documents.heads, objects.check_sum"
)
_TABLES: Final = (
    "objects JOIN documents ON documents.number = objects.document LEFT JOIN types ON types.number = objects.type"
)
_IN_SPACE: Final = "objects.space = (SELECT number FROM spaces WHERE id = ?)"
_PUT: Final = """
    INSERT INTO objects (space, id, document, kind, type, deleted, source, target, version, check_sum, meta, data)
    VALUES (?, ?, (SELECT number FROM documents WHERE id = ?), ?, (SELECT number FROM types WHERE name = ?),
            ?, ?, ?, 1, ?, ?, ?)
    ON CONFLICT (space, id) DO UPDATE SET
        document = excluded.document, kind = excluded.kind, type = excluded.type, deleted = excluded.deleted,
        source = excluded.source, target = excluded.target, version = objects.version + 1,
        check_sum = excluded.check_sum, meta = excluded.meta, data = excluded.data
    WHERE (objects.document, objects.kind, objects.type, objects.deleted,
           objects.source, objects.target, objects.check_sum, objects.meta, objects.data)
        IS NOT (excluded.document, excluded.kind, excluded.type, excluded.deleted,
                excluded.source, excluded.target, excluded.check_sum, excluded.meta, excluded.data)
"""


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """One object as it is read."""

    object_id: str  # A ULID, 26 characters.
    document_id: str  # The document that holds it; stored already when the record is put.
    kind: str
    type: str | None  # A DXN.
    deleted: bool
    source: str | None  # Of a relation: a DXN.
    target: str | None
    meta: JsonObject
    data: JsonObject
    version: int = 0  # 1 after the first put, one more after each that changed something; ignored by `put`.
    heads: Heads = ()  # Of that document as stored; ignored by `put`.


@final
class ObjectStore:
    """The rows of one profile; an object's row is put in the transaction of the change that made it so."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.define_function(PROPERTY_FUNCTION, 2, property_text)

    def __repr__(self) -> str:
        return f"<ObjectStore in {self._database!r}>"

    def put(self, space_id: str, records: Iterable[ObjectRecord]) -> int:
        """Write rows, replacing older ones of the same object; how many are new or differ from what was there.

        Raises:
            InvalidValueError: Data that JSON cannot hold.  Nothing was written.
        """
        database = self._database
        with database.transaction():
            space = space_number(database, space_id)
            rows = list(records)
            names = {(record.type,) for record in rows if record.type is not None}
            database.run_many("INSERT INTO types (name) VALUES (?) ON CONFLICT DO NOTHING", names)
            return database.run_many(
                _PUT,
                [
                    (
                        space,
                        record.object_id,
                        record.document_id,
                        record.kind,
                        record.type,
                        int(record.deleted),
                        record.source,
                        record.target,
                        check_sum((meta + data).encode()),
                        meta,
                        data,
                    )
                    for record in rows
                    for meta, data in ((canonical_json(record.meta), canonical_json(record.data)),)
                ],
            )

    def get(self, space_id: str, object_id: str) -> ObjectRecord | None:
        """One object, deleted or not.

        Raises:
            CorruptionError: Its row is damaged; `detail["document_id"]` says what it can be made anew from.
        """
        found = self._database.row(
            f"SELECT {_COLUMNS} FROM {_TABLES} WHERE {_IN_SPACE} AND objects.id = ?", (space_id, object_id)
        )
        return None if found is None else _record(found)

    def places(self, space_id: str, object_ids: Sequence[str]) -> dict[str, str]:
        """The ids of the documents that hold those of the objects that exist; reads no content."""
        rows = self._database.rows(
            f"SELECT objects.id, documents.id FROM objects JOIN documents ON documents.number = objects.document"
            f" WHERE {_IN_SPACE} AND objects.id IN (SELECT value FROM json_each(?))",
            (space_id, canonical_json(list(object_ids))),
        )
        return dict(rows)

    def all_places(self, space_id: str) -> dict[str, str]:
        """The ids of all objects, and of the documents that hold them; works with damaged rows."""
        rows = self._database.rows(
            "SELECT objects.id, documents.id FROM objects JOIN documents ON documents.number = objects.document"
            f" WHERE {_IN_SPACE}",
            (space_id,),
        )
        return dict(rows)

    def select(
        self,
        space_id: str,
        condition: Condition | None = None,
        *,
        order: Sequence[Order] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> list[ObjectRecord]:
        """The objects of a space that meet a condition, by default all, in the order of their ids.

        Args:
            space_id: Where to look; an unknown space is empty.
            condition: What they meet; deleted objects are among them unless it says otherwise.
            order: What they are sorted by before their ids.
            limit: How many at most; None for all.
            offset: How many of the first are left out.

        Raises:
            InvalidValueError: The condition is larger than the limits allow.
            CorruptionError: A row is damaged; `detail["document_id"]`, if present, says what it can be made anew from.
        """
        assert offset >= 0, "a count is not negative"
        assert limit is None or limit >= 0, "a count is not negative"
        where, parameters = ("1", []) if condition is None else to_sql(condition)
        order_by, order_parameters = order_to_sql(order)
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM {_TABLES} WHERE {_IN_SPACE} AND {where} ORDER BY {order_by} LIMIT ? OFFSET ?",
            [space_id, *parameters, *order_parameters, -1 if limit is None else limit, offset],
        )
        return [_record(row) for row in rows]

    def count(self, space_id: str, condition: Condition | None = None) -> int:
        """How many objects of a space meet a condition."""
        where, parameters = ("1", list[Parameter]()) if condition is None else to_sql(condition)
        found = self._database.row(
            f"SELECT count(*) FROM objects WHERE {_IN_SPACE} AND {where}", [space_id, *parameters]
        )
        assert found is not None
        return int(found[0])

    def remove(self, space_id: str, object_ids: Iterable[str]) -> int:
        """Drop rows, without a trace; how many there were."""
        return self._database.run_many(
            f"DELETE FROM objects WHERE {_IN_SPACE} AND id = ?", [(space_id, object_id) for object_id in object_ids]
        )


def _record(row: Row) -> ObjectRecord:
    object_id, document_id, kind, type_name, deleted, source, target, meta, data, version, heads, expected = row
    try:
        checked((meta + data).encode(), expected, what="an object's row")
        return ObjectRecord(
            object_id,
            document_id,
            kind,
            type_name,
            bool(deleted),
            source,
            target,
            json.loads(meta) if meta != "{}" else {},
            json.loads(data),
            version,
            unpack_heads(heads),
        )
    except (ValueError, CorruptionError) as error:
        # The host makes the row anew from its document, which the row is only a picture of.
        raise CorruptionError(
            "an object's row is damaged on disk", object_id=object_id, document_id=document_id
        ) from error
