"""What annotations mean: how values of a type are checked, stored and shown, and their JSON Schema.

    annotation ──shape_of──▶ shape     store: application's value ─▶ plain data, or InvalidValueError
                                       show:  plain data ─▶ what the application sees, whatever a peer has stored

    str, int, float, bool, None, Literal     as they are
    date, datetime, UUID, Enum, …            as pydantic writes them in JSON
    list[…], dict[str, …]                    live lists and maps
    Struct, pydantic model, dataclass        maps with attributes of their own
    Ref[…], an object's class                references

Single values are checked by pydantic, in its strict mode: "1" is no number.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeGuard, Union, final, get_args, get_origin

from dxos.client.live import LiveMap, Node, Shape, place_name, plain
from dxos.client.state import Core
from dxos.echo.rows import Path
from dxos.errors import InvalidValueError, UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel, TypeAdapter, ValidationError
    from pydantic.fields import FieldInfo

# pydantic is imported where a value has to be checked by it, which a text that is given for a text has not.

MISSING: Final = object()
_PLAIN: Final[dict[object, str]] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_PLAIN_SCHEMAS: Final[dict[object, str]] = {str: "string", int: "integer", float: "number", bool: "boolean"}
_SCALARS: Final = frozenset({"string", "number", "integer", "boolean", "null"})
_SHOWN_CHARS: Final = 40


class ValueShape(ABC):
    """What every shape does unless it says otherwise: nothing is below it."""

    immediate = False  # Whether a stored value that is no list or map is shown as it is.

    def part(self, step: str | int) -> Shape | None:
        return ANYTHING

    @abstractmethod
    def show(self, node: Node, value: Any) -> Any: ...

    @abstractmethod
    def store(self, value: Any, core: Core | None, path: Path) -> Any: ...

    @abstractmethod
    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema, in the original's form."""

    def check_gone(self, step: str | int, core: Core | None, path: Path) -> None:
        return

    def check_length(self, length: int, core: Core | None, path: Path) -> None:
        return

    def drops(self, step: str | int) -> bool:
        return False


@final
class Anything(ValueShape):
    """Whatever the database can store."""

    def show(self, node: Node, value: Any) -> Any:
        return node.shown(value)

    def store(self, value: Any, core: Core | None, path: Path) -> Any:
        return plain(value, core, path)

    def json_schema(self) -> dict[str, Any]:
        return {"$id": "/schemas/any"}


ANYTHING: Final = Anything()


@final
class Scalar(ValueShape):
    """A single value, checked by pydantic."""

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation
        self._type = annotation if annotation in _PLAIN else None
        self._schema = self._described() if self._type is None else {"type": _PLAIN_SCHEMAS[annotation]}
        self._decodes = not _is_plain(annotation)
        self.immediate = not self._decodes

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        from pydantic import ConfigDict, TypeAdapter

        return TypeAdapter(self._annotation, config=ConfigDict(strict=True))

    def _described(self) -> dict[str, Any]:
        from pydantic import PydanticUserError

        try:
            schema = _inlined(self._adapter.json_schema())
        except (PydanticUserError, ValueError, TypeError) as error:
            raise UsageError(f"{self._annotation}: values of this type cannot be stored.") from error
        if not _is_scalar(schema):
            raise UsageError(f"{self._annotation}: values of this type cannot be stored.")
        return schema

    def show(self, node: Node, value: Any) -> Any:
        if self._decodes and not isinstance(value, dict | list):
            from pydantic import ValidationError

            try:
                return self._adapter.validate_python(value, strict=False)
            except ValidationError:
                return value  # A peer wrote something else; it is shown as it is.
        return node.shown(value)

    def store(self, value: Any, core: Core | None, path: Path) -> Any:
        if type(value) is self._type:
            return value
        from pydantic import ValidationError

        try:
            found = self._adapter.validate_python(value)
        except ValidationError as error:
            raise refused(core, path, self._expected(error), value) from None
        return self._adapter.dump_python(found, mode="json") if self._decodes else found

    def _expected(self, error: ValidationError) -> str:
        if self._type is not None:
            return _PLAIN[self._type]
        said = error.errors(include_url=False, include_context=False)
        return " or ".join(dict.fromkeys(one["msg"].removeprefix("Input should be ") for one in said))

    def json_schema(self) -> dict[str, Any]:
        return copy.deepcopy(self._schema)


@final
class Nullable(ValueShape):
    """A value that may be None, which is stored as null."""

    def __init__(self, inner: ValueShape) -> None:
        self.inner = inner

    def part(self, step: str | int) -> Shape | None:
        return self.inner.part(step)

    def show(self, node: Node, value: Any) -> Any:
        return self.inner.show(node, value)

    def store(self, value: Any, core: Core | None, path: Path) -> Any:
        return None if value is None else self.inner.store(value, core, path)

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [self.inner.json_schema(), {"type": "null"}]}


