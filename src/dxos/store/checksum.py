"""A check sum beside every record that no other hash or signature protects, so that a flipped bit is never believed."""

import zlib

from dxos.errors import CorruptionError


def check_sum(content: bytes) -> int:
    """The CRC-32 of `content`."""
    return zlib.crc32(content)


def checked(content: bytes, expected: int, *, what: str) -> bytes:
    """`content`, if its check sum is the `expected` one.

    Raises:
        CorruptionError: It is not; the message names `what`, which is prose and holds no secret.
    """
    if zlib.crc32(content) != expected:
        raise CorruptionError(f"{what} is damaged on disk; restore a backup or join the spaces again.")
    return content
