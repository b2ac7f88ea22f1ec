import pytest

from dxos.errors import DecodeError, LimitError
from dxos.feed.timeframe import Timeframe
from dxos.keys import PublicKey
from dxos.limits import FEED_BLOCKS_MAX, FEEDS_PER_SPACE_MAX
from dxos.wire import decode
from dxos.wire.proto.timeframe_pb2 import TimeframeVector

A, B, C = (PublicKey(bytes([number]) * 32) for number in (1, 2, 3))


def test_merging_takes_the_higher_index_of_each_feed() -> None:
    assert Timeframe({A: 1, B: 5}).merge(Timeframe({A: 3, B: 2, C: 0})) == {A: 3, B: 5, C: 0}
    assert Timeframe().merge() == Timeframe()


def test_dependencies_are_what_is_not_reached() -> None:
    wanted = Timeframe({A: 1, B: 5, C: 0})
    processed = Timeframe({A: 1, B: 4})
    assert wanted.dependencies(processed) == Timeframe({B: 5, C: 0})
    assert not wanted.is_reached(processed)
    assert wanted.is_reached(Timeframe({A: 9, B: 5, C: 0}))
    assert Timeframe().is_reached(Timeframe())


def test_messages_are_counted() -> None:
    frame = Timeframe({A: 3, B: 0})
    assert frame.total_messages() == 5
    assert frame.new_messages(Timeframe()) == 5
    assert frame.new_messages(Timeframe({A: 1, B: 7})) == 2


def test_a_timeframe_does_not_change() -> None:
    frame = Timeframe({A: 1})
    assert frame.replace(A, 2) == {A: 2}
    assert frame == {A: 1} == dict(frame)
    assert hash(Timeframe({A: 1, B: 2})) == hash(Timeframe({B: 2, A: 1}))
    assert repr(frame) == "<Timeframe 01010101:1>"
    assert repr(Timeframe()) == "<Timeframe empty>"


def test_a_timeframe_survives_the_wire() -> None:
    frame = Timeframe({B: 0, A: 7})
    message = decode(TimeframeVector, frame.to_bytes())
    assert Timeframe.from_wire(message) == frame
    assert frame.to_bytes().hex() == "0a240a20" + "02" * 32 + "1800" + "0a240a20" + "01" * 32 + "1807"


def test_hostile_timeframes_are_refused() -> None:
    def one(seq: int, key: bytes = bytes(A)) -> TimeframeVector.Frame:
        return TimeframeVector.Frame(feed_key=key, seq=seq)

    for frames in ([one(-1)], [one(0, b"")], [one(0), one(1)]):
        with pytest.raises(DecodeError):
            Timeframe.from_wire(TimeframeVector(frames=frames))
    for frames in ([one(FEED_BLOCKS_MAX)], [one(0)] * (FEEDS_PER_SPACE_MAX + 1)):
        with pytest.raises(LimitError):
            Timeframe.from_wire(TimeframeVector(frames=frames))
