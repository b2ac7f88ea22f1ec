"""Numbers of variable length (LEB128), as frames and bitfields hold them."""

from dxos.errors import DecodeError

_BYTES_MAX = 8  # 56 bits: no number on this wire is larger, and JavaScript could not hold one.


def write_varint(value: int) -> bytes:
    """Encode a number from 0 on."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def peek_varint(untrusted: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Return the number at `at` and the place after it; None if more bytes are needed to tell.

    Raises:
        DecodeError: More than 8 bytes long.
    """
    value = 0
    for used in range(_BYTES_MAX):
        if at + used >= len(untrusted):
            return None
        byte = untrusted[at + used]
        value |= (byte & 0x7F) << 7 * used
        if byte <= 0x7F:
            return value, at + used + 1
    raise DecodeError("A number is too long.")


def read_varint(untrusted: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return the number at `at` and the place after it.

    Raises:
        DecodeError: It does not end, or is more than 8 bytes long.
    """
    found = peek_varint(untrusted, at)
    if found is None:
        raise DecodeError("A number ends early.")
    return found
