"""The objects of all spaces as rows of plain JSON: what is read and queried, so that no document need be loaded."""

# ruff: noqa: S608 - the statements are put together from constants of this module; values are parameters.

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, final

from msgspec import Struct

from dxos.errors import CorruptionError, StorageFullError
from dxos.limits import QUERY_SCAN_ROWS_MAX, QUERY_SCAN_ROWS_MIN, QUERY_SCANNED_PATHS_MAX, QUERY_SCANNED_ROWS_MAX
from dxos.store.checksum import check_sum, checked
from dxos.store.conditions import (
    HOLDS_FUNCTION,
    PROPERTY_FUNCTION,
    TYPES_NAMED,
    And,
    Condition,
    IdIn,
    LinkIs,
    Matches,
    Order,
    Path,
    Refers,
    TypeIs,
    about,
    canonical_json,
    holds,
    indexable,
    is_narrow,
    key_sql,
    order_to_sql,
    property_text,
    searches,
    sqlite_path,
    to_sql,
    type_of,
    words_sql,
)
from dxos.store.database import Database, Parameter, Row
from dxos.store.documents import Heads, unpack_heads
from dxos.store.indexes import FieldIndexes, WordIndex
from dxos.store.numbering import space_number

JsonObject = dict[str, Any]

_log = logging.getLogger(__name__)
_INDEX_USED: Final = re.compile(r"\bobjects USING (?:COVERING )?INDEX (\w+)")
_COLUMNS: Final = (
    "objects.id, documents.id, objects.kind, types.name, objects.deleted, objects.source, objects.target,"
    " objects.meta, objects.data, objects.version, documents.heads, objects.check_sum"
)
_DATA: Final = 8  # The place of `objects.data` in these.
_ROWS_AT_ONCE: Final = 100
_UNREAD: Final = object()
_TABLES: Final = (
    "objects JOIN documents ON documents.number = objects.document LEFT JOIN types ON types.number = objects.type"
)
_SORTED: Final = "USE TEMP B-TREE FOR ORDER BY"  # Not "FOR RIGHT PART OF ORDER BY", or as older versions say it.
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


class ObjectRecord(Struct, frozen=True):
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
class Plan(Struct, frozen=True):
    """How a query is answered."""

    steps: tuple[str, ...]  # In SQLite's words.
    index: str | None  # What leads to the rows: `done`, `type done`, `id`, `type`, `words`, …; None: all are read.
    rows: int  # How many objects are looked at; a limit ends it where no sorting is left to do.


