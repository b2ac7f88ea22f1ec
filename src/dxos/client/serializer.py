"""`Serializer`: spaces as JSON in the form of 0.8.3, and the objects of one type as a table.

    {"version": 1, "timestamp": "…Z", "spaceKey": "04…", "objects": [
        {"@id": "01…", "@type": {"/": "dxn:type:…"}, "@version": 1, "@meta": {"keys": []}, "title": "Milk", …}, …]}

The JSON has what the objects are now; their history, members and messages are not in it (`space.export_archive` keeps
the history). Rows go straight between the host and the file: no live object is made for any of them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, final

import anyio
import anyio.lowlevel
import anyio.to_thread

from dxos.aio import Pace
from dxos.client.progress import Activities
from dxos.client.space import Space
from dxos.client.table import read_table, write_table
from dxos.echo.mutation import check_value
from dxos.echo.query import Everything, Filter, HasType, Query
from dxos.echo.rows import Kind, ObjectRow, reference, reference_dxn
from dxos.errors import InvalidValueError
from dxos.keys.ids import is_object_id
from dxos.limits import ARCHIVE_BYTES_MAX, EXPORT_PAGE_OBJECTS, PARSE_INLINE_BYTES_MAX, UPDATE_OBJECTS_MAX
from dxos.services.contract import Edit, Next, Progress, Services

T = TypeVar("T")
VERSION: Final = 1
PROPERTIES: Final = "dxn:type:dxos.org/type/Properties"  # Of the object that names a space, without its version.


class SpaceMaker(Protocol):
    """What the serializer asks of the client."""

    async def create_space(self, properties: Mapping[str, Any] | None = None, /, **more: Any) -> Space: ...


@final
class Serializer:
    """Writes spaces to bytes and makes spaces of them; from `client.create_serializer()`."""

    def __init__(self, services: Services, maker: SpaceMaker, activities: Activities) -> None:
        self._services, self._maker, self._activities = services, maker, activities

    async def serialize_space(self, space: Space, *, progress: Next[Progress] | None = None) -> bytes:
        """The objects of a space as JSON, without those that were removed.

        Args:
            space: READY.
            progress: Called with how many objects are done, and of how many.

        Raises:
            SpaceNotReadyError: The space is closed.
        """
        head = {
            "version": VERSION,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "spaceKey": space.key.hex,
        }
        pieces = [json.dumps(head, ensure_ascii=False)[:-1], ', "objects": [']
        length = 0
        async for row in self._rows(space, Everything(), progress):
            pieces.append(("\n " if len(pieces) == 2 else ",\n ") + json.dumps(_serialized(row), ensure_ascii=False))
            length += len(pieces[-1])
            if length > ARCHIVE_BYTES_MAX:
                raise InvalidValueError("The space is too large for one file of JSON.", bytes_max=ARCHIVE_BYTES_MAX)
        return "".join([*pieces, "]}\n"]).encode()

    async def deserialize_space(
        self, data: bytes, *, into: Space | None = None, progress: Next[Progress] | None = None
    ) -> Space:
        """Make a space with the objects of some JSON; they keep their ids.

        Args:
            data: What `serialize_space`, or a JavaScript client, has written.
            into: A space to add them to instead; its own properties are overwritten by those in the data.
            progress: Called with how many objects are done, and of how many.

        Returns:
            The space; everything is durable.

        Raises:
            InvalidValueError: Not such JSON, a value that cannot be stored, or an object that the space has already;
                nothing was made.
            StorageError: No room; a part of the objects may be there.
        """
        rows = await _unhurried(map(_deserialized, _objects(await _parse(data))))
        if len({row.object_id for row in rows}) != len(rows):
            raise InvalidValueError("Two objects have the same id.")
        properties: dict[str, Any] = {}
        for row in rows:
            if _is_properties(row):
                properties |= row.data
        rows = [row for row in rows if not _is_properties(row)]
        if into is None:
            into, properties = await self._maker.create_space(properties), {}
        else:
            await self._refuse_present(into, rows)
        await self._add(into, rows, progress, properties)
        return into

    async def serialize_table(self, space: Space, type: str | None, *, progress: Next[Progress] | None = None) -> bytes:
        """The objects of one type as CSV: a line each, a column for each property; see `dxos.client.table`.

        Args:
            space: READY.
            type: `dxn:type:<name>`, with or without a version; None: the objects that have no type.
            progress: Called with how many objects are done, and of how many.
        """
        rows = [row async for row in self._rows(space, HasType(type), progress)]
        return "".join(await _unhurried(write_table(rows))).encode()

    async def deserialize_table(
        self,
        data: bytes,
        type: str | None,
        *,
        into: Space | None = None,
        name: str | None = None,
        progress: Next[Progress] | None = None,
    ) -> Space:
        """Make a space with the lines of a CSV table, as objects of one type.

        Args:
            data: What `serialize_table`, or any other program, has written; UTF-8, the first line names the columns.
            type: `dxn:type:<name>:<version>`; None: no type.
            into: A space to add them to instead.
            name: Of the new space.
            progress: Called with how many objects are done, and of how many.

        Raises:
            InvalidValueError: Not such a table, or an object that the space has already; nothing was added.
        """
        rows = await _unhurried(read_table(data, type))
        if into is None:
            into = await self._maker.create_space({} if name is None else {"name": name})
        else:
            await self._refuse_present(into, rows)
        await self._add(into, rows, progress, {})
        return into

    # --- Rows -----------------------------------------------------------------------------------------------------

    async def _rows(self, space: Space, wanted: Filter, tell: Next[Progress] | None) -> AsyncIterator[ObjectRow]:
        await space.db.flush()  # What was edited a moment ago belongs to it.
        # One answer and not pages, so that it is of one moment.
        found = await self._services.query.execute(space.id, Query(filter=wanted))
        pace = Pace()
        with self._activities.begin("export", space.id, tell) as told:
            for done, state in enumerate(found, start=1):
                yield state.row
                if done % EXPORT_PAGE_OBJECTS == 0 or done == len(found):
                    told(Progress(done, len(found)))
                if pace.is_due:
                    await pace.rest()

    async def _refuse_present(self, space: Space, rows: Sequence[ObjectRow]) -> None:
        present = await self._services.data.get(space.id, [row.object_id for row in rows])
        if present:
            raise InvalidValueError(
                f"The space has {len(present)} of these objects already, such as {present[0].row.object_id}.",
                object_id=present[0].row.object_id,
            )

    async def _add(
        self, space: Space, rows: Sequence[ObjectRow], tell: Next[Progress] | None, properties: Mapping[str, Any]
    ) -> None:
        """Add objects, and set properties of the space; all of it is one for `undo`."""
        step = await self._services.data.begin_step(space.id)
        if properties:
            async with space.db.batch_of_step(step):
                space.properties.update(properties)
        with self._activities.begin("import", space.id, tell) as told:
            for start in range(0, len(rows), UPDATE_OBJECTS_MAX):
                edits = [Edit(row.object_id, create=row) for row in rows[start : start + UPDATE_OBJECTS_MAX]]
                await self._services.data.update(space.id, edits, step=step)
                told(Progress(start + len(edits), len(rows)))
                await anyio.lowlevel.checkpoint()
        await space.db.flush()

    def __repr__(self) -> str:
        return "<Serializer>"


async def _unhurried(source: Iterable[T]) -> list[T]:
    """All that a source gives, with turns for everything else in between."""
    taken, pace = list[T](), Pace()
    for one in source:
        taken.append(one)
        if pace.is_due:
            await pace.rest()
    return taken


async def read_file(path: Path) -> bytes:
    """A file that is to be imported.

    Raises:
        InvalidValueError: It cannot be read, or is too large.
    """
    try:
        file = anyio.Path(path)
        if (await file.stat()).st_size > ARCHIVE_BYTES_MAX:
            raise InvalidValueError(f"{path.name} is too large to be imported.", bytes_max=ARCHIVE_BYTES_MAX)
        return await file.read_bytes()
    except OSError as error:
        raise InvalidValueError(f"{path.name} cannot be read: {error.strerror}.") from error


def _serialized(row: ObjectRow) -> dict[str, Any]:
    document: dict[str, Any] = {"@id": row.object_id}
    if row.type is not None:
        document["@type"] = reference(row.type)
    # The original forgets what a relation connects; its readers pass over names that begin like this.
    if row.source is not None:
        document["@relationSource"] = row.source
    if row.target is not None:
        document["@relationTarget"] = row.target
    return {**document, **row.data, "@version": VERSION, "@meta": {"keys": [], **row.meta}}


async def _parse(data: bytes) -> Any:
    if len(data) > ARCHIVE_BYTES_MAX:
        raise InvalidValueError("This JSON is too large to be imported.", bytes_max=ARCHIVE_BYTES_MAX)
    try:
        if len(data) <= PARSE_INLINE_BYTES_MAX:
            return json.loads(data, parse_constant=_refuse)
        # The hook does nothing but let other threads run in between, which the parser alone never does.
        return await anyio.to_thread.run_sync(
            lambda: json.loads(data, parse_constant=_refuse, object_hook=lambda found: found)
        )
    except ValueError as error:
        raise InvalidValueError(f"This is no JSON of a space: {error}.") from None
    except RecursionError:
        raise InvalidValueError("This JSON is nested too deep.") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _objects(document: Any) -> Iterable[Any]:
    match document:
        case {"version": version, "objects": list(objects)} if version == VERSION:
            return objects
        case {"version": version, "objects": list()}:
            raise InvalidValueError(f"Invalid version: {version!r:.20}")
    raise InvalidValueError("This is no JSON of a space: it has no version and objects.")


def _deserialized(document: Any) -> ObjectRow:
    match document:
        case {"@id": str(object_id)} if is_object_id(object_id):
            pass
        case _:
            raise InvalidValueError(f"An object without an id: {document!r:.80}")
    type_ = document.get("@type")
    dxn = type_ if isinstance(type_, str) else reference_dxn(type_)
    if dxn is not None and not dxn.startswith("dxn:"):
        dxn = f"dxn:type:{dxn}"  # The name alone, as early versions wrote it.
    source, target = document.get("@relationSource"), document.get("@relationTarget")
    kind: Kind = "relation" if isinstance(source, str) and isinstance(target, str) else "object"
    meta = document.get("@meta")
    data = {name: value for name, value in document.items() if not name.startswith("@")}
    try:
        check_value(data)
        check_value(meta)
    except InvalidValueError as error:
        raise InvalidValueError(f"Object {object_id}: {error}", object_id=object_id) from error
    return ObjectRow(
        object_id,
        kind,
        dxn,
        document.get("@deleted") is True,
        source if kind == "relation" else None,
        target if kind == "relation" else None,
        meta if isinstance(meta, dict) else {},
        data,
    )


def _is_properties(row: ObjectRow) -> bool:
    return row.type is not None and (row.type == PROPERTIES or row.type.startswith(f"{PROPERTIES}:"))