class _Sized(ValueShape):
    """A list or map, whose length may have bounds."""

    def __init__(self, inner: ValueShape, length_min: int | None, length_max: int | None) -> None:
        self.inner, self._min, self._max = inner, length_min, length_max

    def part(self, step: str | int) -> Shape | None:
        return self.inner

    def check_length(self, length: int, core: Core | None, path: Path) -> None:
        if self._min is not None and length < self._min:
            raise InvalidValueError(f"{place_name(core, path)}: expected at least {self._min} values, not {length}")
        if self._max is not None and length > self._max:
            raise InvalidValueError(f"{place_name(core, path)}: expected at most {self._max} values, not {length}")


@final
class ListOf(_Sized):
    """A list whose elements have one shape."""

    def show(self, node: Node, value: Any) -> Any:
        return node.shown(value, self if isinstance(value, list) else None)

    def store(self, value: Any, core: Core | None, path: Path) -> Any:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
            raise refused(core, path, "a list", value)
        self.check_length(len(value), core, path)
        return [self.inner.store(inner, core, (*path, index)) for index, inner in enumerate(value)]

    def json_schema(self) -> dict[str, Any]:
        result: dict[str, Any] = {"type": "array", "items": self.inner.json_schema()}
        bounds = {"minItems": self._min, "maxItems": self._max}
        return result | {name: bound for name, bound in bounds.items() if bound is not None}


@final
class MapOf(_Sized):
    """A map with any keys, whose values have one shape."""

    def show(self, node: Node, value: Any) -> Any:
        return node.shown(value, self if isinstance(value, dict) else None)

    def store(self, value: Any, core: Core | None, path: Path) -> Any:
        if not isinstance(value, Mapping):
            raise refused(core, path, "a map", value)
        self.check_length(len(value), core, path)
        return {key: self.inner.store(inner, core, (*path, key)) for key, inner in value.items()}

    def json_schema(self) -> dict[str, Any]:
        # 0.8.3 reads a map's values from here too, and its own form has an empty text as a key, which has no place in
        # a document.
        return {"type": "object", "additionalProperties": self.inner.json_schema()}


