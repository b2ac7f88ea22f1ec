"""`DbRouter`: which class the objects of a type have, and where objects are; and the schemas that a space keeps.

An object says its type as `dxn:type:<typename>:<version>`, or, made by a JavaScript peer from a schema that it found in
the space, as `dxn:echo:@:<id of the object that keeps the schema>`. Both are the same type here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, final

from msgspec.structs import replace

from dxos.aio import Listeners
from dxos.client.live import DXN
from dxos.client.object import EchoObject
from dxos.client.types import Object, Relation, object_class
from dxos.echo.query import And, Equals, Filter, HasType, Not, Or, Query
from dxos.echo.rows import ObjectRow
from dxos.echo.schema import SCHEMA_TYPE, StoredSchema, TypeName
from dxos.errors import DxosError, InvalidKeyError, ObjectNotFoundError, UsageError

if TYPE_CHECKING:
    from dxos.client.database import Database

ObjectClass = type[Object] | type[Relation[Any, Any]]

_TYPE_PREFIX: Final = "dxn:type:"
_log = logging.getLogger("dxos.client")


@final
class DbRouter:
    """The types that an application has registered, and the way to any object; made by the client.

    Args:
        database_of: Gives the database of a space that this identity has, by the space's id.
    """

    def __init__(self, database_of: Callable[[str], Database | None]) -> None:
        self._database_of = database_of
        self._classes: dict[str, ObjectClass] = {}  # By DXN.
        self.changed: Listeners[None] = Listeners()

    @property
    def types(self) -> tuple[ObjectClass, ...]:
        """The registered classes, in the order in which they came."""
        return tuple(self._classes.values())

    def add_schema(self, *types: type) -> None:
        """Register classes: derived from `Object` or `Relation`, or models with `typename` and `version`.

        Raises:
            UsageError: No type of objects, or another schema has the same name and version.
        """
        new: dict[str, ObjectClass] = {}
        for one in types:
            made: Any = object_class(one)
            name: TypeName = made.type_name
            known = new.get(name.dxn) or self._classes.get(name.dxn)
            # The same class again, from a cell of a notebook that ran twice, is no other schema.
            if known is not None and known is not made and known._stored_schema() != made._stored_schema():
                raise UsageError(
                    f"{made.__name__}: another schema is called {name.typename} {name.version} already; give this one "
                    "a higher version."
                )
            new[name.dxn] = made
        self._classes |= new
        self.changed.emit(None)

    def get_type(self, name: str) -> ObjectClass | None:
        """The class of a type, by `dxn:type:<typename>:<version>`, or by the typename: then the highest version."""
        if name.startswith(_TYPE_PREFIX):
            return self._classes.get(name)
        found = [one for one in self._classes.values() if one.type_name.typename == name]
        return max(found, key=lambda one: tuple(map(int, one.type_name.version.split("."))), default=None)

    async def get_object(self, dxn: str) -> EchoObject:
        """An object by `dxn:echo:<space id>:<object id>`.

        Raises:
            InvalidKeyError: Not such a DXN.
            ObjectNotFoundError: This identity has no such space, or the space no such object.
        """
        match = DXN.fullmatch(dxn)
        if match is None or match[1] == "@":
            raise InvalidKeyError(f"{dxn!r:.80} names no object; write dxn:echo:<space id>:<object id>")
        database = self._database_of(match[1])
        if database is None:
            raise ObjectNotFoundError(f"This identity has no space {match[1]}.")
        return await database.get(match[2])

    def class_of(self, dxn: str | None) -> type[EchoObject]:
        """The class that objects of a type have: a registered one, or that of objects without a known type."""
        return EchoObject if dxn is None else self._classes.get(dxn, EchoObject)

    def __repr__(self) -> str:
        return f"<DbRouter {len(self._classes)} types>"


@final
class SpaceSchemas:
    """The schemas that one space keeps, and those of types in use that it does not keep yet.

    Args:
        find: Asks the space's rows.
    """

    def __init__(self, find: Callable[[Query], Any]) -> None:
        self._find = find
        self._kept: set[str] = set()
        self._lacking: dict[str, StoredSchema] = {}
        self._stored: dict[str, tuple[str, StoredSchema]] = {}  # Who keeps it, and how; of several the oldest.
        self._outgrown: dict[str, StoredSchema] = {}  # What is to be kept instead, by the id of the object.
        self._names: dict[str, str] = {}  # `dxn:type:…` by `dxn:echo:@:…` of the object that keeps the schema.

    def learn(self, row: ObjectRow) -> str | None:
        """Look at a row; where it keeps a schema that was not known: what its objects may say as their type."""
        schema = StoredSchema.from_data(row.data) if row.type == SCHEMA_TYPE and not row.deleted else None
        dxn = f"dxn:echo:@:{row.object_id}"
        if schema is None:
            return None
        keeper_id, _ = self._stored.get(schema.name.dxn, (row.object_id, None))
        if row.object_id <= keeper_id:
            self._stored[schema.name.dxn] = row.object_id, schema
        if self._names.get(dxn) == schema.name.dxn:
            return None
        self._names[dxn] = schema.name.dxn
        self._kept.add(schema.name.dxn)
        return dxn

    def name_of(self, dxn: str | None) -> str | None:
        """What an object says as its type, as `dxn:type:…` where that is known."""
        return dxn if dxn is None else self._names.get(dxn, dxn)

    def expanded(self, query: Query) -> Query:
        """A query that finds objects of its types however they say it; the same for one that does so already."""
        return replace(query, filter=self._expanded(query.filter)) if self._names else query

    def _expanded(self, filter: Filter) -> Filter:
        match filter:
            case HasType():
                same = self._same_types([filter])
                return Or(same) if len(same) > 1 else filter
            case Or(filters) if all(isinstance(one, HasType) for one in filters):
                return Or(self._same_types(filters))
            case And(filters):
                return And(tuple(map(self._expanded, filters)))
            case Or(filters):
                return Or(tuple(map(self._expanded, filters)))
            case Not(inner):
                return Not(self._expanded(inner))
        return filter

    def _same_types(self, filters: Iterable[Filter]) -> tuple[Filter, ...]:
        found = dict.fromkeys(filters)
        for one in tuple(found):
            if isinstance(one, HasType) and one.type is not None:
                names = (dxn for dxn, name in self._names.items() if one.type in (name, name.rpartition(":")[0]))
                found |= dict.fromkeys(map(HasType, names))
        return tuple(found)

    def use(self, schema: StoredSchema) -> None:
        """An object of this type is to be made.

        Raises:
            UsageError: The space keeps another schema of this name and version, and such an object does not fit it.
        """
        if schema.name.dxn not in self._kept:
            self._lacking[schema.name.dxn] = schema
        if schema.name.dxn in self._stored:
            keeper_id, kept = self._stored[schema.name.dxn]
            extended = kept.extended_by(schema)
            if extended.properties.keys() != kept.properties.keys():
                self._outgrown[keeper_id] = extended

    def __bool__(self) -> bool:
        return bool(self._lacking or self._outgrown)

    def take_outgrown(self) -> dict[str, StoredSchema]:
        """What is to be kept instead of what is, by the id of the object that keeps it."""
        outgrown, self._outgrown = self._outgrown, {}
        return outgrown

    async def take(self) -> list[EchoObject]:
        """The objects to add, which keep what is lacking; where the space cannot be asked, it is asked again later."""
        lacking, self._lacking = self._lacking, {}
        made = []
        for dxn, schema in lacking.items():
            try:
                found: Iterable[ObjectRow] = await self._find(_keeps(schema.name))
            except DxosError as error:
                _log.warning("The schema of %s could not be stored: %s", dxn, error)
                self._lacking.setdefault(dxn, schema)
                continue
            self._kept.add(dxn)
            if not any(StoredSchema.from_data(row.data) is not None for row in found):
                keeper = EchoObject(type=SCHEMA_TYPE)
                keeper.update(schema.to_data(keeper.id))
                made.append(keeper)
        return made

    def refused(self, targets: Iterable[EchoObject]) -> None:
        """The space has not taken these: if schemas are among them, the next objects of their types try again."""
        for one in targets:
            schema = StoredSchema.from_data(one.to_dict()) if one.type == SCHEMA_TYPE else None
            if schema is not None and schema.name.dxn not in self._stored:
                self._kept.discard(schema.name.dxn)


def _keeps(name: TypeName) -> Query:
    typename, version = Equals(("typename",), name.typename), Equals(("version",), name.version)
    return Query(And((HasType(SCHEMA_TYPE), typename, version)))
