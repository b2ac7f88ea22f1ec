"""`Timeframe`: how far each feed has been processed; what a block depends on, and what a joining peer waits for."""

from collections.abc import Iterator, Mapping
from typing import final

from dxos.errors import DecodeError, LimitError
from dxos.keys import PublicKey
from dxos.limits import FEED_BLOCKS_MAX, FEEDS_PER_SPACE_MAX
from dxos.wire import encode
from dxos.wire.proto.timeframe_pb2 import TimeframeVector


@final
class Timeframe(Mapping[PublicKey, int]):
    """For each feed the index of its last processed block; a feed of which none was processed is absent. Immutable.

    Args:
        frames: Feed key to index, each from 0 on.
    """

    __slots__ = ("_frames", "_hash")

    def __init__(self, frames: Mapping[PublicKey, int] | None = None) -> None:
        self._frames = dict(frames or {})
        assert all(sequence >= 0 for sequence in self._frames.values())
        self._hash: int | None = None

    @classmethod
    def from_wire(cls, untrusted: TimeframeVector) -> "Timeframe":
        """Read a timeframe from a message.

        Raises:
            LimitError: More feeds, or a longer feed, than the limits allow.
            DecodeError: A feed without key, named twice, or with an index below zero.
        """
        if len(untrusted.frames) > FEEDS_PER_SPACE_MAX:
            raise LimitError("A timeframe names too many feeds.", count_max=FEEDS_PER_SPACE_MAX)
        frames: dict[PublicKey, int] = {}
        for frame in untrusted.frames:
            if not frame.feed_key or frame.seq < 0:
                raise DecodeError("A frame of a timeframe is no frame.")
            if frame.seq >= FEED_BLOCKS_MAX:
                raise LimitError("A timeframe names a block too far.", index=frame.seq, index_max=FEED_BLOCKS_MAX - 1)
            key = PublicKey(frame.feed_key)
            if key in frames:
                raise DecodeError("A timeframe names a feed twice.", feed=key.truncate())
            frames[key] = frame.seq
        return cls(frames)

    def to_wire(self) -> TimeframeVector:
        """Return the message, feeds in the order in which they were put in."""
        frames = [TimeframeVector.Frame(feed_key=bytes(key), seq=sequence) for key, sequence in self._frames.items()]
        return TimeframeVector(frames=frames)

    def to_bytes(self) -> bytes:
        """Return the encoded message."""
        return encode(self.to_wire())

    def merge(self, *others: "Timeframe") -> "Timeframe":
        """Return what has been processed here or there: of each feed the higher index."""
        merged = dict(self._frames)
        for other in others:
            for key, sequence in other.items():
                merged[key] = max(sequence, merged.get(key, sequence))
        return Timeframe(merged)

    def dependencies(self, processed: "Timeframe") -> "Timeframe":
        """Return those frames of this timeframe that `processed` has not reached."""
        return Timeframe({key: seq for key, seq in self._frames.items() if processed.get(key, -1) < seq})

    def is_reached(self, processed: "Timeframe") -> bool:
        """Tell whether `processed` is as far as this timeframe in every feed."""
        return all(processed.get(key, -1) >= sequence for key, sequence in self._frames.items())

    def new_messages(self, base: "Timeframe") -> int:
        """Return how many blocks lie between `base` and this timeframe; what `base` has beyond does not count."""
        return sum(max(0, sequence - base.get(key, -1)) for key, sequence in self._frames.items())

    def total_messages(self) -> int:
        """Return how many blocks have been processed in all feeds."""
        return sum(sequence + 1 for sequence in self._frames.values())

    def replace(self, key: PublicKey, sequence: int) -> "Timeframe":
        """Return a timeframe with another index for one feed."""
        return Timeframe({**self._frames, key: sequence})

    def __getitem__(self, key: PublicKey) -> int:
        return self._frames[key]

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def __eq__(self, other: object) -> bool:
        return self._frames == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._frames.items()))
        return self._hash

    def __repr__(self) -> str:
        return f"<Timeframe {', '.join(f'{key.truncate()}:{seq}' for key, seq in self._frames.items()) or 'empty'}>"
