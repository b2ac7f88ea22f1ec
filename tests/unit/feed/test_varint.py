import pytest

from dxos.errors import DecodeError
from dxos.feed.varint import peek_varint, read_varint, write_varint


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 1 << 20, (1 << 53) - 1])
def test_numbers_survive(value: int) -> None:
    encoded = write_varint(value)
    assert read_varint(b"x" + encoded, 1) == (value, 1 + len(encoded))


def test_a_number_that_goes_on_is_waited_for_or_refused() -> None:
    assert peek_varint(b"\x80", 0) is None
    with pytest.raises(DecodeError):
        read_varint(b"\x80", 0)
    with pytest.raises(DecodeError):
        peek_varint(b"\x80" * 8, 0)
