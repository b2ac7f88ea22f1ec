import pytest

from dxos.errors import DecodeError, LimitError
from dxos.feed.bitfield import Bitfield, decode_runs, encode_runs


def test_bits_are_numbered_from_the_left() -> None:
    field = Bitfield(b"\x80\x01")
    assert [index for index in range(20) if index in field] == [0, 15]


def test_runs_are_as_published() -> None:
    # From the documentation of bitfield-rle: 1,024 bits with bit 400 set take 6 bytes or fewer.
    field = Bitfield(bytes(128))
    field.add(400, 401)
    assert len(encode_runs(bytes(field))) <= 6
    assert decode_runs(encode_runs(bytes(field)), bytes_max=128) == bytes(field).rstrip(b"\x00")


def test_a_full_log_of_a_million_blocks_takes_a_few_bytes() -> None:
    field = Bitfield()
    field.add(0, 1_000_000)
    assert len(encode_runs(bytes(field))) <= 4


def test_a_few_bytes_cannot_make_a_large_bitfield() -> None:
    with pytest.raises(LimitError):
        decode_runs(b"\xff\xff\xff\xff\x0f", bytes_max=1000)


def test_a_run_that_ends_early_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode_runs(b"\x04\x01", bytes_max=1000)
    with pytest.raises(DecodeError):
        decode_runs(b"\x80", bytes_max=1000)


def test_members_added_behind_a_search_are_found() -> None:
    field = Bitfield()
    field.add(100, 101)
    assert field.first() == 100
    field.discard(100, 101)
    assert field.first() is None
    field.add(3, 5)
    assert field.first() == 3
    assert field.end() == 5
