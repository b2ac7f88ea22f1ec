"""Classes that are schemas: `Object`, `Relation`, `Struct`, and `Ref`, what a field may be beside plain values.

    class Task(Object, typename="example.com/type/Task", version="0.1.0"):
        title: str
        done: bool = False
        assignee: Ref[Person] | None = None

A class says what is checked when it is assigned. What a peer has stored is shown as it is.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast, dataclass_transform, final, overload

from dxos.client.live import LiveMap, Node, Shape, Storable, place_name, plain, referred
from dxos.client.object import EchoObject
from dxos.client.schema import (
    MISSING,
    FieldShape,
    HasValues,
    StructShape,
    ValueShape,
    is_model,
    make_field,
    model_fields,
    model_shape,
    refused,
    with_article,
)
from dxos.client.state import Core, core_of, object_ids
from dxos.echo.mutation import check_value
from dxos.echo.rows import Kind, Path, reference, reference_dxn
from dxos.echo.schema import StoredSchema, TypeName, reference_schema
from dxos.errors import InvalidValueError, ObjectNotFoundError, UsageError

T = TypeVar("T", bound=EchoObject)
S = TypeVar("S", bound=EchoObject)
V = TypeVar("V")

# The classes of this module; their annotations are no fields.
_OWN: Final = frozenset({"_Typed", "Object", "Relation", "Struct"})
_ENDS: Final = ("source", "target")  # Of a relation.


@final
class _FieldInfo:
    """What `field` was told, until the class is made."""

    __slots__ = ("default", "description", "factory", "key")

    def __init__(self, default: Any, factory: Callable[[], Any] | None, key: str | None, description: str | None):
        self.default, self.factory, self.key, self.description = default, factory, key, description


@overload
def field(*, default: V, name: str | None = None, description: str | None = None) -> V: ...
@overload
def field(*, default_factory: Callable[[], V], name: str | None = None, description: str | None = None) -> V: ...
@overload
def field(*, name: str | None = None, description: str | None = None) -> Any: ...
def field(
    *,
    default: Any = MISSING,
    default_factory: Callable[[], Any] | None = None,
    name: str | None = None,
    description: str | None = None,
) -> Any:
    """Say more of a field than its annotation does.

    Args:
        default: The value of new objects that are given none.
        default_factory: Makes that value.
        name: Of the stored property, where the attribute cannot be called so, as with `id` or `type`.
        description: For people; it is in the stored schema.
    """
    return _FieldInfo(default, default_factory, name, description)


@final
class _Attribute:
    """A field of a class: reads and writes the property."""

    __slots__ = ("_key", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, holder: _Fielded | None, owner: type[_Fielded]) -> Any:
        if holder is None:
            return self
        found = _shape(owner).by_name[self._name]
        if found.shape.immediate and isinstance(holder, EchoObject):
            # Most reads are of single values, and need no live map.
            core = core_of(holder)
            core.check_loaded()
            value = core.data.get(found.key, MISSING)
            if value is not MISSING and not isinstance(value, dict | list):
                return value
        return found.read(holder._root_map())

    def __set__(self, holder: _Fielded, value: Any) -> None:
        holder._root_map()[_shape(type(holder)).by_name[self._name].key] = value

    def __delete__(self, holder: _Fielded) -> None:
        try:
            del holder._root_map()[_shape(type(holder)).by_name[self._name].key]
        except KeyError:
            raise AttributeError(self._name) from None


class _Fielded:
    """A class with fields."""

    __slots__ = ()

    _shape: ClassVar[Shape | None]

    def _root_map(self) -> LiveMap:
        """The live map that has the properties."""
        raise NotImplementedError


class _Meta(type):
    """Makes fields of the annotations, and adds no slots, so that an untyped object can become a typed one."""

    def __new__(mcs, class_name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> _Meta:
        namespace.setdefault("__slots__", ())
        if class_name in _OWN and namespace.get("__module__") == __name__:
            return super().__new__(mcs, class_name, bases, namespace)
        given: dict[str, Any] = {}
        for name, annotation in namespace.get("__annotations__", {}).items():
            if _is_field(name, annotation):
                given[name] = namespace.pop(name, MISSING)
                if any(hasattr(base, name) and not isinstance(getattr(base, name), _Attribute) for base in bases):
                    raise UsageError(
                        f"{class_name}.{name}: the name is taken; call it `{name}_` and write "
                        f"`{name}_: … = field(name={name!r})`"
                    )
                namespace[name] = _Attribute(name)
        locals_ = dict(sys._getframe(1).f_locals)
        cls = super().__new__(mcs, class_name, bases, namespace)
        shape = StructShape(class_name, lambda: _fields(cls, given, locals_), cls._view)
        cls._shape = shape
        cls._begin(**options)
        try:
            _ = shape.fields
        except NameError:
            pass  # It names a class that comes later; it is looked at again when it is first used.
        else:
            locals_.clear()
        return cls

    if TYPE_CHECKING:
        _shape: Shape | None
        _view: Callable[[LiveMap], Any] | None

        def _begin(cls, **options: Any) -> None: ...


def _is_field(name: str, annotation: object) -> bool:
    if name.startswith("_"):
        return False
    text = annotation if isinstance(annotation, str) else ""
    return typing.get_origin(annotation) is not ClassVar and annotation is not ClassVar and "ClassVar" not in text


def _fields(cls: type, given: Mapping[str, Any], locals_: Mapping[str, Any]) -> list[FieldShape]:
    found: dict[str, FieldShape] = {}
    for base in reversed(cls.__mro__[1:]):
        inherited = base.__dict__.get("_shape")
        if isinstance(inherited, StructShape):
            found |= inherited.by_name
    names = {**locals_, cls.__name__: cls}
    annotations = {name: hint for name, hint in inspect.get_annotations(cls).items() if name in given}
    scope = sys.modules.get(cls.__module__)
    holder = type("_Hints", (), {"__annotations__": annotations, "__module__": cls.__module__})
    hints = typing.get_type_hints(holder, vars(scope) if scope is not None else {}, names, include_extras=True)
    for name, value in given.items():
        info = value if isinstance(value, _FieldInfo) else _FieldInfo(value, None, None, None)
        found[name] = make_field(
            name,
            hints[name],
            key=info.key,
            default=info.default,
            factory=info.factory,
            description=info.description,
        )
        if found[name].key == "id":
            raise UsageError(f"{cls.__name__}.{name}: the name `id` is taken by the object's own id.")
    return list(found.values())


def _shape(cls: type) -> StructShape:
    shape = getattr(cls, "_shape", None)
    if not isinstance(shape, StructShape):
        raise UsageError(f"{cls.__name__} has no fields; derive a class from it.")
    return shape


# --- Objects ---------------------------------------------------------------------------------------------------------


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class _Typed(EchoObject, _Fielded, metaclass=_Meta):
    """What objects and relations of a class have in common."""

    type_name: ClassVar[TypeName]
    _kind: ClassVar[Kind] = "object"
    _view: ClassVar[Callable[[LiveMap], Any] | None] = None

    @classmethod
    def _begin(cls, *, typename: str | None = None, version: str | None = None) -> None:
        if typename is None or version is None:
            raise UsageError(f"{cls.__name__}: write `class {cls.__name__}(…, typename=…, version=…)`")
        cls.type_name = TypeName(typename, version)

    def __init__(self, **values: Any) -> None:
        core = Core(object_ids.next(), {}, _name_of(type(self)).dxn)
        object.__setattr__(self, "_core", core)
        core.data = _shape(type(self)).make(values, core, ())
        check_value(core.data)

    @classmethod
    def _shape_as_value(cls) -> ValueShape:
        """As the annotation of a field, the class stands for a reference, shown as the object."""
        return ReferenceTo(cls, as_ref=False)

    @classmethod
    def _stored_schema(cls) -> StoredSchema:
        """The schema as a space keeps it."""
        shape = _shape(cls)
        return StoredSchema(
            _name_of(cls), shape.properties(), shape.required(), cls._kind, *_ends(cls), description=_described(cls)
        )

    def _root_map(self) -> LiveMap:
        return self._root()

    if TYPE_CHECKING:
        # For type checkers a class has its fields only; what else a peer has stored is reached by items.
        __getattr__: None  # type: ignore[assignment,misc]
        __setattr__: None  # type: ignore[assignment,misc]
        __delattr__: None  # type: ignore[assignment]
    else:

        def __setattr__(self, name: str, value: Any) -> None:
            if not isinstance(getattr(type(self), name, None), _Attribute):
                raise AttributeError(f"{type(self).__name__} has no field {name!r}")
            object.__setattr__(self, name, value)

        def __delattr__(self, name: str) -> None:
            object.__delattr__(self, name)

    def __copy__(self) -> EchoObject:
        values = {one.name: one.read(self._root()) for one in _shape(type(self)).fields.values() if one.key in self}
        return type(self)(**values, **self._own_values())

    def _own_values(self) -> dict[str, Any]:
        """What a new one must be given beside the fields."""
        return {}


class Object(_Typed):
    """An object of a type: derive a class, with the type's name and version, whose annotated fields are properties.

    Assigning is checked; an error names the field and what was expected. A field whose type allows None and whose
    default is None is optional: None and no property are the same. A field of the class of another object, or `Ref` of
    it, is a reference.

    Raises:
        InvalidValueError: A value of another type, one that is lacking, or one that no field takes.
        UsageError: When the class is made: a field of a type that cannot be stored, or with a name that is taken.
    """


class Relation(_Typed, Generic[S, T]):
    """A relation of a type, which connects two objects: `class Knows(Relation[Person, Person], typename=…, version=…)`.

    It is an object with fields of its own, made with `source` and `target`, which stay.

    Raises:
        InvalidValueError: A value of another type, one that is lacking, or one that no field takes.
    """

    _kind: ClassVar[Kind] = "relation"

    if TYPE_CHECKING:
        source: S
        target: T

    def __init__(self, **values: Any) -> None:
        given = {name: values.pop(name, MISSING) for name in _ENDS}
        super().__init__(**values)
        core = core_of(self)
        for name, end in given.items():
            if end is MISSING:
                raise InvalidValueError(f"{place_name(core, (name,))}: a value is required.")
        ends = [
            reference_dxn(ReferenceTo(cls, as_ref=False).store(end, core, (name,)))
            for cls, (name, end) in zip(_end_classes(type(self)), given.items(), strict=True)
        ]
        core.ends = cast(tuple[str, str], tuple(ends))

    if not TYPE_CHECKING:

        @property
        def source(self) -> S:
            """Where the relation begins."""
            return cast(S, self._end(0))

        @property
        def target(self) -> T:
            """Where the relation ends."""
            return cast(T, self._end(1))

    def _end(self, which: int) -> EchoObject:
        self._core.check_loaded()
        dxn = self._core.source_and_target[which]
        found = None if dxn is None else referred(self._core, dxn)
        if found is None:
            raise ObjectNotFoundError(f"Relation {self.id} leads out of this space: {dxn}")
        return found

    def _own_values(self) -> dict[str, Any]:
        return {"source": self.source, "target": self.target}


def _name_of(cls: type) -> TypeName:
    name = cls.__dict__.get("type_name")
    if not isinstance(name, TypeName):
        raise UsageError(f"{cls.__name__} is no type; derive a class from it, with a name and a version.")
    return name


def _end_classes(cls: type) -> tuple[type[EchoObject], type[EchoObject]]:
    for one in cls.__mro__:
        for base in one.__dict__.get("__orig_bases__", ()):
            if typing.get_origin(base) is Relation:
                source, target = typing.get_args(base)
                if isinstance(source, type) and isinstance(target, type):
                    return source, target
    return EchoObject, EchoObject


def _ends(cls: type[_Typed]) -> tuple[str | None, str | None]:
    if cls._kind != "relation":
        return None, None
    source, target = (_dxn(one) for one in _end_classes(cls))
    return source, target


def _dxn(cls: type[EchoObject]) -> str:
    name = _known_name(cls)
    return reference_schema(None)["reference"]["schema"]["$ref"] if name is None else f"dxn:type:{name.typename}"


def _known_name(cls: type[EchoObject]) -> TypeName | None:
    return cls.type_name if issubclass(cls, _Typed) and "type_name" in cls.__dict__ else None


def _described(cls: type) -> str | None:
    text = cls.__dict__.get("__doc__")
    return text.strip().partition("\n")[0] if isinstance(text, str) and text.strip() else None


# --- References ------------------------------------------------------------------------------------------------------


@final
class Ref(Storable, Generic[T]):
    """A reference to an object, which may not be here yet: `assignee: Ref[Person]`, `task.assignee = Ref(alice)`."""

    __slots__ = ("_dxn", "_target")

    def __init__(self, target: T) -> None:
        self._target: EchoObject | None = target
        self._dxn = f"dxn:echo:@:{target.id}"

    @property
    def dxn(self) -> str:
        """What is stored: `dxn:echo:@:<object id>`."""
        return self._dxn

    @property
    def id(self) -> str:
        """The id of the object."""
        return self._dxn.rpartition(":")[2]

    @property
    def loaded(self) -> bool:
        """Whether the object is here."""
        return self._target is not None and self._target.loaded

    @property
    def target(self) -> T:
        """The object.

        Raises:
            UsageError: It is not loaded yet: `await ref.load()` first.
            ObjectNotFoundError: It is not in this space.
        """
        found = self._found()
        core_of(found).check_loaded()
        return cast(T, found)

    async def load(self) -> T:
        """Wait for the object.

        Raises:
            ObjectNotFoundError: The space has no such object, at least not yet.
        """
        return cast(T, await self._found().load())

    def _found(self) -> EchoObject:
        if self._target is None:
            raise ObjectNotFoundError(f"{self._dxn} is not in this space.")
        return self._target

    def stored_in(self, core: Core | None, path: Path) -> Any:
        return reference(self._dxn) if self._target is None else plain(self._target, core, path)

    @classmethod
    def _shape_as_value(cls, target: Any = EchoObject) -> ValueShape:
        """The shape of a field with this annotation."""
        return ReferenceTo(target, as_ref=True)

    @classmethod
    def _to(cls, dxn: str, target: EchoObject | None) -> Ref[Any]:
        self: Ref[Any] = cls.__new__(cls)
        self._dxn, self._target = dxn, target
        return self

    def __eq__(self, other: object) -> bool:
        return self._dxn == other._dxn if isinstance(other, Ref) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._dxn)

    def __repr__(self) -> str:
        return f"<Ref {self._dxn}>" if self._target is None else f"<Ref to {self._target!r}>"


@final
class ReferenceTo(ValueShape):
    """A reference to an object of a class, shown as the object or as a `Ref`."""

    def __init__(self, target: Any, *, as_ref: bool) -> None:
        self._target, self._as_ref = target, as_ref

    def _class(self) -> type[EchoObject]:
        # A type variable, or a class that is named before it is made.
        return self._target if isinstance(self._target, type) and issubclass(self._target, EchoObject) else EchoObject

    def show(self, node: Node, value: Any) -> Any:
        dxn = reference_dxn(value)
        if dxn is None or not self._as_ref:
            return node.shown(value)
        return Ref._to(dxn, referred(node.core, dxn))

    def store(self, value: Any, core: Core | None, path: Path) -> Any:
        wanted = self._class()
        target = value._target if isinstance(value, Ref) else value
        if isinstance(target, EchoObject):
            other = core_of(target)
            if other.loaded and not isinstance(target, wanted) and not _is_version_of(wanted, other.type):
                raise refused(core, path, _article(wanted), value)
            return plain(target, core, path)
        if isinstance(value, Ref) or reference_dxn(value) is not None:
            return plain(value, core, path)
        raise refused(core, path, f"a reference to {_article(wanted)}", value)

    def json_schema(self) -> dict[str, Any]:
        return reference_schema(_known_name(self._class()))


def _is_version_of(cls: type[EchoObject], dxn: str | None) -> bool:
    """Whether an object of another class has another version of the type, and waits for its migration."""
    name = _known_name(cls)
    return name is None or (dxn or "").startswith(f"dxn:type:{name.typename}:")


def _article(cls: type[EchoObject]) -> str:
    return "an object" if cls is EchoObject else with_article(cls.__name__)


# --- Structures ------------------------------------------------------------------------------------------------------


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Struct(_Fielded, HasValues, Storable, metaclass=_Meta):
    """A part of an object with fields of its own: derive a class, and use it as the type of a field.

    What is read from an object is live: assigning to its fields changes the object.

    Raises:
        InvalidValueError: A value of another type, one that is lacking, or one that no field takes.
    """

    __slots__ = ("_node",)

    _node: LiveMap

    @classmethod
    def _begin(cls) -> None:
        pass

    @classmethod
    def _view(cls, node: LiveMap) -> Struct:
        self = cls.__new__(cls)
        object.__setattr__(self, "_node", node)
        return self

    def __init__(self, **values: Any) -> None:
        shape = _shape(type(self))
        core = Core(object_ids.next(), {})
        core.data = shape.make(values, core, ())
        check_value(core.data)
        object.__setattr__(self, "_node", LiveMap(EchoObject._of(core), None, core.data, shape))

    def _root_map(self) -> LiveMap:
        return self._node

    def values_by_name(self) -> dict[str, Any]:
        fields = _shape(type(self)).fields.values()
        return {one.name: one.read(self._node) for one in fields if one.key in self._node}

    def stored_in(self, core: Core | None, path: Path) -> Any:
        return _shape(type(self)).store(self, core, path)

    def to_dict(self) -> dict[str, Any]:
        """A copy as plain data; references are `{"/": DXN}`."""
        return self._node.to_dict()

    @classmethod
    def _shape_as_value(cls) -> ValueShape:
        """The shape of a field with this annotation."""
        return _shape(cls)

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            if not isinstance(getattr(type(self), name, None), _Attribute):
                raise AttributeError(f"{type(self).__name__} has no field {name!r}")
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Struct):
            return bool(self._node.target == other._node.target)
        return bool(self._node == other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._node!r:.60}>"


# --- Models of pydantic, and dataclasses -----------------------------------------------------------------------------


def object_class(kind: type) -> type[_Typed]:
    """The class of objects for a class that an application hands in: itself, or one made for a model.

    Raises:
        UsageError: Neither an `Object`, nor a model that says its `typename` and `version`.
    """
    if issubclass(kind, _Typed):
        _name_of(kind)
        return kind
    return _model_class(cast(Any, kind))


@cache
def _model_class(kind: Any) -> type[_Typed]:
    typename, version = getattr(kind, "typename", None), getattr(kind, "version", None)
    if not is_model(kind) or not isinstance(typename, str) or not isinstance(version, str):
        raise UsageError(
            f"{kind.__name__} is no type of objects: derive it from dxos.Object, or give the model the class variables "
            "`typename` and `version`"
        )
    names = [one.name for one in model_fields(kind)]
    namespace: dict[str, Any] = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    made = cast(Any, _Meta)(kind.__name__, (Object,), namespace, typename=typename, version=version)
    for name in names:
        if hasattr(EchoObject, name):
            raise UsageError(f"{kind.__name__}.{name}: the name is taken; give the field another and an alias.")
        type.__setattr__(made, name, _Attribute(name))
    made._shape = model_shape(kind)
    return cast(type[_Typed], made)


def object_from(value: object) -> EchoObject:
    """An object from an instance of a model."""
    cls = object_class(type(value))
    return cls(**dict(_shape(cls).values_of(value) or {}))


def encode_equalities(cls: type[_Typed], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The stored keys and values for fields that are to equal something.

    Raises:
        InvalidValueError: No such field, or a value that it cannot have.
    """
    shape = _shape(cls)
    for name, value in values.items():
        if name == "id":  # Every object has one.
            yield name, value
            continue
        found = shape.by_name.get(name) or shape.fields.get(name)
        if found is None:
            raise InvalidValueError(f"{place_name(None, (cls.__name__, name))}: the type has no such property.")
        stored = None if value is None else found.shape.store(value, None, (cls.__name__, name))
        # An object stands for each way to refer to it.
        target = value._target if isinstance(value, Ref) else value
        yield found.key, target if isinstance(target, EchoObject) else stored
