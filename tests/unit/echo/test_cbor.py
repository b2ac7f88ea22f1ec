import cbor2
import pytest

from dxos.echo import cbor
from dxos.errors import DecodeError

VALUES = [
    0,
    23,
    24,
    255,
    256,
    65_536,
    2**32,
    2**64 - 1,
    -1,
    -25,
    -(2**40),
    None,
    True,
    False,
    1.5,
    "",
    "ü🚀",
    b"",
    b"x" * 300,
]


@pytest.mark.parametrize("value", [*VALUES, VALUES, {"a": VALUES, "b": {"c": [{}]}}])
def test_values_are_what_another_library_reads_and_writes(value: object) -> None:
    assert cbor2.loads(cbor.encode(value)) == value
    assert cbor.decode(cbor2.dumps(value)) == value
    assert cbor.decode(cbor.encode(value)) == value


def test_a_map_of_many_entries_is_read_and_written() -> None:
    value = {str(number): number for number in range(70_000)}
    assert cbor.decode(cbor.encode(value)) == value == cbor2.loads(cbor.encode(value))


@pytest.mark.parametrize(
    "untrusted",
    [
        b"",
        b"\x01\x01",
        b"\xc1\x01",  # A date.
        b"\x9f\xff",  # A list of unknown length.
        b"\x9b" + b"\xff" * 8,  # A list of 2**64 elements.
        b"\x5b" + b"\xff" * 8,
        b"\xbb" + b"\x7f" * 8,
        b"\xa1\x01\x02",  # A map whose key is a number.
        b"\x61\xff",  # Not UTF-8.
        b"\x81" * 100_000 + b"\x01",
        b"\xf8\x20",
        b"\x1c",
    ],
)
def test_what_no_peer_writes_is_refused(untrusted: bytes) -> None:
    with pytest.raises(DecodeError):
        cbor.decode(untrusted)
