"""`EchoObject`: an object of a space that feels like a Python object, and whose edits become mutations.

    milk.done = True ──▶ check, change the local data, note Put(("done",), True) ──▶ database: one update per turn
    host's row ────────▶ becomes the local data, unless own edits are under way: then when they are answered

Invariants:
1. What is read is the host's row with all own edits, in order; an edit is readable on the next line.
2. An edit that cannot be stored raises at its line, and changes nothing.
3. While an own edit is under way, rows of this object wait: the answer to the edit holds them too, so nothing is ever
   seen twice or undone for a moment.
4. A nested map or list stays itself when its neighbours move; taken out of the object, it can be read and not changed.
"""

from __future__ import annotations

import copy
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, Final, Protocol, SupportsIndex, TypeVar, cast, final, overload
from weakref import WeakValueDictionary

from dxos.client.observable import Signal, Subscription
from dxos.echo.mutation import (
    Delete,
    Insert,
    Mutation,
    Put,
    Remove,
    SetDeleted,
    SetMeta,
    Splice,
    apply_to_row,
    check,
    check_value,
)
from dxos.echo.rows import ObjectRow, Path, reference, reference_dxn, same_value
from dxos.errors import InvalidValueError, ObjectNotFoundError, UsageError
from dxos.keys.ids import make_object_id
from dxos.limits import VALUE_DEPTH_MAX
from dxos.services.contract import Edit, ObjectState

T = TypeVar("T")

_DXN: Final = re.compile(r"dxn:echo:(@|B[A-Z2-7]{32}):([0-9A-HJKMNP-TV-Z]{26})")
_RANDOM_BYTES: Final = 10
_MISSING: Final = object()


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


_object_ids: Final = _ObjectIds()


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

    def add(self, value: EchoObject) -> EchoObject: ...

    def refer(self, object_id: str) -> EchoObject:
        """The object of that id, perhaps not loaded yet."""
        ...

    async def load(self, target: EchoObject) -> None: ...


@final
class Core:
    """The state behind one object. The object refers to it and not the reverse, so an unused object goes at once."""

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
        self.meta: dict[str, Any] = {}
        self.unsent: list[Mutation] = []
        self.sent: list[Mutation] = []
        self.creating = False  # The host does not have the object; what is to be sent is the whole of it.
        self.under_way = False
        self.deferred: ObjectState | None = None  # The newest row that came while an own edit was under way.
        self.references: dict[str, EchoObject] = {}  # Keeps what this object refers to alive while it is.
        self.nodes: WeakValueDictionary[int, Node] = WeakValueDictionary()
        self.changed: Signal[EchoObject] = Signal()

    # --- Reading ---

    def check_loaded(self) -> None:
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
                self.object_id, base.kind, base.type, self.deleted, base.source, base.target, self.meta, self.data
            )
        return ObjectRow(self.object_id, type=self.type, deleted=self.deleted, meta=self.meta, data=self.data)

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
            self.unsent.append(mutation)
        self.home.edited(target)

    def take(self) -> Edit:
        """What to send now; until `settle` or `roll_back`, it is under way."""
        self.under_way = True
        if self.creating:
            data, meta = copy.deepcopy(self.data), copy.deepcopy(self.meta)
            return Edit(
                self.object_id,
                create=ObjectRow(self.object_id, type=self.type, deleted=self.deleted, meta=meta, data=data),
            )
        self.sent, self.unsent = self.unsent, []
        heads = self.state.heads if self.state is not None else ()
        return Edit(self.object_id, mutations=tuple(self.sent), base_heads=heads)

    def settle(self, answer: ObjectState) -> bool:
        """The host has applied what was under way; whether the application sees a difference."""
        self.under_way, self.creating, self.sent = False, False, []
        newest = answer
        for other in (self.deferred, self.state):
            if other is not None and other.version > newest.version:
                newest = other
        self.deferred = None
        return self._adopt(newest)

    def roll_back(self) -> bool:
        """The host has refused what was under way: back to what it has; whether the application sees a difference."""
        self.under_way, self.sent, self.unsent = False, [], []
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
        self.type = row.type
        was_loaded, self.loaded, self.missing = self.loaded, True, False
        owned = False
        if self.unsent:
            row, self.unsent = _replay(row, self.unsent)
            owned = True
        same = was_loaded and same_value(row.data, self.data)
        if same and row.deleted == self.deleted and same_value(row.meta, self.meta):
            return False
        self.deleted, self.meta = row.deleted, row.meta
        if not same:
            self.replace(row.data, owned=owned)
        return True

    def replace(self, data: dict[str, Any], *, owned: bool) -> None:
        """Put other data in place; nested maps and lists that are in use go on with what is at their place there."""
        places = []
        for node in list(self.nodes.values()):
            path = node.find()
            if path is not None:
                places.append((node, path))
        self.nodes.clear()
        self.data, self.owned = data, owned
        for node, path in places:
            found: Any = data
            for step in path:
                found = _step(found, step)
            if type(found) is type(node.target):
                node.target = found
                self.nodes[id(found)] = node


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