@final
@dataclass(frozen=True, slots=True)
class FieldShape:
    """One field of a class."""

    name: str  # Of the attribute.
    key: str  # Of the stored property.
    shape: ValueShape
    default: Any = MISSING
    factory: Callable[[], Any] | None = None
    optional: bool = False  # None and nothing are the same.
    description: str | None = None

    @property
    def required(self) -> bool:
        """Whether a new object must be given a value."""
        return not self.optional and self.default is MISSING and self.factory is None

    def made(self) -> Any:
        """The default, anew."""
        return self.factory() if self.factory is not None else None if self.optional else self.default

    def read(self, holder: LiveMap) -> Any:
        """The field's value in a map that has the shape of its class."""
        if self.key in holder.target:
            return holder[self.key]
        if self.required:
            raise AttributeError(f"{place_name(holder.core, (self.key,))} has no value: a peer has left it out")
        value = self.made()
        if value is None:
            return None
        stored = self.shape.store(value, None, (self.key,))
        if isinstance(stored, list | dict):
            # Shown as live, and stored with the first edit.
            return self.shape.show(_Default(holder, self.key), stored)
        return value

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of the property."""
        result = self.shape.json_schema()
        if self.description is not None:
            result["description"] = self.description
        if self.default is not MISSING and self.default is not None:
            result["default"] = self.shape.store(self.default, None, (self.key,))
        return result


class _Default(Node):
    """Stands for a map that lacks a key, while the default that is shown for it becomes a live value."""

    __slots__ = ("_key",)

    def __init__(self, holder: LiveMap, key: str) -> None:
        super().__init__(holder._object, holder, None)
        self._key = key

    def shown(self, value: Any, shape: Shape | None = None) -> Any:
        from dxos.client.live import LiveList

        assert self.parent is not None
        return (LiveMap if isinstance(value, dict) else LiveList)(self._object, self.parent, value, shape, self._key)


class StructShape(ValueShape):
    """A map with the fields of a class; they are looked at when first needed, because they may name later classes.

    Args:
        name: Of the class, for messages.
        resolve: Gives the fields.
        view: Makes what the application sees of a live map; None: the live map itself.
    """

    def __init__(
        self, name: str, resolve: Callable[[], list[FieldShape]], view: Callable[[LiveMap], Any] | None = None
    ) -> None:
        self.name, self._resolve, self._view = name, resolve, view

    @cached_property
    def fields(self) -> dict[str, FieldShape]:
        """The fields by the keys of their properties."""
        return {one.key: one for one in self._resolve()}

    @cached_property
    def by_name(self) -> dict[str, FieldShape]:
        """The fields by the names of their attributes."""
        return {one.name: one for one in self.fields.values()}

    def part(self, step: str | int) -> Shape | None:
        found = self.fields.get(step) if isinstance(step, str) else None
        return None if found is None else found.shape

    def show(self, node: Node, value: Any) -> Any:
        if not isinstance(value, dict):
            return node.shown(value)
        shown = node.shown(value, self)
        return self._view(shown) if self._view is not None and isinstance(shown, LiveMap) else shown

    def store(self, value: Any, core: Core | None, path: Path) -> Any:
        found = self.values_of(value)
        if found is None:
            raise refused(core, path, with_article(self.name), value)
        return self.make(found, core, path)

    def values_of(self, value: Any) -> Mapping[str, Any] | None:
        """The values by attribute or key that something holds; None where it is nothing of this shape."""
        if isinstance(value, HasValues):
            return value.values_by_name()
        kind = type(value)
        if is_pydantic(kind):
            return {name: getattr(value, name) for name in kind.model_fields}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        return value if isinstance(value, Mapping) else None

    def make(self, given: Mapping[str, Any], core: Core | None, path: Path) -> dict[str, Any]:
        """A new map from values by attribute or key, with defaults for what is not given.

        Raises:
            InvalidValueError: A value of another type, one that is lacking, or one that no field takes.
        """
        values = {(self.by_name[one].key if one in self.by_name else one): value for one, value in given.items()}
        for key in values:
            if key not in self.fields:
                raise InvalidValueError(f"{place_name(core, (*path, key))}: the type has no such property.")
        result = {}
        for key, one in self.fields.items():
            value = values[key] if key in values else MISSING if one.required else one.made()
            if value is MISSING:
                raise InvalidValueError(f"{place_name(core, (*path, key))}: a value is required.")
            if value is not None or not one.optional:
                result[key] = one.shape.store(value, core, (*path, key))
        return result

    def check_gone(self, step: str | int, core: Core | None, path: Path) -> None:
        found = self.fields.get(step) if isinstance(step, str) else None
        if found is not None and not found.optional:
            raise InvalidValueError(f"{place_name(core, path)}: a value is required.")

    def drops(self, step: str | int) -> bool:
        found = self.fields.get(step) if isinstance(step, str) else None
        return found is not None and found.optional

    def properties(self) -> dict[str, Any]:
        """The JSON Schemas of the properties."""
        return {key: one.json_schema() for key, one in self.fields.items()}

    def required(self) -> list[str]:
        """The keys of the properties that each such map has."""
        return [key for key, one in self.fields.items() if one.required]

    def json_schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": self.properties(),
            "required": self.required(),
            "propertyOrder": list(self.fields),
            "additionalProperties": False,
        }


class HasValues:
    """What holds values of fields: a structure, in an object or not yet."""

    __slots__ = ()

    def values_by_name(self) -> dict[str, Any]:
        """The values that are there, by attribute."""
        raise NotImplementedError


def shape_of(annotation: Any) -> ValueShape:
    """The shape that an annotation stands for.

    Raises:
        UsageError: Values of such a type cannot be stored.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        length_min, length_max, others = _bounds(args[1:])
        inner = shape_of(args[0])
        if isinstance(inner, ListOf | MapOf) and not others:
            return type(inner)(inner.inner, length_min, length_max)
        return Scalar(annotation) if isinstance(inner, Scalar) else inner
    if annotation in (Any, object):
        return ANYTHING
    own = getattr(origin or annotation, "_shape_as_value", None)
    if own is not None:
        found = own(*args)
        assert isinstance(found, ValueShape)
        return found
    if annotation in (list, MutableSequence, Sequence) or origin in (list, MutableSequence, Sequence):
        return ListOf(shape_of(args[0]) if args else ANYTHING, None, None)
    if annotation in (dict, MutableMapping, Mapping) or origin in (dict, MutableMapping, Mapping):
        if args and args[0] is not str:
            raise UsageError(f"{annotation}: the keys of a map are texts.")
        return MapOf(shape_of(args[1]) if args else ANYTHING, None, None)
    if origin in (Union, UnionType):
        return _union(annotation, args)
    if isinstance(annotation, type) and (is_model(annotation) or _is_typed_dictionary(annotation)):
        return model_shape(annotation)
    return Scalar(annotation)


def is_model(kind: object) -> bool:
    """Whether something is a pydantic model or a dataclass."""
    return isinstance(kind, type) and (is_pydantic(kind) or dataclasses.is_dataclass(kind))


