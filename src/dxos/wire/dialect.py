"""Protobuf as DXOS 0.8.3 writes it: zeros are explicit, `Any` names its type without a prefix.

Field presence. 0.8.3 writes every field of implicit presence, also when it is zero, empty or missing; a missing
sub-message becomes one whose own fields are defaulted in turn. Our .proto files mark those fields `always`, and
`encode` completes a message before it serialises it. A zero enum that is *not* written reads as "undefined" there, so
this is needed and not a nicety.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError as ForeignDecodeError
from google.protobuf.message import Message

from dxos.errors import DecodeError, InvalidValueError, LimitError
from dxos.keys import PublicKey
from dxos.limits import MESSAGE_BYTES_MAX, VALUE_DEPTH_MAX
from dxos.wire.proto import dialect_pb2, keys_pb2, values_pb2

M = TypeVar("M", bound=Message)
# The library's own classes for these are one of two, by whether its fast half is present.
Field = Any
Descriptor = Any
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

# Per message type: the fields to complete, and those that may hold messages to complete.
_Plan = tuple[tuple[tuple[str, object], ...], tuple[str, ...], tuple[tuple[str, bool], ...]]
_plans: dict[str, _Plan] = {}

# `Any` payloads that protobuf's own library would name differently; the bytes are the same.
_STAND_INS: dict[str, type[Message]] = {
    "google.protobuf.Struct": values_pb2.Struct,
    "google.protobuf.Value": values_pb2.Value,
    "google.protobuf.Timestamp": values_pb2.Timestamp,
    "google.protobuf.Empty": Empty,
}
_STAND_IN_NAMES = {kind.DESCRIPTOR.full_name: name for name, kind in _STAND_INS.items()}


def encode(message: Message) -> bytes:
    """The message's bytes, fields in the order of their numbers; fields marked `always` are completed in place."""
    complete(message)
    return message.SerializeToString(deterministic=True)


def decode(kind: type[M], untrusted: bytes, *, bytes_max: int = MESSAGE_BYTES_MAX) -> M:
    """Parse bytes from outside.

    Raises:
        LimitError: Longer than `bytes_max`.
        DecodeError: Not a message of this kind.
    """
    if len(untrusted) > bytes_max:
        raise LimitError("A message is too long.", bytes=len(untrusted), bytes_max=bytes_max)
    try:
        return kind.FromString(untrusted)
    except (ForeignDecodeError, UnicodeDecodeError, ValueError) as error:
        raise DecodeError(f"Not a {kind.DESCRIPTOR.name} message.") from error


def complete(message: Message) -> None:
    """Set every `always` field that is missing to its default, here and in all sub-messages."""
    scalars, children, present = _plan(message.DESCRIPTOR)
    for name, default in scalars:
        if not message.HasField(name):
            setattr(message, name, default)
    for name in children:
        child = getattr(message, name)
        child.SetInParent()
        complete(child)
    for name, repeated in present:
        if repeated:
            for item in getattr(message, name):
                complete(item)
        elif message.HasField(name):
            complete(getattr(message, name))


def is_always(field: Field) -> bool:
    """Whether 0.8.3 writes the field also when it is zero or missing."""
    return bool(field.GetOptions().Extensions[dialect_pb2.always])


def _plan(descriptor: Descriptor) -> _Plan:
    plan = _plans.get(descriptor.full_name)
    if plan is None:
        scalars: list[tuple[str, object]] = []
        children: list[str] = []
        present: list[tuple[str, bool]] = []
        for field in descriptor.fields:
            always = is_always(field)
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                if always and not field.is_repeated:
                    children.append(field.name)
                else:
                    present.append((field.name, field.is_repeated))
            elif always and not field.is_repeated:
                scalars.append((field.name, field.default_value))
        plan = _plans[descriptor.full_name] = (tuple(scalars), tuple(children), tuple(present))
    return plan


# --- Any ------------------------------------------------------------------------------------------------------------