def _step(value: Any, step: str | int) -> Any:
    if isinstance(value, dict) and isinstance(step, str):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


class Node:
    """A map or list inside an object: what it is (`target`), and in what it is (`parent`)."""

    __slots__ = ("__weakref__", "_object", "parent", "target")

    _object: EchoObject
    parent: Node | None
    target: Any

    def __init__(self, owner: EchoObject, parent: Node | None, target: Any) -> None:
        # Past the `__setattr__` of maps, which makes properties of the data.
        object.__setattr__(self, "_object", owner)
        object.__setattr__(self, "parent", parent)
        object.__setattr__(self, "target", target)

    def find(self) -> Path | None:
        """Where this is in the object now; None if it was taken out."""
        if self.parent is None:
            return () if self.target is core_of(self._object).data else None
        path = self.parent.find()
        if path is None:
            return None
        held = self.parent.target
        for step, value in held.items() if isinstance(held, dict) else enumerate(held):
            if value is self.target:
                return (*path, step)
        return None

    def path(self) -> Path:
        path = self.find()
        if path is None:
            raise UsageError("This part was taken out of its object, or replaced; read it from the object again.")
        return path

    def edit(self, mutation: Mutation, change: Callable[[Any], None]) -> None:
        """Check, change the target, and note the mutation."""
        core = core_of(self._object)
        core.begin(mutation)
        change(self.target)
        core.end(mutation, self._object)

    def shown(self, value: Any) -> Any:
        """A stored value as the application sees it."""
        if not isinstance(value, dict | list):
            return value
        core = core_of(self._object)
        dxn = reference_dxn(value)
        if dxn is not None:
            found = _referred(core, dxn)
            if found is not None:
                return found
        node = core.nodes.get(id(value))
        if node is None:
            node = (LiveMap if isinstance(value, dict) else LiveList)(self._object, self, value)
            core.nodes[id(value)] = node
        return node

    def stored(self, value: Any, path: Path) -> Any:
        """An application's value as it is stored: plain, and shared with nobody."""
        return plain(value, core_of(self._object), path)


def _referred(core: Core, dxn: str) -> EchoObject | None:
    match = _DXN.fullmatch(dxn)
    if match is None:
        return None
    space, object_id = match.groups()
    found = core.references.get(object_id)
    if found is None and core.home is not None and space in ("@", core.home.space_id):
        found = core.references[object_id] = core.home.refer(object_id)
    return found


def references_in(data: Any) -> Iterator[str]:
    """The ids of the objects that some data refers to by `@`, once for each reference."""
    dxn = reference_dxn(data)
    if dxn is not None:
        match = _DXN.fullmatch(dxn)
        if match is not None and match[1] == "@":
            yield match[2]
    elif isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            if isinstance(value, dict | list):
                yield from references_in(value)


def plain(value: Any, core: Core | None, path: Path = ()) -> Any:
    """A copy of a value with nothing live in it: objects become references, and join the database of `core`."""
    match value:
        case EchoObject():
            return _refer_to(value, core, path)
        case Node():
            return copy.deepcopy(value.target)
        case _ if len(path) > VALUE_DEPTH_MAX + 1:
            # A cycle, most likely; whoever checks the value refuses it.
            return value
        case Mapping():
            return {key: plain(inner, core, (*path, key)) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner, core, (*path, index)) for index, inner in enumerate(value)]
    return value


def _refer_to(target: EchoObject, core: Core | None, path: Path) -> dict[str, str]:
    other = core_of(target)
    if core is not None:
        if core.home is not None and other.home is None:
            core.home.add(target)
        elif core.home is not other.home and other.home is not None:
            place = ".".join(map(str, path)) or "the object"
            raise InvalidValueError(f"{place}: an object of another space cannot be referred to")
        core.references[other.object_id] = target
    return reference(f"dxn:echo:@:{other.object_id}")


