"""Identifiers that are derived from keys, or made like them: spaces, identities, objects, documents, topics."""

import base64
import functools
import hashlib
import re

import base58

from dxos.errors import InvalidKeyError
from dxos.keys.public_key import PublicKey

_ID_BYTES = 20
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_OBJECT_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_SPACE_ID = re.compile(r"B[A-Z2-7]{32}")
_ULID_TIME_BYTES, _ULID_RANDOM_BYTES = 6, 10
_ULID_CHARS = 26
_UUID_BYTES = 16
_CHECK_BYTES = 4
_CHECKED_BYTES = _UUID_BYTES + _CHECK_BYTES
_DOCUMENT_ID_CHARS_MAX = 28
_BASE58 = {char: digit for digit, char in enumerate(base58.BITCOIN_ALPHABET.decode())}
_HYPERCORE = b"hypercore"
_PARSED_MAX = 16_384  # Document ids that are known to be good: about 3 MB.


def _short_id(key: PublicKey) -> str:
    return "B" + base64.b32encode(hashlib.sha256(bytes(key)).digest()[:_ID_BYTES]).decode("ascii")


def space_id(space_key: PublicKey) -> str:
    """The 33 characters that name a space: `B` and base32 of the first 20 bytes of its key's SHA-256."""
    return _short_id(space_key)


def is_space_id(text: str) -> bool:
    """Whether text has the form of a space id."""
    return _SPACE_ID.fullmatch(text) is not None


def identity_did(identity_key: PublicKey) -> str:
    """The 42 characters that name an identity, `did:halo:B…`."""
    return "did:halo:" + _short_id(identity_key)


def make_object_id(unix_ms: int, random: bytes) -> str:
    """A new object id: a ULID of 26 characters, so that ids sort by the time they were made.

    Args:
        unix_ms: Now, in milliseconds since 1970.
        random: 10 random bytes.
    """
    number = int.from_bytes(unix_ms.to_bytes(_ULID_TIME_BYTES, "big") + random[:_ULID_RANDOM_BYTES], "big")
    chars = []
    for _ in range(_ULID_CHARS):
        number, rest = divmod(number, len(_CROCKFORD))
        chars.append(_CROCKFORD[rest])
    return "".join(reversed(chars))


def is_object_id(text: str) -> bool:
    """Whether text has the form of an object id."""
    return _OBJECT_ID.fullmatch(text) is not None


def object_time_ms(object_id: str) -> int:
    """When an object id was made, in milliseconds since 1970, if its maker's clock was right.

    Args:
        object_id: For which `is_object_id` holds.
    """
    number = 0
    for char in object_id:
        number = number * len(_CROCKFORD) + _CROCKFORD.index(char)
    return number >> 8 * _ULID_RANDOM_BYTES


def document_id(uuid: bytes) -> str:
    """The text form of a document's id.

    Args:
        uuid: 16 bytes, an RFC 4122 UUID: JavaScript peers refuse, and some crash on, any other bytes.
    """
    return base58.b58encode_check(uuid).decode("ascii")


@functools.lru_cache(_PARSED_MAX)
def parse_document_id(text: str) -> bytes:
    """The 16 bytes of a document id.

    Raises:
        InvalidKeyError: Not base58 with a checksum, or not an RFC 4122 UUID.
    """
    number = 0
    for char in text[:_DOCUMENT_ID_CHARS_MAX]:
        number = number * 58 + _BASE58.get(char, 1 << 8 * _CHECKED_BYTES)  # A strange character makes it too large.
    zeros = len(text) - len(text.lstrip("1"))
    if zeros + (number.bit_length() + 7) // 8 != _CHECKED_BYTES or len(text) > _DOCUMENT_ID_CHARS_MAX:
        raise InvalidKeyError("Not a document id.")
    checked = number.to_bytes(_CHECKED_BYTES, "big")
    uuid = checked[:-_CHECK_BYTES]
    if hashlib.sha256(hashlib.sha256(uuid).digest()).digest()[:_CHECK_BYTES] != checked[-_CHECK_BYTES:]:
        raise InvalidKeyError("Not a document id.")
    if uuid[8] >> 6 != 0b10 or not 1 <= uuid[6] >> 4 <= 8:
        raise InvalidKeyError("A document id is a UUID of RFC 4122.")
    return uuid


def swarm_topic(space_key: PublicKey) -> PublicKey:
    """Where the members of a space meet: 32 bytes."""
    # 0.8.3 hands 31 of the 32 bytes to the keyed hash.
    key = hashlib.sha256(bytes(space_key)).digest()[1:]
    return PublicKey(hashlib.blake2b(_HYPERCORE, key=key, digest_size=32).digest())


def hypercore_key(feed_key: PublicKey) -> bytes:
    """What hypercore takes for a feed's key: the SHA-256 of the feed key's hex digits."""
    return hashlib.sha256(feed_key.hex.encode("ascii")).digest()


def discovery_key(key: bytes) -> bytes:
    """The hash of a hypercore key that is shown to peers: 32 bytes."""
    return hashlib.blake2b(_HYPERCORE, key=key, digest_size=32).digest()
