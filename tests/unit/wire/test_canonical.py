"""Canonical JSON against JSON.stringify of JavaScript."""

import pytest

from dxos.errors import DecodeError
from dxos.keys import PublicKey
from dxos.wire import Json, canonical, pack_any, to_canonical_json, to_key, to_struct
from dxos.wire.proto.credentials_pb2 import Claim, Credential, DeviceProfile, Epoch, ProfileDocument
from dxos.wire.proto.timeframe_pb2 import TimeframeVector
from dxos.wire.proto.values_pb2 import Timestamp

# What `JSON.stringify` prints.
NUMBERS = {
    0.0: "0",
    1.0: "1",
    -1.5: "-1.5",
    0.1: "0.1",
    1e20: "100000000000000000000",
    123456789012345680000.0: "123456789012345680000",
    1e21: "1e+21",
    1.5e21: "1.5e+21",
    -1.5e300: "-1.5e+300",
    1.7976931348623157e308: "1.7976931348623157e+308",
    1e-6: "0.000001",
    0.0001: "0.0001",
    1.5e-5: "0.000015",
    -1.25e-5: "-0.0000125",
    1e-7: "1e-7",
    1.5e-7: "1.5e-7",
    5e-324: "5e-324",
    9007199254740993.0: "9007199254740992",
    4.35: "4.35",
    1e16: "10000000000000000",
    1.2345e16: "12345000000000000",
    float("nan"): "null",
    float("inf"): "null",
}


@pytest.mark.parametrize(("number", "text"), NUMBERS.items(), ids=NUMBERS.values())
def test_numbers_are_written_as_javascript_does(number: float, text: str) -> None:
    assert canonical(number).decode() == text


def test_a_negative_zero_is_zero() -> None:
    assert canonical(-0.0) == b"0"


def test_keys_are_in_the_order_of_utf16() -> None:
    # U+1F600 is two units that begin with D83D, before U+FF5E.
    assert canonical({"\uff5e": 1, "\U0001f600": 2, "b": 3, "a": None, "__x": 4, "@type": 5}).decode() == (
        '{"b":3,"\U0001f600":2,"\uff5e":1}'
    )


def test_strings_and_nulls_in_arrays() -> None:
    assert canonical([None, 'a"\\\n\u2028\x7f', True, {}]).decode() == '[null,"a\\"\\\\\\n\u2028\x7f",true,{}]'


def test_missing_fields_have_their_defaults_but_enums() -> None:
    assert to_canonical_json(Epoch()) == {"number": 0, "timeframe": {}}
    assert canonical(to_canonical_json(DeviceProfile())) == b'{"profile":{}}'


def test_a_timeframe_is_written_by_short_keys() -> None:
    frame = TimeframeVector.Frame(feed_key=bytes.fromhex("04ab" + "00" * 30 + "cdef"), seq=3)
    assert to_canonical_json(Epoch(timeframe=TimeframeVector(frames=[frame])))["timeframe"] == {"04ab...cdef": 3}


def test_values_of_a_profile_are_json() -> None:
    data: dict[str, Json] = {"b": [1, 2.5, None, "x"], "a": {"c": True}}
    profile = ProfileDocument(display_name="", data=to_struct(data))
    assert canonical(to_canonical_json(profile)) == b'{"data":{"a":{"c":true},"b":[1,2.5,null,"x"]},"displayName":""}'


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 253_402_300_800])
def test_a_time_out_of_range_is_refused(seconds: int) -> None:
    with pytest.raises(DecodeError):
        to_canonical_json(Credential(issuance_date=Timestamp(seconds=seconds)))


def test_messages_nested_in_any_are_bounded() -> None:
    credential = Credential(issuer=to_key(PublicKey(b"x")))
    for _ in range(500):
        credential = Credential(subject=Claim(assertion=pack_any(credential)))
    with pytest.raises(DecodeError):
        to_canonical_json(credential)
