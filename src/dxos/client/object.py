"""`EchoObject`: an object of a space that feels like a Python object, and whose edits become mutations.

    milk.done = True ──▶ check, change the local data, note Put(("done",), True) ──▶ database: one update per turn
    host's row ────────▶ becomes the local data, unless own edits are under way: then when they are answered

What is read includes all own edits, on the next line already; an edit that cannot be stored raises at its line and
changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

from dxos.aio import Subscription, stay_here
from dxos.client.live import LiveMap, Node, Shape, plain
from dxos.client.state import Core, Home, Owner, core_of, object_ids
from dxos.client.tables import properties_table
from dxos.echo.mutation import SetDeleted, SetMeta, check_value
from dxos.echo.revision import Conflict, Revision
from dxos.echo.rows import Path
from dxos.errors import InvalidValueError, UsageError


class EchoObject(Owner):
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

    __slots__ = ()

    _shape: ClassVar[Shape | None] = None  # What the type says of the properties; None: anything.

    def __init__(self, data: Mapping[str, Any] | None = None, *, type: str | None = None, **properties: Any) -> None:
        core = Core(object_ids.next(), {}, type)
        object.__setattr__(self, "_core", core)
        given = plain({**(data or {}), **properties}, core)
        check_value(given)
        _check_names(given)
        core.data = given

    @classmethod
    def _of(cls, core: Core) -> Self:
        self = cls.__new__(cls)
        object.__setattr__(self, "_core", core)
        return self

    def _root(self) -> LiveMap:
        """The map of all properties; made anew when needed, because it refers to the object."""
        core = self._core
        core.check_loaded()
        node = core.node_of(core.data)
        if node is None:
            node = LiveMap(self, None, core.data, self._shape)
            core.hold(node)
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

    async def load(self) -> Self:
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
            raise InvalidValueError(f"{place}: there is no text at this place.")
        holder.splice(last, index, delete_count, insert)

    async def history(self, *, limit: int = 100) -> tuple[Revision, ...]:
        """The newest changes of this object, the last one first; own edits included.

        Args:
            limit: At most so many, and HISTORY_CHANGES_MAX.

        Raises:
            UsageError: The object is in no space.
        """
        return await self._home().revisions_of(self, limit)

    async def conflicts(self) -> tuple[Conflict, ...]:
        """The properties to which peers gave different values without knowing of each other, until one is assigned.

        Elements of lists and characters of texts are kept side by side and are never in conflict; nor are a value and
        its removal, where the value stays. The newest HISTORY_CHANGES_MAX changes are looked at.
        """
        return await self._home().conflicts_of(self)

    async def undo(self) -> bool:
        """Take back what this device changed last in this object, in one turn, and keep what others have done since.

        The making of the object is a change too: undone, the object is removed. A change of its type is not undone.

        Returns:
            Whether there was anything left to undo; also after a restart.

        Raises:
            NotAllowedError: This identity may only read.
        """
        return await self._home().undo(self)

    async def redo(self) -> bool:
        """Do again what was undone last, unless this device has changed the object since; as `undo`."""
        return await self._home().redo(self)

    def _home(self) -> Home:
        if self._core.home is None:
            raise UsageError("This object is in no space yet: `space.db.add(obj)` first.")
        return self._core.home

    def subscribe(self, callback: Callable[[EchoObject], object]) -> Subscription:
        """Have `callback` called after each change of this object, whoever made it; own edits once per turn.

        The object stays in memory while it has subscribers, also if nobody else holds it.
        """
        core = self._core
        subscription = core.changed.subscribe(callback)
        if core.home is not None:
            core.home.followed(self)

        def end() -> None:
            subscription.unsubscribe()
            if core.home is not None:
                core.home.followed(self)

        return Subscription(end)

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
        if self._shape is not None:
            return self._root().part(name, value)
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

    __reduce_ex__ = stay_here

    def __copy__(self) -> EchoObject:
        return EchoObject(self.to_dict(), type=self.type)

    def __deepcopy__(self, memo: dict[int, Any]) -> EchoObject:
        return self.__copy__()

    def _repr_html_(self) -> str:
        return properties_table(type(self).__name__, {"id": self.id, **(self.to_dict() if self.loaded else {})})

    def __repr__(self) -> str:
        if not self._core.loaded:
            return f"<{type(self).__name__} {self.id} not loaded>"
        mark = " deleted" if self._core.deleted else ""
        return f"<{type(self).__name__} {self.id}{mark} {self._core.data!r:.60}>"


def object_of(core: Core) -> EchoObject:
    """An object for a state; for this package only."""
    return EchoObject._of(core)


def become(target: EchoObject, kind: type[EchoObject]) -> None:
    """Make an object one of another class, when its type became known; for this package only."""
    if type(target) is kind:
        return
    object.__setattr__(target, "__class__", kind)  # Past the one of typed objects, which sets fields.
    core = core_of(target)
    for node in core.held_nodes():
        if isinstance(node, Node):
            shape: Shape | None = kind._shape
            for step in node.find() or ():
                shape = None if shape is None else shape.part(step)
            node.reshape(shape)


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
        raise InvalidValueError("id: the name is taken by the object's own id.")
