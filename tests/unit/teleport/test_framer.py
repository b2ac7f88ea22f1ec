import pytest

from dxos.limits import FRAME_BYTES_MAX
from dxos.teleport.framer import FrameReader, encode_frame


def test_a_frame_is_two_bytes_of_length_and_the_rest() -> None:
    assert encode_frame(b"abc") == b"\x00\x03abc"


@pytest.mark.parametrize("size", [0, 1, 255, 256, FRAME_BYTES_MAX])
def test_frames_come_back_however_the_stream_is_cut(size: int) -> None:
    reader = FrameReader()
    stream = encode_frame(bytes(size)) + encode_frame(b"next")
    cut = len(stream) // 3 + 1
    frames = [frame for start in range(0, len(stream), cut) for frame in reader.receive(stream[start : start + cut])]
    assert frames == [bytes(size), b"next"]
    assert reader.pending_bytes == 0


def test_a_reader_holds_less_than_one_frame() -> None:
    reader = FrameReader()
    assert reader.receive(b"\xff") == []
    assert reader.receive(b"\xff" + bytes(FRAME_BYTES_MAX - 1)) == []
    assert reader.pending_bytes == FRAME_BYTES_MAX + 1
    assert reader.receive(b"\x00") == [bytes(FRAME_BYTES_MAX)]