@final
class LiveMap(Node, MutableMapping[str, Any]):
    """A map inside an object: a `dict` whose keys are attributes too, as far as they are no methods of `dict`."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        return self.shown(self.target[key])

    def __setitem__(self, key: str, value: Any) -> None:
        path = (*self.path(), key)
        if isinstance(value, Node) and self.target.get(key, _MISSING) is value.target:
            return  # `obj.tags += [...]` ends with an assignment of what is there.
        value = self.stored(value, path)
        self.edit(Put(path, value), lambda target: target.__setitem__(key, copy.deepcopy(value)))

    def __delitem__(self, key: str) -> None:
        if key not in self.target:
            raise KeyError(key)
        self.edit(Delete((*self.path(), key)), lambda target: target.__delitem__(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self.target)

    def __len__(self) -> int:
        return len(self.target)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no property {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _NODE_SLOTS:
            object.__setattr__(self, name, value)
        elif name.startswith("_") or hasattr(type(self), name):
            raise AttributeError(f"{name!r} is no free name; write [{name!r}] for a property of that name")
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"there is no property {name!r}") from None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, LiveMap):
            return bool(self.target == other.target)
        return bool(self.target == plain(other, None)) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """A copy as plain data; references are `{"/": DXN}`."""
        return cast(dict[str, Any], copy.deepcopy(self.target))

    def splice(self, key: str, index: int, delete_count: int = 0, insert: str = "") -> None:
        """Replace characters of the text at `key`, so that peers' edits beside it are kept.

        Args:
            key: Of a text.
            index: Where to begin, in characters.
            delete_count: How many characters go.
            insert: What comes in their place.

        Raises:
            InvalidValueError: There is no text, or it is shorter.
        """
        path = (*self.path(), key)
        text = self.target.get(key)
        if not isinstance(text, str):
            raise InvalidValueError(f"{key}: there is no text at this place")
        if min(index, delete_count) < 0 or index + delete_count > len(text):
            raise InvalidValueError(f"{key}: the text has {len(text)} characters")
        after = text[:index] + insert + text[index + delete_count :]
        self.edit(Splice(path, index, delete_count, insert), lambda target: target.__setitem__(key, after))

    def __repr__(self) -> str:
        return repr(self.target)


@final
class LiveList(Node, MutableSequence[Any]):
    """A list inside an object: a `list`, slices included."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        if isinstance(index, slice):
            return [self.shown(value) for value in self.target[index]]
        return self.shown(self.target[index])

    @overload
    def __setitem__(self, index: SupportsIndex, value: Any) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Any]) -> None: ...
    def __setitem__(self, index: SupportsIndex | slice, value: Any) -> None:
        if isinstance(index, slice):
            self._set_slice(index, list(value))
            return
        place = self._place(index)
        path = (*self.path(), place)
        if isinstance(value, Node) and self.target[place] is value.target:
            return
        value = self.stored(value, path)
        self.edit(Put(path, value), lambda target: target.__setitem__(place, copy.deepcopy(value)))

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        if isinstance(index, slice):
            # From the end, so that what is still to go stays at its place.
            places = sorted(range(*index.indices(len(self))), reverse=True)
            if places and places[0] - places[-1] + 1 == len(places):
                self._remove(places[-1], len(places))
                return
            for place in places:
                self._remove(place, 1)
            return
        self._remove(self._place(index), 1)

    def __len__(self) -> int:
        return len(self.target)

    def __iter__(self) -> Iterator[Any]:
        for value in self.target:
            yield self.shown(value)

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """Insert one value before `index`; as for a list, any index is allowed."""
        place = slice(index, None).indices(len(self))[0]
        self._insert(place, [value])

    def extend(self, values: Iterable[Any]) -> None:
        """Append values, as one edit."""
        self._insert(len(self), list(values))

    def clear(self) -> None:
        """Remove all elements, as one edit."""
        self._remove(0, len(self))

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sort in place: every element is removed and inserted again, so a peer's edits of them may be lost."""
        self[:] = sorted(self, key=key, reverse=reverse)

    def copy(self) -> list[Any]:
        """A plain list of the elements."""
        return list(self)

    def _set_slice(self, index: slice, values: list[Any]) -> None:
        start, stop, step = index.indices(len(self))
        if step == 1:
            # Before anything is removed, because the values may be elements of this list.
            values = [self.stored(value, (*self.path(), start)) for value in values]
            for value in values:
                check_value(value, (*self.path(), start))
            self._remove(start, max(stop - start, 0))
            self._insert(start, values)
            return
        places = range(start, stop, step)
        if len(places) != len(values):
            raise ValueError(f"{len(values)} values for a slice of {len(places)}")
        for place, value in zip(places, [self.stored(value, self.path()) for value in values], strict=True):
            self[place] = value

    def _insert(self, place: int, values: list[Any]) -> None:
        path = self.path()
        values = [self.stored(value, (*path, place)) for value in values]
        if values:
            self.edit(
                Insert(path, place, tuple(values)),
                lambda target: target.__setitem__(slice(place, place), copy.deepcopy(values)),
            )

    def _remove(self, place: int, count: int) -> None:
        if count:
            self.edit(Remove(self.path(), place, count), lambda target: target.__delitem__(slice(place, place + count)))

    def _place(self, index: SupportsIndex) -> int:
        place = index.__index__()
        if place < 0:
            place += len(self)
        if not 0 <= place < len(self):
            raise IndexError("list index out of range")
        return place

    def __eq__(self, other: object) -> bool:
        if isinstance(other, LiveList):
            return bool(self.target == other.target)
        return bool(self.target == plain(other, None)) if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Sequence[Any]) -> list[Any]:
        return [*self, *other]

    def __radd__(self, other: Sequence[Any]) -> list[Any]:
        return [*other, *self]

    def to_list(self) -> list[Any]:
        """A copy as plain data; references are `{"/": DXN}`."""
        return cast(list[Any], copy.deepcopy(self.target))

    def __repr__(self) -> str:
        return repr(self.target)


