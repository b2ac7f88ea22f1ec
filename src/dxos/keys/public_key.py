"""`PublicKey`: bytes that name an identity, device, space or feed; also topics and other opaque identifiers."""

from __future__ import annotations

import base64
from typing import final

from dxos.errors import InvalidKeyError

_SHORT_CHARS = 8
_BASE32_PREFIX = "B"


@final
class PublicKey:
    """A key or opaque identifier; immutable, hashable, ordered by its bytes.

    Identity, device, space and feed keys are 65 bytes (uncompressed P-256 points); topics, invitation and message ids
    are 32. The length is checked where a key is used to verify, not here, because the wire uses one type for all.
    """

    __slots__ = ("_data", "_hash")

    def __init__(self, data: bytes) -> None:
        self._data = bytes(data)
        self._hash = hash(self._data)

    @classmethod
    def from_hex(cls, text: str) -> PublicKey:
        """Parse hex digits, optionally after `0x`.

        Raises:
            InvalidKeyError: Not hex.
        """
        try:
            return cls(bytes.fromhex(text.removeprefix("0x")))
        except ValueError:
            raise InvalidKeyError("A key is written in hex digits.") from None

    @classmethod
    def from_multibase32(cls, text: str) -> PublicKey:
        """Parse what `to_multibase32` returns.

        Raises:
            InvalidKeyError: No prefix, or not base32.
        """
        if not text.startswith(_BASE32_PREFIX):
            raise InvalidKeyError("A base32 key begins with B.")
        try:
            return cls(base64.b32decode(text[1:]))
        except ValueError:
            raise InvalidKeyError("A key in base32 has the letters A to Z and the digits 2 to 7.") from None

    @property
    def hex(self) -> str:
        """Lower-case hex digits."""
        return self._data.hex()

    def to_multibase32(self) -> str:
        """`B` and the bytes in base32, padded with `=` where their number is no multiple of 5."""
        return _BASE32_PREFIX + base64.b32encode(self._data).decode("ascii")

    def truncate(self) -> str:
        """The first 8 hex digits, for people to tell keys apart; not unique."""
        return self._data.hex()[:_SHORT_CHARS]

    def __bytes__(self) -> bytes:
        return self._data

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        return self._data == other._data if isinstance(other, PublicKey) else NotImplemented

    def __lt__(self, other: PublicKey) -> bool:
        return self._data < other._data

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self._data.hex()

    def __repr__(self) -> str:
        return f"<PublicKey {self.truncate()}>"
