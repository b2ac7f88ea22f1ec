"""Maps and lists inside an object, which feel like `dict` and `list` and note each change as a mutation.

A part knows what it is, not where: where it is, is looked up when it changes. So it stays itself when its neighbours
move; taken out of the object, it can be read and not changed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, SupportsIndex, cast, final, overload

from dxos.aio import stay_here
from dxos.client.state import Core, Owner, core_of
from dxos.echo.mutation import Delete, Insert, Mutation, Put, Remove, Splice, check_value
from dxos.echo.rows import Path, reference, reference_dxn
from dxos.errors import InvalidValueError, UsageError
from dxos.limits import VALUE_DEPTH_MAX

if TYPE_CHECKING:
    from dxos.client.object import EchoObject

DXN: Final = re.compile(r"dxn:echo:(@|B[A-Z2-7]{32}):([0-9A-HJKMNP-TV-Z]{26})")
_MISSING: Final = object()
FOREIGN_REFERENCE: Final = "an object of another space cannot be referred to; add a copy of it to this space"
_NODE_SLOTS: Final = frozenset({"_object", "absent", "parent", "shape", "target"})


class Shape(Protocol):
    """What a type says of a value: how it is stored, and how what is stored is shown."""

    def part(self, step: str | int) -> Shape | None:
        """The shape of what is at a step below; None where nothing may be."""
        ...

    def show(self, node: Node, value: Any) -> Any:
        """A stored value, which `node` holds, as the application sees it; a peer may have stored anything."""
        ...

    def store(self, value: Any, core: Core | None, path: Path) -> Any:
        """An application's value as it is stored.

        Raises:
            InvalidValueError: It is not of this shape; names the path, and what was expected.
        """
        ...

    def check_gone(self, step: str | int, core: Core | None, path: Path) -> None:
        """Raise InvalidValueError if there must be something at a step below."""
        ...

    def check_length(self, length: int, core: Core | None, path: Path) -> None:
        """Raise InvalidValueError if a list or map must not have so many parts."""
        ...

    def drops(self, step: str | int) -> bool:
        """Whether None at a step below means that there is nothing."""
        ...


class Storable:
    """What stands for a stored value, such as a reference."""

    __slots__ = ()

    def stored_in(self, core: Core | None, path: Path) -> Any:
        """The value as it is stored in an object."""
        raise NotImplementedError


class Node:
    """A map or list inside an object: what it is (`target`), and in what it is (`parent`)."""

    __slots__ = ("__weakref__", "_object", "absent", "parent", "shape", "target")

    __reduce_ex__ = stay_here

    _object: EchoObject
    parent: Node | None
    target: Any
    shape: Shape | None  # None: anything goes.
    absent: str | None  # The key it gets in its parent with the first edit: it is a default, and not stored yet.

    def __init__(
        self,
        owner: EchoObject,
        parent: Node | None,
        target: Any,
        shape: Shape | None = None,
        absent: str | None = None,
    ) -> None:
        # Past the `__setattr__` of maps, which makes properties of the data.
        object.__setattr__(self, "_object", owner)
        object.__setattr__(self, "parent", parent)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "absent", absent)

    @property
    def core(self) -> Core:
        """The state of the object this is in."""
        return core_of(self._object)

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
        """Where this is in the object now, for an edit; raises UsageError if it was taken out."""
        path = self.find()
        if path is None:
            path = self._store_default()
        if path is None:
            raise UsageError("This part was taken out of its object, or replaced; read it from the object again.")
        return path

    def _store_default(self) -> Path | None:
        """Give a default that is shown its place in the object, if that is still free."""
        key, parent = self.absent, self.parent
        if key is None or parent is None or key in parent.target:
            return None
        path = (*parent.path(), key)
        # Only once: taken out later, it is as any other part that was.
        object.__setattr__(self, "absent", None)
        parent.edit(Put(path, copy.deepcopy(self.target)), lambda target: target.__setitem__(key, self.target))
        self.core.hold(self)
        return path

    def edit(self, mutation: Mutation, change: Callable[[Any], None]) -> None:
        """Check, change the target, and note the mutation."""
        core = core_of(self._object)
        core.begin(mutation)
        change(self.target)
        core.end(mutation, self._object)

    def part(self, step: str | int, value: Any) -> Any:
        """The stored value at a step as the application sees it."""
        shape = None if self.shape is None else self.shape.part(step)
        return self.shown(value) if shape is None else shape.show(self, value)

    def shown(self, value: Any, shape: Shape | None = None) -> Any:
        """A stored value as the application sees it, whatever it is."""
        if not isinstance(value, dict | list):
            return value
        core = core_of(self._object)
        dxn = reference_dxn(value)
        if dxn is not None:
            found = referred(core, dxn)
            if found is not None:
                return found
        held = core.node_of(value)
        if held is not None:
            return held
        node = (LiveMap if isinstance(value, dict) else LiveList)(self._object, self, value, shape)
        core.hold(node)
        return node

    def reshape(self, shape: Shape | None) -> None:
        """Take a shape, when the object's type became known or another."""
        object.__setattr__(self, "shape", shape)

    def stored(self, value: Any, path: Path) -> Any:
        """An application's value as it is stored: plain, and shared with nobody."""
        core = core_of(self._object)
        if self.shape is None:
            return plain(value, core, path)
        shape = self.shape.part(path[-1])
        if shape is None:
            raise InvalidValueError(f"{place_name(core, path)}: the type has no such property.")
        return shape.store(value, core, path)

    def check_length(self, length: int) -> None:
        """Raise if the shape does not allow so many parts."""
        if self.shape is not None:
            self.shape.check_length(length, self.core, self.find() or ())