_NODE_SLOTS: Final = frozenset({"_object", "parent", "target"})


@final
class EchoObject:
    """An object of a space: its properties are attributes and items, nested maps and lists are live too.

    Make one with a mapping and hand it to `space.db.add`, or get one from `add`, a query or a reference. Property names
    that are taken here (`id`, `update`, …) and those that begin with `_` are reached as items: `obj["update"]`.

    There is no `undefined`: `None` is JavaScript's null, and `del obj.title` removes the property.

    Args:
        data: The properties: texts, numbers, booleans, None, mappings, lists, and objects, which become references.
        type: `dxn:type:<name>:<version>`; None for an object without schema.

    Raises:
        InvalidValueError: A value that cannot be stored; names where it is.
    """

    __slots__ = ("__weakref__", "_core")

    _core: Core

    def __init__(self, data: Mapping[str, Any] | None = None, *, type: str | None = None, **properties: Any) -> None:
        core = Core(_object_ids.next(), {}, type)
        object.__setattr__(self, "_core", core)
        given = plain({**(data or {}), **properties}, core)
        check_value(given)
        _check_names(given)
        core.data = given

    @classmethod
    def _of(cls, core: Core) -> EchoObject:
        self = cls.__new__(cls)
        object.__setattr__(self, "_core", core)
        return self

    def _root(self) -> LiveMap:
        """The map of all properties; made anew when needed, because it refers to the object."""
        core = self._core
        core.check_loaded()
        node = core.nodes.get(id(core.data))
        if node is None:
            node = core.nodes[id(core.data)] = LiveMap(self, None, core.data)
        assert isinstance(node, LiveMap)
        return node

    # --- What every object has ---

    @property
    def id(self) -> str:
        """The object's id: 26 characters, in the order of creation."""
        return self._core.object_id

    @property
    def type(self) -> str | None:
        """`dxn:type:<name>:<version>`; None for an object without schema."""
        return self._core.type

    @property
    def meta(self) -> dict[str, Any]:
        """A copy of the meta data, such as `keys`, the ids under which other systems know this object."""
        self._core.check_loaded()
        return copy.deepcopy(self._core.meta)

    @property
    def deleted(self) -> bool:
        """Whether the object was removed; `db.add(obj)` brings it back."""
        self._core.check_loaded()
        return self._core.deleted

    @property
    def loaded(self) -> bool:
        """Whether the properties are here; only an object that was reached by a reference may lack them."""
        return self._core.loaded

    async def load(self) -> EchoObject:
        """Wait for the properties of an object that was reached by a reference.

        Raises:
            ObjectNotFoundError: The space has no such object, at least not yet.
        """
        if not self._core.loaded and self._core.home is not None:
            await self._core.home.load(self)
        self._core.check_loaded()
        return self

    def update(self, values: Mapping[str, Any] | None = None, /, **properties: Any) -> None:
        """Set several properties."""
        for name, value in {**(values or {}), **properties}.items():
            self[name] = value

    def set_meta(self, key: str, value: Any) -> None:
        """Set one key of the meta data."""
        core = self._core
        mutation = SetMeta(key, plain(value, core, ("meta", key)))
        core.begin(mutation)
        core.meta = {**core.meta, key: copy.deepcopy(mutation.value)}
        core.end(mutation, self)

    def splice(self, place: str | Path, index: int, delete_count: int = 0, insert: str = "") -> None:
        """Replace characters of a text, so that peers' edits beside it are kept.

        Args:
            place: The property's name, or the path to it; the last step is a name.
            index: Where to begin, in characters.
            delete_count: How many characters go.
            insert: What comes in their place.

        Raises:
            InvalidValueError: There is no text at that place, or it is shorter.
        """
        holder: Any = self._root()
        *steps, last = (place,) if isinstance(place, str) else place
        for step in steps:
            holder = holder[step]
        if not isinstance(holder, LiveMap) or not isinstance(last, str):
            raise InvalidValueError(f"{place}: there is no text at this place")
        holder.splice(last, index, delete_count, insert)

    def subscribe(self, callback: Callable[[EchoObject], object]) -> Subscription:
        """Have `callback` called after each change of this object, whoever made it; own edits once per turn."""
        return self._core.changed.subscribe(callback)

    def to_dict(self) -> dict[str, Any]:
        """A copy of the properties as plain data; references are `{"/": DXN}`."""
        self._core.check_loaded()
        return copy.deepcopy(self._core.data)

    def to_json(self) -> dict[str, Any]:
        """A copy of the whole object in the original's form: `@id`, `@type`, `@meta`, `@deleted`, and properties."""
        result: dict[str, Any] = {"@id": self.id}
        if self.type is not None:
            result["@type"] = {"/": self.type}
        if self.deleted:
            result["@deleted"] = True
        if self._core.meta:
            result["@meta"] = self.meta
        return {**result, **self.to_dict()}

    # --- Properties ---

    def __getitem__(self, name: str) -> Any:
        self._core.check_loaded()
        value = self._core.data[name]
        return self._root().shown(value) if isinstance(value, dict | list) else value

    def __setitem__(self, name: str, value: Any) -> None:
        root = self._root()
        _check_names((name,))
        root[name] = value

    def __delitem__(self, name: str) -> None:
        del self._root()[name]

    def __contains__(self, name: object) -> bool:
        self._core.check_loaded()
        return name in self._core.data

    def __iter__(self) -> Iterator[str]:
        self._core.check_loaded()
        return iter(self._core.data)

    def __len__(self) -> int:
        self._core.check_loaded()
        return len(self._core.data)

    def __bool__(self) -> bool:
        return True  # Also without properties: it is there.

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # Copying and the like ask for these, before there is anything to ask.
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"object {self.id} has no property {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or hasattr(EchoObject, name):
            raise AttributeError(f"{name!r} is no free name; write obj[{name!r}] for a property of that name")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"object {self.id} has no property {name!r}") from None

    def __copy__(self) -> EchoObject:
        return EchoObject(self.to_dict(), type=self.type)

    def __deepcopy__(self, memo: dict[int, Any]) -> EchoObject:
        return self.__copy__()

    def __repr__(self) -> str:
        if not self._core.loaded:
            return f"<EchoObject {self.id} not loaded>"
        mark = " deleted" if self._core.deleted else ""
        return f"<EchoObject {self.id}{mark} {self._core.data!r:.60}>"


def core_of(target: EchoObject) -> Core:
    """The state behind an object; for this package only."""
    return target._core


def object_of(core: Core) -> EchoObject:
    """An object for a state; for this package only."""
    return EchoObject._of(core)


def set_deleted(target: EchoObject, deleted: bool) -> None:
    """Mark an object as deleted, or not; for this package only."""
    core = core_of(target)
    if core.deleted == deleted:
        return
    mutation = SetDeleted(deleted)
    core.begin(mutation)
    core.deleted = deleted
    core.end(mutation, target)


def _check_names(names: Iterable[str]) -> None:
    if "id" in names:
        raise InvalidValueError("id: the name is taken by the object's own id")
