"""Values of the service contract as bytes, and back: closures made once for each annotation, bytes by MessagePack.

A dataclass is the list of its fields, in order; an enum its value; a key its bytes; an error its code, message and
detail, so that the same class is raised on the other side. Where an annotation allows several dataclasses, the class's
name comes first. Both sides run the same release, which their first messages have made sure of, so no field is ever
missing. What does not fit raises ProtocolError, whoever sent it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, Final, Literal, Union, cast, final, get_args, get_origin, get_type_hints

import msgpack

from dxos.echo import mutation
from dxos.echo.query import Query
from dxos.errors import Detail, DxosError, InvalidValueError, PeerError, ProtocolError, from_wire
from dxos.keys import PublicKey

Plain = Any  # What MessagePack knows: None, bool, int, float, str, bytes, list, dict.

_PLAIN: Final = (type(None), bool, int, float, str, bytes, list, dict)


@final
@dataclass(frozen=True, slots=True)
class Codec:
    """How values of one annotation become plain data, and come back checked."""

    encode: Callable[[Any], Plain] | None  # None: the value is plain data already.
    decode: Callable[[Plain], Any]
    allowed: frozenset[type] | None = None  # What `decode` lets pass as it is, where that is all it does.

    def pack(self, value: Any) -> bytes:
        """A value as bytes.

        Raises:
            InvalidValueError: It holds what cannot be sent, such as an object of the application in a message.
        """
        try:
            return cast(bytes, msgpack.packb(value if self.encode is None else self.encode(value)))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidValueError(f"This cannot be sent to the host: {error}") from error

    def unpack(self, untrusted: bytes) -> Any:
        """A value from bytes.

        Raises:
            ProtocolError: Not bytes that `pack` made of a value of this annotation.
        """
        try:
            return self.decode(msgpack.unpackb(untrusted, ext_hook=_refuse))
        except ProtocolError:
            raise
        except (PeerError, TypeError, ValueError, OverflowError, RecursionError, msgpack.UnpackException) as error:
            raise ProtocolError("A value that does not parse.") from error


@cache
def codec_of(annotation: Any) -> Codec:
    """The codec of an annotation that the contract uses.

    Raises:
        TypeError: There is none: the contract may not use it.
    """
    if annotation is Any:
        return Codec(None, _anything)
    special = _SPECIAL.get(annotation)
    if special is not None:
        return special
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _passing(arguments)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return _record(tuple, [codec_of(one) for one in arguments], tuple)
    if origin in (tuple, list, Sequence):
        return _sequence(codec_of(arguments[0]), list if origin is list else tuple)
    if origin in (dict, Mapping):
        return Codec(_to_dict, _checked(frozenset({dict})))
    if annotation is None or annotation in _PLAIN:
        # A whole float may come as an integer of the application.
        kinds = {float, int} if annotation is float else {type(None) if annotation is None else annotation}
        return Codec(None, _checked(frozenset(kinds)), frozenset(kinds))
    if isinstance(annotation, type) and issubclass(annotation, DxosError):
        return Codec(_from_error, _to_error)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _enum(annotation)
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _dataclass(annotation)
    raise TypeError(f"nothing of the contract is a {annotation}")


def _refuse(code: int, _: bytes) -> Plain:
    raise ProtocolError("A kind of value that nobody sends.", kind=code)


def _anything(value: Plain) -> Any:
    return value


def _to_dict(value: Mapping[str, Any]) -> dict[str, Any]:
    return value if type(value) is dict else dict(value)


def _checked(allowed: frozenset[type]) -> Callable[[Plain], Any]:
    def decode(value: Plain) -> Any:
        if type(value) not in allowed:
            raise ProtocolError("A value of the wrong type.")
        return value

    return decode


def _passing(values: tuple[Any, ...]) -> Codec:
    def decode(value: Plain) -> Any:
        if value not in values:
            raise ProtocolError("A word unknown here.")
        return value

    return Codec(None, decode)


def _enum(kind: type[Enum]) -> Codec:
    # By type too, because True is 1 to a dict.
    members = {(type(one.value), one.value): one for one in kind}

    def decode(value: Plain) -> Enum:
        found = members.get((type(value), value)) if isinstance(value, int | str) else None
        if found is None:
            raise ProtocolError(f"An unknown {kind.__name__}.")
        return found

    return Codec(attrgetter("value"), decode)


def _sequence(item: Codec, kind: type[list[Any]] | type[tuple[Any, ...]]) -> Codec:
    encode, decode, allowed = item.encode, item.decode, item.allowed

    def to_plain(values: Sequence[Any]) -> Plain:
        return tuple(values) if encode is None else tuple(map(encode, values))

    def from_plain(value: Plain) -> Any:
        if type(value) is not list:
            raise ProtocolError("A value of the wrong type.")
        if allowed is None:
            return kind(map(decode, value))
        if not allowed.issuperset(map(type, value)):
            raise ProtocolError("A value of the wrong type.")
        return kind(value)

    return Codec(to_plain, from_plain)


def _record(read: Callable[[Any], Sequence[Any]], parts: Sequence[Codec], make: Callable[..., Any]) -> Codec:
    """A fixed number of values: `read` gives them, `make` takes them, as one sequence for a tuple."""
    encoders = [(index, one.encode) for index, one in enumerate(parts) if one.encode is not None]
    decoders = [(index, one.decode) for index, one in enumerate(parts) if one.allowed is None]
    checks = [(index, one.allowed) for index, one in enumerate(parts) if one.allowed is not None]
    count = len(parts)

    def to_plain(value: Any) -> Plain:
        values = read(value)
        if not encoders:
            return values
        values = list(values)
        for index, encode in encoders:
            values[index] = encode(values[index])
        return values

    def from_plain(values: Plain) -> Any:
        if type(values) is not list or len(values) != count:
            raise ProtocolError("A value with another number of parts.")
        for index, allowed in checks:
            if type(values[index]) not in allowed:
                raise ProtocolError("A value of the wrong type.")
        for index, decode in decoders:
            values[index] = decode(values[index])
        return make(values)

    return Codec(to_plain, from_plain)


def _dataclass(kind: type[Any]) -> Codec:
    hints = get_type_hints(kind)
    names = [one.name for one in fields(kind)]
    parts = [codec_of(hints[name]) for name in names]
    getter = attrgetter(*names) if names else None

    def read(value: Any) -> Sequence[Any]:
        if getter is None:
            return ()
        found = getter(value)
        return cast(Sequence[Any], found) if len(names) > 1 else (found,)

    return _record(cast(Any, getter) if len(names) > 1 else read, parts, lambda values: kind(*values))


def _union(members: tuple[Any, ...]) -> Codec:
    rest = [one for one in members if one is not type(None)]
    optional = len(rest) < len(members)
    simple = [get_origin(one) or one for one in rest]
    if all(one in _PLAIN for one in simple):
        allowed = frozenset(simple) | ({type(None)} if optional else frozenset())
        return Codec(None, _checked(allowed), allowed)
    inner = codec_of(rest[0]) if len(rest) == 1 else _tagged(rest)
    if not optional:
        return inner
    encode, decode = inner.encode or _anything, inner.decode
    return Codec(
        lambda value: None if value is None else encode(value),
        lambda value: None if value is None else decode(value),
    )


def _tagged(kinds: Sequence[type[Any]]) -> Codec:
    by_name = {kind.__name__: codec_of(cast(Any, kind)) for kind in kinds}

    def encode(value: Any) -> Plain:
        name = type(value).__name__
        inner = by_name[name].encode
        return [name, value if inner is None else inner(value)]

    def decode(value: Plain) -> Any:
        match value:
            case [str(name), content] if name in by_name:
                return by_name[name].decode(content)
        raise ProtocolError("A value of a kind unknown here.")

    return Codec(encode, decode)


def _to_key(value: Plain) -> PublicKey:
    if type(value) is not bytes:
        raise ProtocolError("Not a key.")
    return PublicKey(value)


def _from_error(error: DxosError) -> Plain:
    return [error.code, str(error), error.detail]


def _to_error(value: Plain) -> DxosError:
    match value:
        case [str(code), str(message), dict(detail)] if all(
            type(key) is str and isinstance(one, str | int | float | bool) for key, one in detail.items()
        ):
            return from_wire(code, message, cast(dict[str, Detail], detail))
    raise ProtocolError("Not an error.")


_SPECIAL: Final[dict[Any, Codec]] = {
    PublicKey: Codec(bytes, _to_key),
    Query: Codec(Query.to_wire, Query.from_wire),
    mutation.Mutation: Codec(mutation.to_wire, mutation.from_wire),
}
