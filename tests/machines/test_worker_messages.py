"""Messages between the processes of one profile: what is sent arrives, and nothing else gets through."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from message_examples import example

from dxos.errors import CorruptionError, DecodeError, DxosError, LimitError
from dxos.limits import CLIENT_ID_CHARS_MAX, HOST_TEXT_CHARS_MAX, LINK_MESSAGE_BYTES_MAX, REASON_CHARS_MAX
from dxos.worker.messages import (
    Failure,
    Init,
    InitFailed,
    Message,
    Ping,
    decode,
    encode,
    name_of,
)

KINDS = list(Message.__args__)


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_a_message_arrives_as_it_was_sent(kind: type) -> None:
    message = example(kind)
    assert decode(encode(message)) == message


def test_names_are_those_of_the_original() -> None:
    names = {name_of(kind) for kind in KINDS}
    assert {"listening", "init", "ready", "init-failed", "start-session", "session", "session-failed"} <= names
    assert {"new-leader", "request-port", "provide-port", "ping", "pong", "terminate"} <= names


def test_fields_of_later_versions_are_left_out() -> None:
    later = {**json.loads(encode(Ping(1))), "more": [1]}
    assert decode(json.dumps(later).encode()) == Ping(1)


@pytest.mark.parametrize(
    "untrusted",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"type": 1}',
        b'{"type": "pang"}',
        b'{"type": "ping"}',
        b'{"type": "ping", "nonce": -1}',
        b'{"type": "ping", "nonce": 1.5}',
        b'{"type": "ping", "nonce": true}',
        b'{"type": "ping", "nonce": 9007199254740992}',
        b'{"type": "start-session", "client_id": null, "attempt": 1}',
        b'{"type": "init-failed", "leadership_id": 1, "failure": {"code": "a"}}',
        b'{"type": "hello", "client_id": "a", "pid": 1, "version": "0.1.0"}',
        b'{"type": "init-failed", "leadership_id": 1, "failure": {"code": "a", "message": "b", "detail": {"c": []}}}',
        b"[" * 100_000,
        json.dumps({"type": "start-session", "client_id": "a" * (CLIENT_ID_CHARS_MAX + 1), "attempt": 1}).encode(),
    ],
)
def test_what_is_no_message_is_refused(untrusted: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(untrusted)


def test_a_message_that_is_too_long_is_neither_sent_nor_read() -> None:
    with pytest.raises(LimitError):
        decode(b" " * (LINK_MESSAGE_BYTES_MAX + 1))
    with pytest.raises(LimitError):
        encode(Init("a", 1, "a", config="ä" * HOST_TEXT_CHARS_MAX))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(list(map(example, KINDS))),
    st.data(),
)
def test_a_damaged_message_is_refused_or_another_one(message: Message, data: st.DataObject) -> None:
    content = bytearray(encode(message))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        assert type(decode(bytes(content))) in KINDS


def test_an_error_keeps_its_class_and_facts_and_gains_ours() -> None:
    error = Failure.of(CorruptionError("Feed 1 is damaged.", feed=1)).error({"worker_is_leader": True})
    assert type(error) is CorruptionError
    assert str(error) == "Feed 1 is damaged."
    assert error.detail == {"feed": 1, "worker_is_leader": True}
    assert type(Failure("later.unknown", "Who knows.").error()) is DxosError


def test_a_long_error_is_cut_so_that_it_can_be_sent() -> None:
    failure = Failure.of(CorruptionError("x" * 10_000, path="y" * 10_000, **{f"n{one}": one for one in range(100)}))
    assert len(failure.message) == REASON_CHARS_MAX
    message = InitFailed(1, failure)
    assert decode(encode(message)) == message


def test_settings_are_not_in_a_representation() -> None:
    assert "secret" not in repr(Init("a", 1, "a", config='{"key": "secret"}'))
