"""Cuts a byte stream into frames: two bytes of length, highest first, then that many bytes."""

from typing import final

from dxos.limits import FRAME_BYTES_MAX

_HEADER_BYTES = 2


def encode_frame(payload: bytes) -> bytes:
    """One frame; `payload` is at most FRAME_BYTES_MAX bytes."""
    assert len(payload) <= FRAME_BYTES_MAX, "a frame's length is a 16-bit number"
    return len(payload).to_bytes(_HEADER_BYTES, "big") + payload


@final
class FrameReader:
    """Collects bytes and gives whole frames; holds less than one frame between calls."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, untrusted: bytes) -> list[bytes]:
        """Take bytes of the stream, cut anywhere; return the frames they complete, in order."""
        data = self._rest + untrusted if self._rest else untrusted
        frames: list[bytes] = []
        start, end = 0, len(data)
        while end - start >= _HEADER_BYTES:
            stop = start + _HEADER_BYTES + (data[start] << 8 | data[start + 1])
            if stop > end:
                break
            frames.append(data[start + _HEADER_BYTES : stop])
            start = stop
        self._rest = data[start:]
        return frames

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._rest)