@final
class ObjectStore:
    """The rows of one profile; an object's row is put in the transaction of the change that made it so."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.define_function(PROPERTY_FUNCTION, 2, property_text)
        database.define_function(HOLDS_FUNCTION, 2, holds)
        self.fields: Final = FieldIndexes(database)
        self.words: Final = WordIndex(database)
        self._scanned: dict[tuple[Path, bool], int] = {}  # Rows that queries looked at for want of an index.

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

        A query that would look at too many rows has an index made for it first.

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
        return list(self.scan(space_id, condition, order=order, limit=limit, offset=offset))

    def scan(
        self,
        space_id: str,
        condition: Condition | None = None,
        *,
        order: Sequence[Order] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> Iterator[ObjectRecord]:
        """The same, read from the disk now and taken apart one by one, which takes four fifths of the time."""
        statement, parameters = self._select(space_id, condition, order, limit, offset)
        return _records(self._database.rows(statement, parameters))

    def search(
        self,
        space_id: str,
        search: str,
        condition: Condition | None = None,
        *,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[tuple[ObjectRecord, float]]:
        """What a search of `dxos.words` finds, the best first, each with how good it is (BM25, more is better).

        Args:
            space_id: Where to look.
            search: What the texts of the objects have.
            condition: What the objects meet besides.
            limit: How many at most; None for all.
            offset: How many of the best are left out.

        Raises:
            InvalidValueError: There is no word in the search.
            CorruptionError: A row is damaged.
        """
        self._catch_up()
        where, parameters = self._where(space_id, condition, ())
        rows = self._database.rows(
            f"SELECT {_COLUMNS}, object_words.rank FROM object_words"
            " CROSS JOIN objects ON objects.number = object_words.rowid"
            " JOIN documents ON documents.number = objects.document LEFT JOIN types ON types.number = objects.type"
            f" WHERE object_words MATCH ? AND {_IN_SPACE} AND {where}"
            " ORDER BY object_words.rank, objects.id LIMIT ? OFFSET ?",
            [words_sql(search), space_id, *parameters, -1 if limit is None else limit, offset],
        )
        return [(record, -row[-1]) for record, row in zip(_records([row[:-1] for row in rows]), rows, strict=True)]

    def count(self, space_id: str, condition: Condition | None = None) -> int:
        """How many objects of a space meet a condition."""
        where, parameters = self._where(space_id, condition, ())
        found = self._database.row(
            f"SELECT count(*) FROM objects WHERE {_IN_SPACE} AND {where}", [space_id, *parameters]
        )
        assert found is not None
        return int(found[0])

    def explain(
        self,
        space_id: str,
        condition: Condition | None = None,
        *,
        order: Sequence[Order] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> Plan:
        """How `select` answers; it makes the same indexes."""
        statement, parameters = self._select(space_id, condition, order, limit, offset)
        steps = [str(row[3]) for row in self._database.rows(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        index, paths, by = self._used(steps[0] if steps else "")
        leads = about(condition, paths, by=by)
        where, found = to_sql(And(tuple(leads)), paths, self._type_numbers)
        (rows,) = self._database.row(
            f"SELECT count(*) FROM objects WHERE {_IN_SPACE} AND {where}", [space_id, *found]
        ) or (0,)
        if limit is not None and _SORTED not in steps:
            # What is found comes in the wanted order, so that the limit ends the looking; where it comes so but for
            # the last terms of the order, all that is equal before these is looked at.
            matching, given = self._where(space_id, condition, order)
            order_by, keys = order_to_sql(order)
            place = sqlite_path(order[0].path) if order and any("TEMP B-TREE" in step for step in steps) else None
            group = "objects.id" if place is None else key_sql(place)
            looked_at = self._database.rows(
                f"SELECT {matching}, {group} FROM objects WHERE {_IN_SPACE} AND {where} ORDER BY {order_by}",
                [*given, space_id, *found, *keys],
            )
            rows = _rows_until(looked_at, offset + limit)
        return Plan(tuple(steps), index, rows)

    def _used(self, step: str) -> tuple[str | None, list[Path], tuple[type[Condition], ...]]:
        """The index of a plan's first step, for people; the paths and the kinds of conditions that it looks up."""
        found = _INDEX_USED.search(step)
        name = found.group(1) if found else ""
        for field in self.fields.all():
            if field.name == name:
                path = ".".join(map(str, field.path))
                return (f"type {path}", [field.path], (TypeIs,)) if field.by_type else (path, [field.path], ())
        if name == "objects_by_type" and "type=?" in step:
            return "type", [], (TypeIs,)
        if name in ("objects_by_source", "objects_by_target"):
            return name.rpartition("_")[2], [], (LinkIs,)
        if "INTEGER PRIMARY KEY" in step:
            return "references or words", [], (Refers, Matches)
        return ("id", [], (IdIn,)) if "id=?" in step else (None, [], ())

    def _select(
        self, space_id: str, condition: Condition | None, order: Sequence[Order], limit: int | None, offset: int
    ) -> tuple[str, list[Parameter]]:
        assert offset >= 0, "a count is not negative"
        assert limit is None or limit >= 0, "a count is not negative"
        where, parameters = self._where(space_id, condition, order)
        order_by, order_parameters = order_to_sql(order)
        return (
            f"SELECT {_COLUMNS} FROM {_TABLES} WHERE {_IN_SPACE} AND {where} ORDER BY {order_by} LIMIT ? OFFSET ?",
            [space_id, *parameters, *order_parameters, -1 if limit is None else limit, offset],
        )

    def _where(self, space_id: str, condition: Condition | None, order: Sequence[Order]) -> tuple[str, list[Parameter]]:
        if searches(condition):
            self._catch_up()
        self._index_for(space_id, condition, order)
        if condition is None:
            return "1", []
        type_ = type_of(condition)
        indexed = {one.path for one in self.fields.all() if type_ is not None or not one.by_type}
        return to_sql(condition, indexed, self._type_numbers)

    def _catch_up(self) -> None:
        while self.words.catch_up():
            pass

    def _type_numbers(self, name: str) -> list[int]:
        return [number for (number,) in self._database.rows(TYPES_NAMED, (name, name + ":"))]

    def _index_for(self, space_id: str, condition: Condition | None, order: Sequence[Order]) -> None:
        """Make the index that the query would be much slower without."""
        wanted = indexable(condition, order)
        if not wanted or is_narrow(condition):
            return
        type_ = type_of(condition)
        if any(self.fields.find(wanted[0], by_type=by_type) for by_type in {False, type_ is not None}):
            return
        where, parameters = "1", list[Parameter]()
        if type_ is not None:
            where, parameters = to_sql(TypeIs(type_), (), self._type_numbers)
        (rows,) = self._database.row(
            f"SELECT count(*) FROM (SELECT 1 FROM objects WHERE {_IN_SPACE} AND {where} LIMIT ?)",
            [space_id, *parameters, QUERY_SCAN_ROWS_MAX + 1],
        ) or (0,)
        if not self._is_too_much(wanted[0], type_ is not None, rows):
            return
        try:
            self.fields.make(wanted[0], by_type=type_ is not None, declared=False)
        except StorageFullError:
            _log.warning("no room for an index on %s; the query reads all objects", wanted[0])

    def _is_too_much(self, path: Path, by_type: bool, rows: int) -> bool:
        """Whether so many rows, or those of all such queries together, take longer than an index would."""
        if rows <= QUERY_SCAN_ROWS_MIN:
            return False
        place = path, by_type
        if place not in self._scanned and len(self._scanned) >= QUERY_SCANNED_PATHS_MAX:
            self._scanned.clear()
        scanned = self._scanned[place] = self._scanned.get(place, 0) + rows
        if rows <= QUERY_SCAN_ROWS_MAX and scanned <= QUERY_SCANNED_ROWS_MAX:
            return False
        del self._scanned[place]
        return True

    def remove(self, space_id: str, object_ids: Iterable[str]) -> int:
        """Drop rows, without a trace; how many there were."""
        return self._database.run_many(
            f"DELETE FROM objects WHERE {_IN_SPACE} AND id = ?", [(space_id, object_id) for object_id in object_ids]
        )


