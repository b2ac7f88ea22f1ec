import pytest

from dxos.errors import DecodeError, LimitError, ProtocolError
from dxos.feed.merkle import leaf_node
from dxos.feed.messages import (
    PING,
    Cancel,
    Close,
    Data,
    Extension,
    FrameReader,
    Have,
    Message,
    Open,
    Options,
    Request,
    Status,
    Unhave,
    Unwant,
    Want,
    decode_body,
    encode_frame,
)

ONE_OF_EACH: list[Message] = [
    Open(bytes(32)), Options(ack=False), Status(uploading=True, downloading=False), Have(3, 4, b"\x02\x80"),
    Unhave(1, 2),
    Want(0, 8192), Unwant(0, 8192), Request(5), Cancel(5), Data(1, b"", (leaf_node(0, b"x"),), bytes(64)),
    Close(bytes(32)), Extension(b"\x00text"),
]  # fmt: skip


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda message: type(message).__name__)
def test_a_message_survives_its_frame(message: Message) -> None:
    reader = FrameReader()
    reader.feed(PING + encode_frame(message) + PING)
    assert list(reader) == [message]


def test_zeros_are_written_and_missing_fields_are_not() -> None:
    assert encode_frame(Request(4)).hex() == "09170804100018002000"
    assert encode_frame(Have(4)).hex() == "03130804"


def test_a_frame_in_two_pieces_is_waited_for() -> None:
    reader, frame = FrameReader(), encode_frame(Want(0, 8192))
    reader.feed(frame[:3])
    assert list(reader) == []
    reader.feed(frame[3:])
    assert list(reader) == [Want(0, 8192)]


def test_an_announced_length_is_checked_before_its_bytes_arrive() -> None:
    reader = FrameReader()
    reader.feed(b"\xff\xff\xff\x7f")
    with pytest.raises(LimitError):
        list(reader)


def test_a_body_that_does_not_parse_is_refused() -> None:
    with pytest.raises(DecodeError, match="index"):
        decode_body(7, b"")
    with pytest.raises(DecodeError):
        decode_body(7, b"\xff")
    with pytest.raises(ProtocolError):
        decode_body(12, b"")