def type_name(kind: type[Message] | Message) -> str:
    """The name under which 0.8.3 knows this kind of message."""
    name = kind.DESCRIPTOR.full_name
    return _STAND_IN_NAMES.get(name, name)


def pack_any(message: Message, *, dot: bool = False) -> values_pb2.Any:
    """Wrap a message; `dot` puts a dot before its type, as 0.8.3 does in the envelopes of calls."""
    return values_pb2.Any(type_url=("." if dot else "") + type_name(message), value=encode(message))


def unpack_any(packed: values_pb2.Any) -> Message:
    """Unwrap a message of any kind known here.

    Raises:
        DecodeError: Its type is unknown, or its bytes do not parse.
    """
    name = packed.type_url.removeprefix(".")
    kind = _STAND_INS.get(name)
    if kind is None:
        if not name.startswith("dxos."):
            raise DecodeError("A message of a type unknown here.")
        # What others put into an `Any`; not imported before, because a client's calls need none of it.
        from dxos.wire.proto import credentials_pb2, invitations_pb2  # noqa: F401

        try:
            descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
        except KeyError:
            raise DecodeError("A message of a type unknown here.") from None
        kind = message_factory.GetMessageClass(descriptor)
    return decode(kind, packed.value)


# --- Stand-ins -------------------------------------------------------------------------------------------------------


def to_key(key: PublicKey) -> keys_pb2.PublicKey:
    """A key as messages hold it."""
    return keys_pb2.PublicKey(data=bytes(key))


def from_key(message: keys_pb2.PublicKey) -> PublicKey:
    """A key as the program holds it; its length is not checked, as the field may hold any identifier."""
    return PublicKey(message.data)


def to_timestamp(unix_ms: int) -> values_pb2.Timestamp:
    """A moment, given in milliseconds since 1970."""
    seconds, ms = divmod(unix_ms, 1000)
    return values_pb2.Timestamp(seconds=seconds, nanos=ms * 1_000_000)


def from_timestamp(message: values_pb2.Timestamp) -> int:
    """A moment in milliseconds since 1970, parts of them cut off."""
    return message.seconds * 1000 + message.nanos // 1_000_000


def to_struct(value: Mapping[str, Json]) -> values_pb2.Struct:
    """A JSON object as messages hold it.

    Raises:
        InvalidValueError: A value that is not JSON, or nested too deeply.
    """
    struct = values_pb2.Struct()
    for key, item in value.items():
        struct.fields.add(key=key, value=_to_value(item, 1))
    return struct


def _to_value(item: Json, depth: int) -> values_pb2.Value:
    if depth > VALUE_DEPTH_MAX:
        raise InvalidValueError("A value is nested too deeply.", depth_max=VALUE_DEPTH_MAX)
    match item:
        case None:
            return values_pb2.Value(null_value=values_pb2.NULL_VALUE)
        case bool():
            return values_pb2.Value(bool_value=item)
        case int() | float():
            return values_pb2.Value(number_value=item)
        case str():
            return values_pb2.Value(string_value=item)
        case Mapping():
            struct = values_pb2.Struct()
            for key, child in item.items():
                struct.fields.add(key=key, value=_to_value(child, depth + 1))
            return values_pb2.Value(struct_value=struct)
        case Sequence() if not isinstance(item, bytes | bytearray):
            values = [_to_value(child, depth + 1) for child in item]
            return values_pb2.Value(list_value=values_pb2.ListValue(values=values))
    raise InvalidValueError(f"A {type(item).__name__} cannot be sent.")


def from_struct(struct: values_pb2.Struct) -> dict[str, Json]:
    """A JSON object as the program holds it; whole numbers come back as int."""
    return {entry.key: from_value(entry.value) for entry in struct.fields}


def from_value(value: values_pb2.Value) -> Json:
    """A JSON value as the program holds it."""
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [from_value(item) for item in value.list_value.values]
    return None
