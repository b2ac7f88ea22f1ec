"""Base 62, the alphabet of invitation codes: digits, lower-case, upper-case; each leading zero byte is one `0`."""

from dxos.errors import InvalidKeyError

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUES = {char: value for value, char in enumerate(ALPHABET)}


def encode(data: bytes) -> str:
    """Bytes as text, big end first."""
    number = int.from_bytes(data, "big")
    chars: list[str] = []
    while number:
        number, rest = divmod(number, len(ALPHABET))
        chars.append(ALPHABET[rest])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "0" * zeros + "".join(reversed(chars))


def decode(text: str) -> bytes:
    """Text as bytes; the caller bounds its length, as the cost grows with the square of it.

    Raises:
        InvalidKeyError: A character outside the alphabet.
    """
    number = 0
    for char in text:
        value = _VALUES.get(char)
        if value is None:
            raise InvalidKeyError("Not base 62: only digits and letters.")
        number = number * len(ALPHABET) + value
    zeros = len(text) - len(text.lstrip("0"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
