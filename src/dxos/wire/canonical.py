"""Canonical JSON: the bytes that credentials and presentations are signed over (wire reference, section C.2).

The JSON is that of the *decoded* message with its defaults: camelCase names in UTF-16 order, no spaces; keys and bytes
as lower-case hex, times as ISO 8601 with milliseconds, enums as numbers, `Any` as the message it holds. Nulls and names
that begin with `__` are left out.
"""

import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from dxos.errors import DecodeError
from dxos.limits import VALUE_DEPTH_MAX
from dxos.wire.dialect import Field, Json, from_timestamp, from_value, is_always, unpack_any
from dxos.wire.proto import keys_pb2, timeframe_pb2, values_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def canonical(value: Json) -> bytes:
    """The canonical bytes of a JSON value, such as `to_canonical_json` returns."""
    return _write(value).encode("utf-8", "surrogatepass")


def to_canonical_json(message: Message) -> dict[str, Json]:
    """A message as the JSON object that is signed.

    Raises:
        DecodeError: It holds an `Any` of an unknown type, a time out of range, or is nested too deeply.
    """
    return _message(message, 1)


def _message(message: Message, depth: int) -> dict[str, Json]:
    # An `Any` hides what it holds from the parser's own limit on nesting.
    if depth > VALUE_DEPTH_MAX:
        raise DecodeError("A message is nested too deeply.", depth_max=VALUE_DEPTH_MAX)
    result: dict[str, Json] = {}
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            result[field.camelcase_name] = [_field(field, item, depth) for item in getattr(message, field.name)]
        elif message.HasField(field.name) or (is_always(field) and field.type != FieldDescriptor.TYPE_ENUM):
            # A missing enum stays undefined in 0.8.3, everything else gets its default.
            result[field.camelcase_name] = _field(field, getattr(message, field.name), depth)
    return result


def _field(field: Field, item: object, depth: int) -> Json:
    match item:
        case keys_pb2.PublicKey() | keys_pb2.PrivateKey():
            return item.data.hex()
        case values_pb2.Timestamp():
            return _iso(item)
        case values_pb2.Any():
            return _message(unpack_any(item), depth + 1)
        case values_pb2.Struct():
            return {entry.key: from_value(entry.value) for entry in item.fields}
        case timeframe_pb2.TimeframeVector():
            frames = ((frame.feed_key.hex(), frame.seq) for frame in item.frames)
            return {f"{key[:4]}...{key[-4:]}": seq for key, seq in frames}
        case Message():
            return _message(item, depth + 1)
        case bytes():
            return item.hex()
        case bool() | int() | float() | str():
            # 64-bit numbers are decimal strings in JavaScript.
            return str(item) if field.cpp_type in _LONG_TYPES else item
    raise AssertionError(f"no JSON for {field.full_name}")


_LONG_TYPES = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


def _iso(timestamp: values_pb2.Timestamp) -> str:
    try:
        moment = _EPOCH + timedelta(milliseconds=from_timestamp(timestamp))
    except OverflowError:
        raise DecodeError("A time out of range.") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0") + f".{moment.microsecond // 1000:03d}Z"


def _write(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            kept = [key for key in value if value[key] is not None and key != "@type" and not key.startswith("__")]
            kept.sort(key=lambda key: key.encode("utf-16-be", "surrogatepass"))
            return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_write(value[key])}" for key in kept) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_write, value)) + "]"
    raise AssertionError(f"no JSON value: {type(value).__name__}")


def _number(value: float) -> str:
    """A float as JavaScript prints it: the same digits as Python's, but exponents from 1e21 up and below 1e-6."""
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    digits = f"{value!r}"
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(digits), "f").removesuffix(".0")
    mantissa, _, exponent = digits.partition("e")
    sign = "-" if exponent.startswith("-") else "+"
    return mantissa.removesuffix(".0") + "e" + sign + exponent.lstrip("+-0")
