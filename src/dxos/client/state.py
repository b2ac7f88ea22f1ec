"""The state behind one object: the host's row, own edits that are on their way, and what they make together.

    free ──add──▶ creating ──take──▶ under way ──settle──▶ kept ──edits──▶ unsent ──take──▶ under way ──▶ …
     ▲                                   └──roll_back: a new object is free again, a kept one is the host's row

Invariants:
1. `data` is the host's row with all own edits, in order.
2. While an own edit is on its way, rows of this object wait: the answer to the edit holds them too, so nothing is ever
   seen twice or undone for a moment.
3. Data that came from the host is shared, and copied before the first change.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol, final
from weakref import ref

from dxos.client.observable import Signal
from dxos.echo.mutation import Mutation, apply_to_row, check, joined
from dxos.echo.revision import Conflict, Revision
from dxos.echo.rows import ObjectRow, Path, reference, same_value
from dxos.errors import InvalidValueError, ObjectNotFoundError, UsageError
from dxos.keys.ids import make_object_id
from dxos.services.contract import Edit, ObjectState

if TYPE_CHECKING:
    from dxos.client.object import EchoObject

_RANDOM_BYTES: Final = 10
_NODES_SWEPT_MIN: Final = 16


@final
class _ObjectIds:
    """Ids that sort in the order in which this process made them, also within one millisecond."""

    def __init__(self) -> None:
        self._ms, self._random = 0, 0

    def next(self) -> str:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > self._ms:
            # The highest bit stays clear, so that counting up never overflows.
            self._ms, self._random = now_ms, int.from_bytes(os.urandom(_RANDOM_BYTES), "big") >> 1
        else:
            self._random += 1
        return make_object_id(self._ms, self._random.to_bytes(_RANDOM_BYTES, "big"))


object_ids: Final = _ObjectIds()


_NO_META: Final[dict[str, Any]] = {}


class Home(Protocol):
    """What an object asks of the database it is in."""

    @property
    def space_id(self) -> str: ...

    def check_writable(self) -> None:
        """Raise if nothing can be written now."""
        ...

    def edited(self, target: EchoObject) -> None:
        """Say that the object has edits to send."""
        ...

    def followed(self, target: EchoObject) -> None:
        """Say that the object has a first subscriber, or has lost its last one."""
        ...

    def add(self, value: EchoObject) -> EchoObject: ...

    def refer(self, object_id: str) -> EchoObject:
        """The object of that id, perhaps not loaded yet."""
        ...

    async def load(self, target: EchoObject) -> None: ...

    async def revisions_of(self, target: EchoObject, limit: int) -> tuple[Revision, ...]: ...

    async def conflicts_of(self, target: EchoObject) -> tuple[Conflict, ...]: ...

    async def undo(self, target: EchoObject | None = None) -> bool: ...

    async def redo(self, target: EchoObject | None = None) -> bool: ...


class Place(Protocol):
    """A map or list inside an object that the application holds."""

    target: Any

    def find(self) -> Path | None:
        """Where it is in the object now; None if it was taken out."""
        ...


class Owner:
    """What an object is to the parts inside it: the holder of the state."""

    __slots__ = ("__weakref__", "_core")

    _core: Core


@final
class Core:
    """The state behind one object. The object refers to it and not the reverse, so an unused object goes at once."""

    __slots__ = (
        "_changed",
        "_nodes",
        "_references",
        "creating",
        "data",
        "deferred",
        "deleted",
        "ends",
        "home",
        "loaded",
        "meta",
        "missing",
        "object_id",
        "owned",
        "state",
        "type",
        "under_way",
        "unsent",
    )

    def __init__(self, object_id: str, data: dict[str, Any], type: str | None = None) -> None:
        self.object_id = object_id
        self.type = type
        self.home: Home | None = None
        self.state: ObjectState | None = None  # The host's; None until it has told us.
        self.data = data
        self.owned = True  # Whether `data` is ours to change; the host's rows are shared.
        self.loaded = True
        self.missing = False  # The host was asked, and knows no such object.
        self.deleted = False
        self.ends: tuple[str, str] | None = None  # The DXNs of source and target of a relation made here.
        self.meta = _NO_META  # Replaced, never changed.
        self.unsent: list[Mutation] | None = None
        self.creating = False  # The host does not have the object; what is to be sent is the whole of it.
        self.under_way = False
        self.deferred: ObjectState | None = None  # The newest row that came while an own edit was under way.
        self._references: dict[str, EchoObject] | None = None
        self._nodes: dict[int, ref[Place]] | None = None
        self._changed: Signal[EchoObject] | None = None

    # These are made when first needed: most of many objects are only read, and have none of them.

    @property
    def references(self) -> dict[str, EchoObject]:
        """What this object refers to, by id, which is alive while it is."""
        if self._references is None:
            self._references = {}
        return self._references

    # The maps and lists inside that somebody holds, by the identity of what they show. A `WeakValueDictionary` would
    # cost each object a kilobyte, and the garbage collector eight things to look at.

    def node_of(self, part: dict[str, Any] | list[Any]) -> Place | None:
        """The map or list for a part of the data, if somebody holds it."""
        found = None if self._nodes is None else self._nodes.get(id(part))
        return None if found is None else found()

    def hold(self, node: Place) -> None:
        """Find this map or list again for as long as somebody holds it."""
        if self._nodes is None:
            self._nodes = {}
        count = len(self._nodes)
        if count >= _NODES_SWEPT_MIN and not count & (count - 1):  # Each time that they are twice as many.
            self._nodes = {part: held for part, held in self._nodes.items() if held() is not None}
        self._nodes[id(node.target)] = ref(node)

    def held_nodes(self) -> list[Place]:
        """The maps and lists inside that somebody holds."""
        found = (held() for held in (self._nodes or {}).values())
        return [node for node in found if node is not None]

    @property
    def changed(self) -> Signal[EchoObject]:
        """Told after each change."""
        if self._changed is None:
            self._changed = Signal()
        return self._changed

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody is told after each change."""
        return self._changed is not None and len(self._changed) > 0

    def tell(self, target: EchoObject) -> None:
        """Tell whoever wants to know that the object has changed."""
        if self._changed is not None:
            self._changed.emit(target)

    # --- Reading ---

    def check_loaded(self) -> None:
        """Raise unless the properties are here."""
        if self.loaded:
            return
        if self.missing:
            raise ObjectNotFoundError(f"There is no object {self.object_id} in this space (yet).")
        raise UsageError(f"Object {self.object_id} is not loaded yet: `await obj.load()` first.")

    def row(self) -> ObjectRow:
        """The object as the application sees it; shares `data`."""
        if self.state is not None:
            base = self.state.row
            return ObjectRow(
                self.object_id, base.kind, self.type, self.deleted, base.source, base.target, self.meta, self.data
            )
        return self._made(self.meta, self.data)

    def _made(self, meta: dict[str, Any], data: dict[str, Any]) -> ObjectRow:
        """The row of an object that was made here."""
        if self.ends is None:
            return ObjectRow(self.object_id, type=self.type, deleted=self.deleted, meta=meta, data=data)
        return ObjectRow(self.object_id, "relation", self.type, self.deleted, *self.ends, meta, data)

    def ends_stored(self) -> list[dict[str, str]]:
        """The references of a relation to what it connects."""
        return [reference(dxn) for dxn in self.source_and_target if dxn is not None]

    @property
    def source_and_target(self) -> tuple[str | None, str | None]:
        """The DXNs that a relation connects; None for other objects."""
        if self.state is not None:
            return self.state.row.source, self.state.row.target
        return self.ends or (None, None)

    # --- Writing ---

    def begin(self, mutation: Mutation) -> None:
        """Check an edit and make the data changeable; the caller changes it, then calls `end`."""
        self.check_loaded()
        check(mutation)
        if self.home is not None:
            self.home.check_writable()
        if not self.owned:
            self.replace(copy.deepcopy(self.data), owned=True)

    def end(self, mutation: Mutation, target: EchoObject) -> None:
        """Note the edit for the host."""
        if self.home is None:
            return
        # Before an object is sent for the first time, it is sent as it is then.
        if not (self.creating and not self.under_way):
            if not self.unsent:
                self.unsent = [mutation]
            elif (both := joined(self.unsent[-1], mutation)) is not None:
                self.unsent[-1] = both
            else:
                self.unsent.append(mutation)
        self.home.edited(target)

    def take(self) -> Edit:
        """What to send now; until `settle` or `roll_back`, it is under way."""
        self.under_way = True
        if self.creating:
            data, meta = copy.deepcopy(self.data), copy.deepcopy(self.meta)
            return Edit(self.object_id, create=self._made(meta, data))
        mutations, self.unsent = tuple(self.unsent or ()), None
        heads = self.state.heads if self.state is not None else ()
        return Edit(self.object_id, mutations=mutations, base_heads=heads)

    def settle(self, answer: ObjectState) -> bool:
        """The host has applied what was under way; whether the application sees a difference."""
        self.under_way, self.creating = False, False
        newest = answer
        for other in (self.deferred, self.state):
            if other is not None and other.version > newest.version:
                newest = other
        self.deferred = None
        return self._adopt(newest)

    def roll_back(self) -> bool:
        """The host has refused what was under way: back to what it has; whether the application sees a difference."""
        self.under_way, self.unsent = False, None
        if self.creating:
            # As before it was added: the application may correct it and add it again.
            self.home, self.creating = None, False
            return True
        newest, self.deferred = self.deferred or self.state, None
        return newest is not None and self._adopt(newest)

    def receive(self, state: ObjectState) -> bool:
        """A row from the host; whether the application sees a difference now."""
        if self.state is not None and state.version <= self.state.version:
            return False
        if self.under_way or self.unsent or self.creating:
            if self.deferred is None or state.version > self.deferred.version:
                self.deferred = state
            return False
        return self._adopt(state)

    def _adopt(self, state: ObjectState) -> bool:
        row, self.state = state.row, state
        was_loaded, self.loaded, self.missing = self.loaded, True, False
        owned = False
        if self.unsent:
            row, self.unsent = _replay(row, self.unsent)
            owned = True
        same = was_loaded and same_value(row.data, self.data) and row.type == self.type
        self.type = row.type
        before, self.meta = self.meta, row.meta
        # A row from a document has keys, if none; what was added here, and is told of already, need not have any.
        if same and row.deleted == self.deleted and same_value({"keys": [], **row.meta}, {"keys": [], **before}):
            return False
        self.deleted = row.deleted
        if not same:
            self.replace(row.data, owned=owned)
        return True

    def replace(self, data: dict[str, Any], *, owned: bool) -> None:
        """Put other data in place; nested maps and lists that are in use go on with what is at their place there."""
        places = [(node, node.find()) for node in self.held_nodes()]
        before, moves = self.data, _Moves()
        self._nodes, self.data, self.owned = None, data, owned
        for node, path in places:
            found = None if path is None else moves.follow(before, data, path)
            if found is not None and type(found) is type(node.target):
                node.target = found
                self.hold(node)


