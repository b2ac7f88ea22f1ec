"""`Database`: the objects of one space, read and changed at once here, and sent to the host once per turn.

    edit ──▶ object is dirty ──▶ (next turn) updates with every dirty object ──▶ answer: the host's rows
                └── a strong reference, so that nothing unsent is lost; other objects are known weakly, by id

A refused update takes back all edits it held, and is raised by the next `flush`. While the host is inactive an edit is
refused where it is made; one that was made before waits, and is sent when the host works again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Sized,
)
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar, final, overload
from weakref import WeakValueDictionary

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from dxos.aio import Opener, Pace, Subscription
from dxos.client.batch import OPEN_BATCHES, Batch
from dxos.client.fields import Field, joined, path_of
from dxos.client.following import LiveQueries, LiveQuery
from dxos.client.following import Spawn as Spawn
from dxos.client.history import PastSpace
from dxos.client.live import FOREIGN_REFERENCE, references_in
from dxos.client.migrations import Migration
from dxos.client.object import EchoObject, become, object_of, set_deleted
from dxos.client.observable import MulticastObservable
from dxos.client.progress import Activities
from dxos.client.query import Hit, Query, QueryUpdate
from dxos.client.router import DbRouter, SpaceSchemas
from dxos.client.state import Core, core_of
from dxos.client.types import encode_equalities, object_class, object_from
from dxos.echo.query import Filter, HasType, wants
from dxos.echo.query import Query as PlainQuery
from dxos.echo.revision import Conflict, Revision
from dxos.echo.rows import ObjectRow
from dxos.echo.schema import SCHEMA_TYPE, StoredSchema
from dxos.errors import (
    ClosedError,
    DxosError,
    HostInactiveError,
    InvalidValueError,
    ObjectNotFoundError,
    UsageError,
)
from dxos.keys.ids import is_object_id
from dxos.limits import BATCH_OBJECTS_MAX, UPDATE_OBJECTS_MAX
from dxos.services import contract
from dxos.services.contract import DataService, HistoryService, ObjectState, Progress, QueryService

T = TypeVar("T", bound=EchoObject)
Answer = TypeVar("Answer")
Wanted = Filter | PlainQuery | Mapping[str, Any] | type | None

_log = logging.getLogger("dxos.client")


@final
class Database:
    """The objects of one space.

    Args:
        space_id: Of the space.
        data, query, history: The services.
        spawn: Starts a task that ends with the client.
        gate: Raises if nothing can be written to the space now.
        status: Of the host.
    """

    def __init__(
        self,
        space_id: str,
        data: DataService,
        query: QueryService,
        history: HistoryService,
        activities: Activities,
        spawn: Spawn,
        gate: Callable[[], None],
        status: MulticastObservable[contract.SystemStatus | None],
    ) -> None:
        self._status = status
        self._history, self._activities = history, activities
        self._space_id, self._data, self._query, self._spawn, self._gate = space_id, data, query, spawn, gate
        self._objects: WeakValueDictionary[str, EchoObject] = WeakValueDictionary()
        self._unsent: dict[str, EchoObject] = {}
        self._batches: list[Batch] = []  # Whose blocks are running.
        self._unsent_batches: list[Batch] = []
        self._followed: dict[str, EchoObject] = {}  # With subscribers of their own, so they must not go.
        self._sending = False
        self._paused: anyio.Event | None = None  # Sending waits for this: for the host to work again.
        self._idle: anyio.Event | None = None  # Nothing is being sent, or nothing goes on.
        self._failure: DxosError | None = None
        self._rows: contract.Subscription | None = None
        self._readings = 0  # Answers of the host that are awaited or being taken in,
        self._newer: dict[str, ObjectState] = {}  # and the objects that have changed since.
        self._live = LiveQueries()
        self._closed, self._opener = False, Opener()
        self._is_gone = False  # The space, from this device.
        self._thread = threading.get_ident()
        self._types = DbRouter(lambda _: None)
        self._type_changes: Subscription | None = None
        self._schemas = SpaceSchemas(self._find_rows)

    @property
    def space_id(self) -> str:
        """The id of the space."""
        return self._space_id

    # --- Changing ---

    @overload
    def add(self, value: T) -> T: ...
    @overload
    def add(self, value: object) -> EchoObject: ...
    def add(self, value: object) -> EchoObject:
        """Add an object, or bring a removed one back; what it refers to and is in no space yet is added with it.

        Args:
            value: Properties, an object made before, or an instance of a model whose class is registered.

        Returns:
            The object; the same one if it was one. It is durable after the next `flush`.

        Raises:
            InvalidValueError: A value that cannot be stored, or a reference into another space; names where it is.
            NotAllowedError: This identity may only read.
        """
        if isinstance(value, EchoObject):
            target = value
        else:
            target = EchoObject(value) if isinstance(value, Mapping) else object_from(value)
        core = core_of(target)
        if core.home is self:
            set_deleted(target, False)
            return target
        if core.home is not None:
            raise UsageError("This object belongs to another space; add a copy of it: `db.add(obj.to_dict())`.")
        self.check_writable()
        coming = self._with_references(target)
        for one in coming:
            self._check_type(one)
        for one in coming:
            new = core_of(one)
            new.home, new.creating, new.state, new.under_way = self, True, None, False
            self._objects[one.id] = one
            self.edited(one)
            self.followed(one)
        return target

    def _with_references(self, target: EchoObject) -> list[EchoObject]:
        """An object and all that comes into the space with it; raises before anything has come."""
        found = {target.id: target}
        waiting = [target]
        while waiting:
            core = core_of(waiting.pop())
            for object_id in references_in([core.data, core.meta, *core.ends_stored()]):
                other = core.references.get(object_id)
                if other is None or object_id in found:
                    continue
                home = core_of(other).home
                if home is None:
                    found[object_id] = other
                    waiting.append(other)
                elif home is not self:
                    raise InvalidValueError(f"Object {core.object_id}: {FOREIGN_REFERENCE}")
        return list(found.values())

    def _check_type(self, target: EchoObject) -> None:
        """Have the schema of a new object's type stored with it; raises UsageError if its class is not registered."""
        kind = type(target)
        if kind is EchoObject:
            return
        if self._types.class_of(target.type) is not kind:
            raise UsageError(f"{kind.__name__} is not registered: `client.add_schema({kind.__name__})` first.")
        self._schemas.use(object_class(kind)._stored_schema())

    async def run_migrations(self, *migrations: Migration[Any]) -> int:
        """Make the objects of this space that have an older type into objects of a newer one, and flush.

        Doing so again changes only objects that are new since. Peers may do the same at the same time.

        Args:
            migrations: What `migration` declared, oldest first; their classes are registered if need be.

        Returns:
            How many times an object was changed.

        Raises:
            InvalidValueError: What a migration returned does not fit its class; objects before it are changed.
            NotAllowedError: This identity may only read.

        Cancelling leaves each object either as it was or migrated.
        """
        changed = 0
        for one in migrations:
            self._types.add_schema(one.source, one.target)
            found = await Query[EchoObject](
                self, PlainQuery(HasType(one.source.type_name.dxn), deleted="include")
            ).run()
            if found:
                self.check_writable()
                self._schemas.use(one.target._stored_schema())
            for target in found:
                one.apply(target)
            changed += len(found)
        await self.flush()
        return changed

    def remove(self, target: EchoObject) -> None:
        """Remove an object: it disappears from queries, and `add` brings it back.

        Raises:
            ObjectNotFoundError: It is not in this space.
        """
        if core_of(target).home is not self:
            raise ObjectNotFoundError(f"Object {target.id} is not in this space.")
        set_deleted(target, True)

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Make all edits of a block one change: on every peer all of them arrive, or none.

            async with space.db.batch():
                source.amount -= 5
                target.amount += 5

        What the block changes is read at once, and seen by subscribers, queries and peers when it ends. If it raises,
        or the host refuses the change, everything is as it was before. What other tasks change meanwhile is not part
        of it, but for objects that the block has changed. A block inside a block is part of that one.

        Raises:
            UsageError: More than BATCH_OBJECTS_MAX objects; for so many there is `add_all`.
            DxosError: What the host refused the change with, such as StorageFullError.

        Cancelling inside the block undoes it. While its end is waited for, the change is sent all the same.
        """
        async with self.batch_of_step(None):
            yield

    @asynccontextmanager
    async def batch_of_step(self, step: int | None) -> AsyncIterator[None]:
        """As `batch`, to be undone together with all that is of the same step; for this package only."""
        if self._own_batch() is not None:
            yield
            return
        self.check_writable()
        await self._settle()  # What was changed before is no part of it.
        batch = Batch(step)
        self._batches.append(batch)
        token = OPEN_BATCHES.set((*OPEN_BATCHES.get(), batch))
        try:
            yield
            if len(batch.objects) > BATCH_OBJECTS_MAX:
                raise UsageError(f"A batch changes at most {BATCH_OBJECTS_MAX} objects; `add_all` adds any number.")
            if self._closed:
                raise ClosedError("The client was closed before these edits were stored.")
            if self._paused is not None:
                raise HostInactiveError
        except BaseException:
            with anyio.CancelScope(shield=True), suppress(HostInactiveError):
                await self._settle()  # Edits of other tasks may be under way.
            self._take_back(batch)
            raise
        finally:
            OPEN_BATCHES.reset(token)
            self._batches.remove(batch)
        if batch.objects:
            self._unsent_batches.append(batch)
            self._start_sending()
            await batch.done.wait()
            if batch.error is not None:
                raise batch.error

    async def add_all(
        self,
        values: Iterable[object] | AsyncIterable[object],
        *,
        progress: Callable[[Progress], object] | None = None,
    ) -> list[str]:
        """Add any number of objects, in pieces, so that neither memory nor anything else that runs suffers.

        Args:
            values: What `add` takes; taken from when there is room, so it may be a generator over a file.
            progress: Called after each piece with how many are added, and of how many, as far as `values` has a length.

        Returns:
            Their ids, in the order of `values`. They are durable after the next `flush`.

        Raises:
            DxosError: What `add` raises, or the host refused a piece with. The pieces before it are added; of this one
                nothing is. `detail["added_count"]` says how many objects are.

        Cancelling leaves the pieces before the present one added.
        """
        total = len(values) if isinstance(values, Sized) else 0
        added: list[str] = []
        source = values if isinstance(values, AsyncIterable) else _each(values)
        piece: list[object] = []
        step: int | None = None
        with self._activities.begin("add", self._space_id, progress) as tell:
            async with aclosing(source) if isinstance(source, AsyncGenerator) else nullcontext():
                async for value in source:
                    piece.append(value)
                    if len(piece) == UPDATE_OBJECTS_MAX:
                        step = step or await self.begin_step()
                        await self._add_piece(piece, added, step)
                        piece = []
                        tell(Progress(len(added), max(total, len(added))))
            if piece:
                await self._add_piece(piece, added, step)
                tell(Progress(len(added), max(total, len(added))))
        return added

    async def begin_step(self) -> int | None:
        """What makes several updates one for `undo`; in a batch, which is one itself, there is no need."""
        return None if self._own_batch() is not None else await self._data.begin_step(self._space_id)

    async def _add_piece(self, piece: list[object], added: list[str], step: int | None) -> None:
        try:
            async with self.batch_of_step(step):
                ids = [self.add(value).id for value in piece]
        except DxosError as error:
            error.detail["added_count"] = len(added)
            raise
        added += ids

    async def flush(self) -> None:
        """Return when everything changed before is durable on the disk of this device.

        Raises:
            DxosError: What the host refused since the last flush, such as StorageFullError; those edits are undone.

        Cancelling is safe: the edits go on being sent.
        """
        await self._settle()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        await self._data.flush(self._space_id)

    # --- History ---

    async def undo(self, target: EchoObject | None = None) -> bool:
        """Take back what this device changed last in this space, and keep what others have done since.

        That is what was changed in one turn, one batch, or one call such as `add_all`, however long.

        Args:
            target: Look at the changes of this object alone; the same as `target.undo()`.

        Returns:
            Whether there was anything left to undo; also after a restart.

        Raises:
            NotAllowedError: This identity may only read.

        Cancelling, or an error, may leave a part of a long one; the next `undo` goes on with it.
        """
        return await self._reverse(self._history.undo, target)

    async def redo(self, target: EchoObject | None = None) -> bool:
        """Do again what was undone last, unless this device has made other changes since; as `undo`."""
        return await self._reverse(self._history.redo, target)

    async def _reverse(
        self, reverse: Callable[[str, str | None], Awaitable[tuple[ObjectState, ...]]], target: EchoObject | None
    ) -> bool:
        if self._own_batch() is not None:
            raise UsageError("Undo and redo are changes of their own; leave the batch first.")
        self.check_writable()
        await self._settle()
        states = await reverse(self._space_id, None if target is None else target.id)
        self._merge(states)
        return bool(states)

    async def revisions_of(self, target: EchoObject, limit: int) -> tuple[Revision, ...]:
        """The newest changes of an object."""
        await self._settle()
        return await self._history.revisions(self._space_id, target.id, limit)

    async def conflicts_of(self, target: EchoObject) -> tuple[Conflict, ...]:
        """The properties of an object that are in conflict."""
        await self._settle()
        return await self._history.conflicts(self._space_id, target.id)

    def at(self, moment: datetime | Revision) -> PastSpace:
        """The space as it was; see `Space.at`."""
        return PastSpace(self._space_id, moment, self._history, self.query, self._settle)

    # --- Reading ---

    async def get(self, object_id: str) -> EchoObject:
        """An object by its id, also a removed one.

        Raises:
            ObjectNotFoundError: No such object in this space.
        """
        found = self._objects.get(object_id)
        if found is not None and core_of(found).loaded:
            return found
        if is_object_id(object_id):
            (found,) = (*await self._fetch([object_id]), None)[:1]
            if found is not None:
                await self._fetch_references([found])
                return found
        raise ObjectNotFoundError(f"There is no object {object_id:.80} in this space.")

    def get_object_by_id(self, object_id: str) -> EchoObject | None:
        """An object that this process holds already: added, queried or loaded before; None for others or removed ones.

        As in the original, this asks nobody; `get` does.
        """
        found = self._objects.get(object_id)
        if found is None or not core_of(found).loaded or core_of(found).deleted:
            return None
        return found

    @overload
    def query(self, wanted: type[T], /, *filters: Filter, **equalities: Any) -> Query[T]: ...
    @overload
    def query(self, wanted: Wanted = None, /, *filters: Filter, **equalities: Any) -> Query[EchoObject]: ...
    def query(self, wanted: Wanted = None, /, *filters: Filter, **equalities: Any) -> Query[Any]:
        """Ask for objects: of a class, that meet filters made with `F`, that have some values, or all of these.

        Args:
            wanted: A class, a filter such as `F.done == True`, a whole query of `dxos.echo.query`, or a mapping of
                property names and values.
            filters: Further filters; all of them are met.
            equalities: Property names and values; an object stands for a reference to it.
        """
        return Query(self, plain_query(wanted, filters, equalities))

    async def create_index(self, field: Field | str, *, by_type: bool = False) -> None:
        """Have an index on a property, so that queries by it are fast from the first.

        Without this, a query that would look at more than 5,000 objects makes its index. Indexes are of this device.

        Args:
            field: `F.shop.aisle`, or `"shop.aisle"`.
            by_type: Whether it is for queries that also name a type; such an index serves no others.

        Raises:
            InvalidValueError: There can be no index on it, or there are 48 already.
        """
        await self._query.create_index(self._space_id, path_of(field), by_type=by_type)

    # --- For objects ---

    def check_writable(self) -> None:
        """Raise if nothing can be written now, or not here."""
        self._opener.check()
        if self._closed:
            raise ClosedError(
                "The space is gone from this device."
                if self._is_gone
                else "The client was closed; call `initialize()` and get the object again."
            )
        if threading.get_ident() != self._thread:
            raise UsageError(
                "Objects are changed in the thread of the event loop. A script that uses `dxos.sync` changes what "
                "`db.add` returned, not what it handed in."
            )
        if self._status.get() is contract.SystemStatus.INACTIVE:
            raise HostInactiveError
        self._gate()

    def edited(self, target: EchoObject) -> None:
        """Send the edits of this object in the next turn."""
        batch = next((one for one in self._batches if target.id in one.objects), None) or self._own_batch()
        if batch is None:
            self._unsent[target.id] = target
            self._start_sending()
            return
        self._unsent.pop(target.id, None)
        batch.objects[target.id] = target

    def _own_batch(self) -> Batch | None:
        """The batch in whose block the present task is."""
        if not self._batches:
            return None
        return next((one for one in OPEN_BATCHES.get() if one in self._batches), None)

    def _start_sending(self) -> None:
        if not self._sending:
            self._sending = True
            self._spawn(self._send)

    def followed(self, target: EchoObject) -> None:
        """Hold this object while it has subscribers."""
        if core_of(target).has_subscribers and not self._closed:
            self._followed[target.id] = target
        else:
            self._followed.pop(target.id, None)

    def refer(self, object_id: str) -> EchoObject:
        """The object of that id; if it is not here yet it is asked for, and lacks its properties until then."""
        found = self._objects.get(object_id)
        if found is None:
            core = Core(object_id, {})
            core.home, core.loaded = self, False
            found = self._objects[object_id] = object_of(core)
            if not self._closed:
                self._spawn(lambda: self._prefetch(object_id))
        return found

    async def load(self, target: EchoObject) -> None:
        """Ask the host for the properties of an object."""
        if not await self._fetch([target.id]):
            core_of(target).missing = True

    async def _prefetch(self, object_id: str) -> None:
        target = self._objects.get(object_id)
        if target is not None and not core_of(target).loaded:
            try:
                await self.load(target)
            except DxosError as error:
                _log.debug("object %s could not be loaded ahead: %s", object_id, error)

    # --- For the space ---

    def use_types(self, types: DbRouter) -> None:
        """Give objects the classes that are registered there, now and later."""
        self._types = types
        self._type_changes = types.changed.subscribe(lambda _: self._retype(list(self._objects.values())))

    def _retype(self, targets: Iterable[EchoObject]) -> None:
        for target in targets:
            core = core_of(target)
            if core.loaded and core.home is self:
                become(target, self._types.class_of(self._schemas.name_of(core.type)))

    async def _find_late(self, dxn: str) -> None:
        """Look for objects that came before the schema which they say as their type."""
        try:
            with self._reading():
                found = await self._take_in(await self._query.execute(self._space_id, PlainQuery(HasType(dxn))))
        except DxosError as error:
            _log.debug("objects of %s could not be found: %s", dxn, error)
        else:
            self._tell(found)

    async def _find_rows(self, query: PlainQuery) -> list[ObjectRow]:
        return [state.row for state in await self._query.execute(self._space_id, query)]

    def open(self) -> bool:
        """Follow the host's rows; whether they were not followed before."""
        if self._rows is not None or self._closed:
            return False
        self._rows = self._data.subscribe(self._space_id, self._receive, missed=self._missed)
        return True

    def pause(self) -> None:
        """Stop following them: the space is closed."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.unsubscribe()

    async def refresh(self) -> None:
        """Catch up on what changed while nothing was followed."""
        await self._fetch([one.id for one in list(self._objects.values()) if core_of(one).state is not None])
        for row in await self._find_rows(PlainQuery(HasType(SCHEMA_TYPE))):
            self._schemas.learn(row)
        self._retype(list(self._objects.values()))
        for query in self._live.queries():
            with self._reading():
                await self._take_in(await self._query.execute(self._space_id, query), is_news=True)

    def _missed(self) -> None:
        """Another host has taken over: what changed between the two is asked for."""
        self._spawn(self._catch_up)

    async def _catch_up(self) -> None:
        try:
            await self.refresh()
        except DxosError as error:
            # The space is not open yet on the new host: it is refreshed when it is.
            _log.debug("space %s could not catch up: %s", self._space_id, error)

    async def drain(self) -> None:
        """Send what is unsent, then nothing again."""
        with suppress(HostInactiveError):
            await self._settle()
        self.end()
        await self._settle()  # What could not be sent is taken back.
        if self._failure is not None:
            _log.warning("Edits of space %s were refused and nobody flushed: %s", self._space_id, self._failure)

    def end(self, *, is_gone: bool = False) -> None:
        """Send and follow nothing again; because the client is closed, or the space is gone."""
        self._closed, self._is_gone = True, self._is_gone or is_gone
        self._resume()
        self._followed.clear()
        if self._type_changes is not None:
            self._type_changes.unsubscribe()
        self.pause()
        self._live.end()

    async def _settle(self) -> None:
        """Wait until what was edited is sent.

        Raises:
            HostInactiveError: It is not sent before the host works again.
        """
        self._opener.check()
        while self._sending:
            if self._paused is not None:
                raise HostInactiveError
            if self._idle is None:
                self._idle = anyio.Event()
            await self._idle.wait()

    async def _extend_schema(self, keeper_id: str, schema: StoredSchema) -> None:
        """Have a schema that the space keeps tell of the further properties of ours."""
        try:
            kept = (await self.get(keeper_id))["jsonSchema"]
        except DxosError as error:
            _log.warning("The schema of %s could not be extended: %s", schema.name.dxn, error)
            return
        for name, one in schema.properties.items():
            if name not in kept["properties"]:
                kept["properties"][name] = one
                if "propertyOrder" in kept:
                    kept["propertyOrder"].append(name)

    # --- Sending ---

    async def _send(self) -> None:
        turn: Iterator[str] = iter(())  # Objects whose edits have been told of and not sent yet.
        step: int | None = None
        try:
            while self._unsent or self._unsent_batches:
                if self._schemas:
                    for keeper in await self._schemas.take():
                        self.add(keeper)
                    for keeper_id, schema in self._schemas.take_outgrown().items():
                        await self._extend_schema(keeper_id, schema)
                if self._unsent_batches:
                    await self._send_whole(self._unsent_batches.pop(0))
                    continue
                # A batch may have taken some over meanwhile.
                next_ids = [one for one in islice(turn, UPDATE_OBJECTS_MAX) if one in self._unsent]
                if not next_ids:
                    turn = iter(list(self._unsent))
                    self._tell(list(self._unsent.values()))
                    step = await self._begin_turn(len(self._unsent))
                    continue
                error = await self._send_edits([self._unsent.pop(one) for one in next_ids], step)
                self._failure = self._failure or error
                # A long turn goes in several updates, so that it does not hold up everything else.
                await anyio.lowlevel.checkpoint()
        finally:
            # Cancelled with edits unsent: the client is closing, and says so to whoever flushes.
            if self._unsent:
                self._failure = self._failure or ClosedError("The client was closed before these edits were stored.")
            self._refuse_batches(ClosedError("The client was closed before these edits were stored."))
            self._sending = False
            self._wake()

    def _wake(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.set()

    async def _ask(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the host answers; one that is asked to yield before it has, answers when it works again."""
        while True:
            try:
                return await call()
            except ClosedError as error:
                is_inactive = self._status.get() is contract.SystemStatus.INACTIVE
                if self._closed or not (is_inactive or isinstance(error, HostInactiveError)):
                    raise
            paused = self._paused = anyio.Event()
            self._refuse_batches(HostInactiveError())
            self._wake()  # Who waits for it is told why nothing comes.
            statuses = self._status.subscribe(
                lambda status: self._resume() if status is not contract.SystemStatus.INACTIVE else None
            )
            try:
                await paused.wait()
            finally:
                statuses.unsubscribe()

    def _refuse_batches(self, error: DxosError) -> None:
        """Take back the batches that were not sent yet."""
        batches, self._unsent_batches = self._unsent_batches, []
        for batch in batches:
            self._take_back(batch)
            batch.error = error
            batch.done.set()

    def _take_back(self, batch: Batch) -> None:
        targets = list(batch.objects.values())
        # What the present update holds as well is not taken back from under it: it goes with the next one.
        self._unsent |= {one.id: one for one in targets if core_of(one).under_way}
        self._roll_back([one for one in targets if not core_of(one).under_way])

    def _resume(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.set()

    async def _begin_turn(self, objects_count: int) -> int | None:
        """The step of a turn: a long one takes several updates, and is one for `undo` all the same."""
        if objects_count <= UPDATE_OBJECTS_MAX:
            return None
        try:
            return await self._ask(lambda: self._data.begin_step(self._space_id))
        except DxosError:
            return None  # The updates will say what is wrong.

    async def _send_whole(self, batch: Batch) -> None:
        targets = list(batch.objects.values())
        batch.error = ClosedError("The client was closed before these edits were stored.")
        try:
            self._tell(targets)
            batch.error = await self._send_edits(targets, batch.step, is_patient=False)
        finally:
            batch.done.set()

    async def _send_edits(
        self, targets: list[EchoObject], step: int | None, *, is_patient: bool = True
    ) -> DxosError | None:
        """Send the edits of these objects as one update; what it was refused with.

        Args:
            targets: The objects.
            step: What is undone together with it.
            is_patient: Whether the edits wait for an inactive host; else they are taken back, and whoever made them is
                told at once.
        """
        edits = [core_of(target).take() for target in targets]

        def update() -> Awaitable[tuple[ObjectState, ...]]:
            return self._data.update(self._space_id, edits, step=step)

        try:
            states = await (self._ask(update) if is_patient else update())
        except DxosError as error:
            _log.warning("Edits of %d objects of space %s were refused: %s", len(targets), self._space_id, error)
            self._schemas.refused(targets)
            self._roll_back(targets)
            return error
        self._tell([target for target, state in zip(targets, states, strict=True) if core_of(target).settle(state)])
        return None

    def _roll_back(self, targets: list[EchoObject]) -> None:
        """Give objects the state that the host has."""
        for target in targets:
            self._unsent.pop(target.id, None)
        changed = [target for target in targets if core_of(target).roll_back()]
        for target in changed:
            if core_of(target).home is None:
                self._objects.pop(target.id, None)
                self._followed.pop(target.id, None)
        self._tell(changed)

    # --- Receiving ---

    def _receive(self, states: tuple[ObjectState, ...]) -> None:
        for state in states:
            late = self._schemas.learn(state.row)
            if late is not None:
                self._live.rewrite(self._schemas.expanded)
                self._spawn(lambda dxn=late: self._find_late(dxn))  # type: ignore[misc]
        known, strange = [], []
        for state in states:
            if self._readings:
                self._newer[state.row.object_id] = state
            target = self._objects.get(state.row.object_id)
            if target is None:
                strange.append(state)
            elif core_of(target).receive(state):
                known.append(target)
        # An object nobody holds is made only if a query wants it.
        for state in strange:
            if self._live.wanted(state.row):
                known.append(self._hold(state))
        self._tell(known)

    def _hold(self, state: ObjectState) -> EchoObject:
        target = self._objects.get(state.row.object_id)
        if target is None:
            core = Core(state.row.object_id, {})
            core.home, core.loaded = self, False
            target = self._objects[core.object_id] = object_of(core)
        core_of(target).receive(state)
        newer = self._newer.get(state.row.object_id)
        if newer is not None:
            core_of(target).receive(newer)
        self._retype([target])
        return target

    def _tell(self, changed: Sequence[EchoObject]) -> None:
        self._retype(changed)
        for target in changed:
            core_of(target).tell(target)
        if changed and self._live:
            self._live.consider(changed)

    async def _fetch(self, object_ids: Sequence[str]) -> list[EchoObject]:
        if not object_ids:
            return []
        with self._reading():
            return await self._take_in(await self._data.get(self._space_id, object_ids))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """While answers of the host are awaited and taken in: keep what is newer than they are."""
        self._readings += 1
        try:
            yield
        finally:
            self._readings -= 1
            if not self._readings:
                self._newer.clear()

    async def _take_in(self, states: Sequence[ObjectState], *, is_news: bool = False) -> list[EchoObject]:
        """Objects for any number of the host's states; `is_news`: queries hear also of those nobody held."""
        result: list[EchoObject] = []
        pace = Pace()
        for start in range(0, len(states), UPDATE_OBJECTS_MAX):
            result += self._merge(states[start : start + UPDATE_OBJECTS_MAX], is_news=is_news)
            if pace.is_due:
                await pace.rest()
        return result

    def _merge(self, states: Iterable[ObjectState], *, is_news: bool = False) -> list[EchoObject]:
        """Objects for the host's states; who holds them hears of what is new in them."""
        result, changed = [], []
        for state in states:
            target = self._objects.get(state.row.object_id)
            if target is None:
                target = self._hold(state)
                result.append(target)
                if is_news:
                    changed.append(target)
                continue
            result.append(target)
            if core_of(target).receive(state):
                changed.append(target)
        self._tell(changed)
        return result

    async def execute(self, query: PlainQuery) -> list[EchoObject]:
        """The objects that a query finds, own edits included."""
        await self._settle()
        expanded = self._schemas.expanded(query)
        with self._reading():
            found = await self._take_in(await self._query.execute(self._space_id, expanded))
            await self._fetch_references(found)
            if self._newer:
                # What changed while a long answer was taken in need not match any more.
                found = [one for one in found if one.id not in self._newer or wants(expanded, core_of(one).row())]
        return found

    async def _fetch_references(self, sources: Iterable[EchoObject]) -> None:
        """Load what these refer to, one step far, so that reading a reference finds the object."""
        wanted: dict[str, EchoObject] = {}
        pace = Pace()
        for source in sources:
            if pace.is_due:
                await pace.rest()
            core = core_of(source)
            for object_id in references_in([core.data, *core.ends_stored()]):
                if object_id not in core.references:
                    target = self._objects.get(object_id)
                    if target is None:
                        shell = Core(object_id, {})
                        shell.home, shell.loaded = self, False
                        target = self._objects[object_id] = object_of(shell)
                    core.references[object_id] = target
                if not core_of(core.references[object_id]).loaded:
                    wanted[object_id] = core.references[object_id]
        if wanted:
            await self._fetch(list(wanted))
            for target in wanted.values():
                if not core_of(target).loaded:
                    core_of(target).missing = True

    async def search(self, query: PlainQuery) -> list[Hit[EchoObject]]:
        """What a query's search finds, the best first, own edits included."""
        await self._settle()
        with self._reading():
            hits = await self._query.search(self._space_id, self._schemas.expanded(query))
            found = await self._take_in([one.state for one in hits])
            await self._fetch_references(found)
        return [Hit(target, one.score, one.snippet) for target, one in zip(found, hits, strict=True)]

    async def explain(self, query: PlainQuery) -> contract.QueryPlan:
        """How the host answers a query."""
        return await self._query.explain(self._space_id, self._schemas.expanded(query))

    async def count(self, query: PlainQuery) -> int:
        """How many objects a query finds, own edits included."""
        await self._settle()
        return await self._query.count(self._space_id, self._schemas.expanded(query))

    def follow(
        self,
        query: PlainQuery,
        callback: Callable[[QueryUpdate[Any]], object],
        ended: Callable[[], object] | None = None,
    ) -> Subscription:
        """Tell `callback` of a query's results, now and after each change, and `ended` that the client was closed."""
        self._opener.check()
        if self._closed:
            raise ClosedError("The client was closed.")
        live = LiveQuery(self, self._schemas.expanded(query), callback, self._spawn, ended)
        self._live.add(live)

        async def begin() -> None:
            await live.begin()
            self._live.begun(live)

        self._spawn(begin)

        def end() -> None:
            live.active = False
            self._live.discard(live)

        return Subscription(end)

    def __repr__(self) -> str:
        return f"<Database {self._space_id[:8]} {len(self._objects)} objects held, {len(self._unsent)} unsent>"


async def _each(values: Iterable[object]) -> AsyncIterator[object]:
    for value in values:
        yield value


def plain_query(wanted: Wanted, filters: Iterable[Filter], equalities: Mapping[str, Any]) -> PlainQuery:
    """The query for what an application asks."""
    base = wanted if isinstance(wanted, PlainQuery) else PlainQuery()
    terms = [base.filter]
    if isinstance(wanted, type):
        if wanted is not EchoObject:
            kind = object_class(wanted)
            terms.append(HasType(kind.type_name.dxn))
            equalities = dict(encode_equalities(kind, equalities))
    elif isinstance(wanted, Mapping):
        equalities = {**wanted, **equalities}
    elif wanted is not None and not isinstance(wanted, PlainQuery):
        terms.append(wanted)
    return replace(base, filter=joined((*terms, *filters), equalities))