def _rows_until(looked_at: Sequence[Row], wanted: int) -> int:
    """How many rows are looked at before so many of them match; each is whether it does, and what is sorted at once."""
    last: Parameter = None
    for count, (is_match, group) in enumerate(looked_at):
        if wanted <= 0 and (count == 0 or group != last):
            return count
        wanted -= bool(is_match)
        last = group
    return len(looked_at)


def _records(rows: Sequence[Row]) -> Iterator[ObjectRecord]:
    """The objects of many rows, taken apart as they are asked for.

    The data of some rows are read as one text, in which the reader makes one string of a name wherever it occurs: that
    is faster, and saves 50 bytes for each property.
    """
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        try:
            data = json.loads(f"[{','.join([row[_DATA] for row in part])}]")
        except ValueError:
            data = []
        if len(data) != len(part):
            data = [_UNREAD] * len(part)  # One of them is damaged, and the check sum says which.
        yield from map(_record, part, data)


def _record(row: Row, read: Any = _UNREAD) -> ObjectRecord:
    """The object of a row, whose data may have been read already."""
    object_id, document_id, kind, type_name, deleted, source, target, meta, data, version, heads, expected = row
    try:
        checked((meta + data).encode(), expected, what="an object's row")
        return ObjectRecord(
            object_id,
            document_id,
            kind,
            type_name if type_name is None else sys.intern(type_name),
            bool(deleted),
            source,
            target,
            json.loads(meta) if meta != "{}" else {},
            json.loads(data) if read is _UNREAD else read,
            version,
            unpack_heads(heads),
        )
    except (ValueError, CorruptionError) as error:
        # The host makes the row anew from its document, which the row is only a picture of.
        raise CorruptionError(
            "An object's row is damaged on disk.", object_id=object_id, document_id=document_id
        ) from error