def is_pydantic(kind: type) -> TypeGuard[type[BaseModel]]:
    """Whether a class is a model of pydantic's; as long as nobody has imported that, none is."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def model_shape(model: type, view: Callable[[LiveMap], Any] | None = None) -> StructShape:
    """The shape of a pydantic model, a dataclass, or a typed dictionary."""
    return StructShape(model.__name__, lambda: model_fields(model), view)


def model_fields(model: type) -> list[FieldShape]:
    """The fields of a pydantic model, a dataclass, or a typed dictionary."""
    if is_pydantic(model):
        return [_of_info(name, info) for name, info in model.model_fields.items()]
    hints = typing.get_type_hints(model, include_extras=True)
    if dataclasses.is_dataclass(model):
        return [
            make_field(
                one.name,
                hints[one.name],
                default=MISSING if one.default is dataclasses.MISSING else one.default,
                factory=None if one.default_factory is dataclasses.MISSING else one.default_factory,
            )
            for one in dataclasses.fields(model)
        ]
    optional: frozenset[str] = getattr(model, "__optional_keys__", frozenset())
    return [make_field(name, hint, optional=name in optional) for name, hint in hints.items()]


def make_field(
    name: str,
    annotation: Any,
    *,
    key: str | None = None,
    default: Any = MISSING,
    factory: Callable[[], Any] | None = None,
    optional: bool = False,
    description: str | None = None,
) -> FieldShape:
    """One field; where its default is None, None and nothing are the same."""
    shape = shape_of(annotation)
    if default is None:
        if not isinstance(shape, Nullable):
            if not isinstance(shape, Anything):
                raise UsageError(f"{name}: the default is None, so write `{_shown_type(annotation)} | None`")
        else:
            shape = shape.inner
        optional, default = True, MISSING
    elif isinstance(default, list | dict):
        # One list for all objects is never what is meant.
        value, default, factory = default, MISSING, lambda: copy.deepcopy(value)
    if default is not MISSING:
        shape.store(default, None, (name,))
    return FieldShape(name, key or name, shape, default, factory, optional, description)


def with_article(name: str) -> str:
    """`a Task`, `an Object`: by the first letter, which is right for most names."""
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def refused(core: Core | None, path: Path, expected: str, value: object) -> InvalidValueError:
    """The error for a value of another type."""
    found = f"{value!r:.{_SHOWN_CHARS}} ({type(value).__name__})"
    return InvalidValueError(f"{place_name(core, path)}: expected {expected}, not {found}")


def _of_info(name: str, info: FieldInfo) -> FieldShape:
    annotation: Any = info.annotation
    if info.metadata:
        annotation = Annotated[(annotation, *info.metadata)]
    default = MISSING if info.is_required() or info.default_factory is not None else info.default
    factory: Any = info.default_factory
    return make_field(name, annotation, key=info.alias, default=default, factory=factory, description=info.description)


def _union(annotation: Any, args: tuple[Any, ...]) -> ValueShape:
    rest = [one for one in args if one is not NoneType]
    if len(rest) == len(args):
        if all(isinstance(shape_of(one), Scalar) for one in rest):
            return Scalar(annotation)
        raise UsageError(f"{annotation}: only single values can be of several types.")
    inner = shape_of(rest[0] if len(rest) == 1 else Union[tuple(rest)])  # noqa: UP007 - It is made, not written.
    return ANYTHING if isinstance(inner, Anything) else Nullable(inner)


def _bounds(metadata: Sequence[Any]) -> tuple[int | None, int | None, list[Any]]:
    """The bounds of a length, and what else is said of a type."""
    length_min, length_max, others = None, None, []
    # pydantic's `Field` holds several.
    found = [inner for one in metadata for inner in getattr(one, "metadata", (one,))]
    for one in found:
        least, most = getattr(one, "min_length", None), getattr(one, "max_length", None)
        if least is None and most is None:
            others.append(one)
        length_min, length_max = length_min if least is None else least, length_max if most is None else most
    return length_min, length_max, others


def _is_typed_dictionary(kind: type) -> bool:
    # Of `typing` or `typing_extensions`, which need not be there to tell.
    return issubclass(kind, dict) and hasattr(kind, "__total__")


def _is_plain(annotation: Any) -> bool:
    """Whether values are stored as they are."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_plain(get_args(annotation)[0])
    if origin is Literal:
        return all(value is None or type(value) in _PLAIN for value in get_args(annotation))
    if origin in (Union, UnionType):
        return all(map(_is_plain, get_args(annotation)))
    return annotation in _PLAIN or annotation is NoneType or annotation is None


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema of a single value without what 0.8.3 does not know."""
    definitions = schema.pop("$defs", {})
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    schema.pop("title", None)
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if "anyOf" in schema:
        schema["anyOf"] = [_inlined({**one, "$defs": definitions}) for one in schema["anyOf"]]
    return schema


def _is_scalar(schema: Mapping[str, Any]) -> bool:
    if "anyOf" in schema:
        return all(map(_is_scalar, schema["anyOf"]))
    return (schema.get("type") in _SCALARS or "enum" in schema) and schema.get("format") != "binary"


def _shown_type(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