def core_of(target: EchoObject) -> Core:
    """The state behind an object; for this package only."""
    return target._core


def _replay(row: ObjectRow, mutations: Iterable[Mutation]) -> tuple[ObjectRow, list[Mutation]]:
    """The row with the mutations that still fit it, and those; a peer may have removed what the others change."""
    fitting = []
    for mutation in mutations:
        try:
            row = apply_to_row(row, [mutation])
        except InvalidValueError:
            continue
        fitting.append(mutation)
    return row, fitting


@final
class _Moves:
    """Where the parts of some data are in its successor: elements of a list move when a peer inserts before them."""

    def __init__(self) -> None:
        # By the identity of the old list, which outlives this: common elements at the start, and at the end.
        self._common: dict[int, tuple[int, int]] = {}

    def follow(self, old: Any, new: Any, path: Path) -> Any:
        """What the part of `old` at `path` is in `new`; None if it is gone, or nobody can tell."""
        for step in path:
            if isinstance(old, dict) and isinstance(new, dict) and isinstance(step, str):
                old, new = old[step], new.get(step)
            elif isinstance(old, list) and isinstance(new, list) and isinstance(step, int):
                moved = self._moved(old, new, step)
                if moved is None:
                    return None
                old, new = old[step], new[moved]
            else:
                return None
        return new

    def _moved(self, old: list[Any], new: list[Any], index: int) -> int | None:
        start, end = self._common.get(id(old)) or self._compare(old, new)
        if index < start or len(old) == len(new):
            return index
        if index >= len(old) - end:
            return index + len(new) - len(old)
        for moved in range(start, len(new) - end):
            if same_value(old[index], new[moved]):
                return moved
        return None

    def _compare(self, old: list[Any], new: list[Any]) -> tuple[int, int]:
        start, end, shorter = 0, 0, min(len(old), len(new))
        while start < shorter and same_value(old[start], new[start]):
            start += 1
        while end < shorter - start and same_value(old[-1 - end], new[-1 - end]):
            end += 1
        self._common[id(old)] = start, end
        return start, end