@final
class LiveMap(Node, MutableMapping[str, Any]):
    """A map inside an object: a `dict` whose keys are attributes too, as far as they are no methods of `dict`."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        return self.part(key, self.target[key])

    def __setitem__(self, key: str, value: Any) -> None:
        path = (*self.path(), key)
        if isinstance(value, Node) and self.target.get(key, _MISSING) is value.target:
            return  # `obj.tags += [...]` ends with an assignment of what is there.
        if value is None and self.shape is not None and self.shape.drops(key):
            if key in self.target:
                del self[key]
            return
        value = self.stored(value, path)
        if key not in self.target:
            self.check_length(len(self.target) + 1)
        self.edit(Put(path, value), lambda target: target.__setitem__(key, copy.deepcopy(value)))

    def __delitem__(self, key: str) -> None:
        if key not in self.target:
            raise KeyError(key)
        path = (*self.path(), key)
        if self.shape is not None:
            self.shape.check_gone(key, self.core, path)
            self.check_length(len(self.target) - 1)
        self.edit(Delete(path), lambda target: target.__delitem__(key))

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
            raise InvalidValueError(f"{key}: there is no text at this place.")
        if min(index, delete_count) < 0 or index + delete_count > len(text):
            raise InvalidValueError(f"{key}: the text has {len(text)} characters.")
        after = text[:index] + insert + text[index + delete_count :]
        if self.shape is not None:
            self.stored(self.part(key, after), path)
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
            return [self.part(0, value) for value in self.target[index]]
        return self.part(0, self.target[index])

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
        self._put(place, self.stored(value, path))

    def _put(self, place: int, value: Any) -> None:
        mutation = Put((*self.path(), place), value)
        self.edit(mutation, lambda target: target.__setitem__(place, copy.deepcopy(value)))

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
            yield self.part(0, value)

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """Insert one value before `index`; as for a list, any index is allowed."""
        place = slice(index, None).indices(len(self))[0]
        self._insert(place, self._stored_all(place, [value]))

    def extend(self, values: Iterable[Any]) -> None:
        """Append values, as one edit."""
        self._insert(len(self), self._stored_all(len(self), values))

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
            count = max(stop - start, 0)
            self.check_length(len(self) - count + len(values))
            self._remove(start, count, checked=True)
            self._insert(start, values, checked=True)
            return
        places = range(start, stop, step)
        if len(places) != len(values):
            raise ValueError(f"{len(values)} values for a slice of {len(places)}")
        for place, value in zip(places, [self.stored(value, (*self.path(), start)) for value in values], strict=True):
            self._put(place, value)

    def _stored_all(self, place: int, values: Iterable[Any]) -> list[Any]:
        path = self.path()
        return [self.stored(value, (*path, place + offset)) for offset, value in enumerate(values)]

    def _insert(self, place: int, values: list[Any], *, checked: bool = False) -> None:
        path = self.path()
        if values:
            if not checked:
                self.check_length(len(self) + len(values))
            self.edit(
                Insert(path, place, tuple(values)),
                lambda target: target.__setitem__(slice(place, place), copy.deepcopy(values)),
            )

    def _remove(self, place: int, count: int, *, checked: bool = False) -> None:
        if count:
            if not checked:
                self.check_length(len(self) - count)
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


def place_name(core: Core | None, path: Path) -> str:
    """Where a value is, for people: `Task.shop.aisle`."""
    type_ = "" if core is None or core.type is None else core.type.rpartition("/")[2].partition(":")[0]
    return ".".join(map(str, (type_, *path) if type_ else path)) or "the object"


def referred(core: Core, dxn: str) -> EchoObject | None:
    """The object that a DXN means; None for one that is elsewhere."""
    match = DXN.fullmatch(dxn)
    if match is None:
        return None
    space, object_id = match.groups()
    found = core.references.get(object_id)
    if found is None and core.home is not None and space in ("@", core.home.space_id):
        found = core.references[object_id] = core.home.refer(object_id)
    return found


def references_in(data: Any) -> Iterator[str]:
    """The ids of the objects that some data refers to by `@`, once for each reference."""
    if isinstance(data, dict):
        dxn = reference_dxn(data) if len(data) == 1 else None  # All objects of a long answer are looked through.
        if dxn is not None:
            match = DXN.fullmatch(dxn)
            if match is not None and match[1] == "@":
                yield match[2]
            return
        values: Iterable[Any] = data.values()
    else:
        values = data if isinstance(data, list) else ()
    for value in values:
        if isinstance(value, dict | list):
            yield from references_in(value)


def plain(value: Any, core: Core | None, path: Path = ()) -> Any:
    """A copy of a value with nothing live in it: objects become references, and join the database of `core`."""
    match value:
        case Owner():
            return _refer_to(cast("EchoObject", value), core, path)
        case Node():
            return copy.deepcopy(value.target)
        case Storable():
            return value.stored_in(core, path)
        case _ if len(path) > VALUE_DEPTH_MAX + 1:
            # A cycle, most likely; whoever checks the value refuses it.
            return value
        case Mapping():
            return {key: plain(inner, core, (*path, key)) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner, core, (*path, index)) for index, inner in enumerate(value)]
    return value


def plain_object(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """A JSON object for the host, checked here, so that the error is that of the line that gave it.

    Raises:
        InvalidValueError: A value in it that JSON has not.
    """
    found: dict[str, Any] = plain(value or {}, None)
    check_value(found)
    return found


def _refer_to(target: EchoObject, core: Core | None, path: Path) -> dict[str, str]:
    other = core_of(target)
    if core is not None:
        if core.home is None:
            pass  # Nobody knows yet which space it will be in: adding it looks at what it refers to.
        elif other.home is None:
            core.home.add(target)
        elif core.home is not other.home:
            place = ".".join(map(str, path)) or "the object"
            raise InvalidValueError(f"{place}: {FOREIGN_REFERENCE}")
        core.references[other.object_id] = target
    return reference(f"dxn:echo:@:{other.object_id}")
