"""The CBOR that automerge-repo peers exchange: maps, lists, texts, bytes and numbers, without tags.

Our own instead of a library, because a general decoder builds whatever a tag asks for (dates, regular expressions,
shared cycles), and because 0.8.3 writes its maps with a 16-bit count, which ours repeats byte for byte.
"""

from __future__ import annotations

import struct
from typing import Any

from dxos.errors import DecodeError
from dxos.limits import VALUE_DEPTH_MAX

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP, _, _SIMPLE = range(8)  # Major types; 6 is a tag.
_FALSE, _TRUE, _NULL, _UNDEFINED = 20, 21, 22, 23
_HALF, _SINGLE, _DOUBLE = 25, 26, 27
_SIZES = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS = {_HALF: ">e", _SINGLE: ">f", _DOUBLE: ">d"}
_MAP_16 = 0xB9
_COUNT_16_MAX = 0xFFFF
_TINY, _SHORT_MAX = 24, 0xFF  # A length from the one to the other takes one byte of its own.
_SHORT_TEXT = bytes((_TEXT << 5 | 24,)) + b"%c"


def encode(value: Any) -> bytes:
    """The bytes of a value of None, bool, int, float, str, bytes, list and dict with str keys."""
    out = bytearray()
    _write(out, value)
    return bytes(out)


def _write(out: bytearray, value: Any) -> None:
    if type(value) is str and value.isascii() and _TINY <= len(value) <= _SHORT_MAX:
        # Nearly all of a long message are ids and hashes.
        out += _SHORT_TEXT % len(value)
        out += value.encode()
        return
    match value:
        case None:
            out.append(_SIMPLE << 5 | _NULL)
        case bool():
            out.append(_SIMPLE << 5 | (_TRUE if value else _FALSE))
        case int():
            _write_head(out, _UNSIGNED if value >= 0 else _NEGATIVE, value if value >= 0 else -1 - value)
        case float():
            out += bytes((_SIMPLE << 5 | _DOUBLE,)) + struct.pack(">d", value)
        case bytes():
            _write_head(out, _BYTES, len(value))
            out += value
        case str():
            data = value.encode()
            _write_head(out, _TEXT, len(data))
            out += data
        case list() | tuple():
            _write_head(out, _LIST, len(value))
            for element in value:
                _write(out, element)
        case dict():
            if len(value) <= _COUNT_16_MAX:
                out += bytes((_MAP_16,)) + len(value).to_bytes(2, "big")
            else:
                _write_head(out, _MAP, len(value))
            for key, element in value.items():
                _write(out, key)
                _write(out, element)
        case _:
            raise TypeError(f"no CBOR for a {type(value).__name__}")


def _write_head(out: bytearray, major: int, number: int) -> None:
    if number < 24:
        out.append(major << 5 | number)
        return
    for marker, size in _SIZES.items():
        if number < 1 << 8 * size:
            out.append(major << 5 | marker)
            out += number.to_bytes(size, "big")
            return
    raise OverflowError("a number of more than 64 bits")


def decode(untrusted: bytes) -> Any:
    """The value of exactly these bytes; `undefined` becomes None.

    Raises:
        DecodeError: Cut short, followed by more, tagged, of unknown length, or nested too deep.
    """
    value, end = _read(untrusted, 0, VALUE_DEPTH_MAX)
    if end != len(untrusted):
        raise DecodeError("Bytes after the end of a CBOR value.")
    return value


def _read(data: bytes, at: int, depth_left: int) -> tuple[Any, int]:
    if at >= len(data):
        raise DecodeError("A CBOR value that ends too early.")
    major, number = data[at] >> 5, data[at] & 0x1F
    at += 1
    if major == _TEXT and number == 24 and at < len(data):
        end = at + 1 + data[at]
        if end <= len(data):
            return _text(data[at + 1 : end]), end
    if major == _SIMPLE:
        return _read_simple(data, at, number)
    if size := _SIZES.get(number):
        number = int.from_bytes(_take(data, at, size), "big")
        at += size
    elif number >= 24:
        raise DecodeError("A CBOR value without a length.")
    match major:
        case 0:
            return number, at
        case 1:
            return -1 - number, at
        case 2:
            return _take(data, at, number), at + number
        case 3:
            return _text(_take(data, at, number)), at + number
        case 4 | 5 if depth_left == 0:
            raise DecodeError("A CBOR value nested too deep.")
        case 4:
            return _read_list(data, at, number, depth_left - 1)
        case 5:
            return _read_map(data, at, number, depth_left - 1)
    raise DecodeError("A CBOR value with a tag.")


def _read_list(data: bytes, at: int, count: int, depth_left: int) -> tuple[list[Any], int]:
    if count > len(data) - at:
        raise DecodeError("A CBOR list that ends too early.")
    values = []
    for _ in range(count):
        value, at = _read(data, at, depth_left)
        values.append(value)
    return values, at


def _read_map(data: bytes, at: int, count: int, depth_left: int) -> tuple[dict[str, Any], int]:
    if count > len(data) - at:
        raise DecodeError("A CBOR map that ends too early.")
    entries: dict[str, Any] = {}
    for _ in range(count):
        key, at = _read(data, at, depth_left)
        if not isinstance(key, str):
            raise DecodeError("A CBOR map whose key is no text.")
        entries[key], at = _read(data, at, depth_left)
    return entries, at


def _read_simple(data: bytes, at: int, number: int) -> tuple[Any, int]:
    if number in (_FALSE, _TRUE):
        return number == _TRUE, at
    if number in (_NULL, _UNDEFINED):
        return None, at
    if form := _FLOATS.get(number):
        size = _SIZES[number]
        return struct.unpack(form, _take(data, at, size))[0], at + size
    raise DecodeError("A CBOR value of an unknown kind.")


def _take(data: bytes, at: int, count: int) -> bytes:
    if count > len(data) - at:
        raise DecodeError("A CBOR value that ends too early.")
    return data[at : at + count]


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError("A CBOR text that is not UTF-8.") from None
