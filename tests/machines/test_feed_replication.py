import pytest
from feed_peers import SIGNER, Link, OneKeySigner, contents, link, make_log, numbered, send_all

from dxos.errors import DecodeError, LimitError, PeerError, ProofError, ProtocolError
from dxos.feed.log import Log
from dxos.feed.messages import (
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
    encode_frame,
)
from dxos.feed.replication import (
    Closed,
    CloseReason,
    Downloaded,
    Event,
    Opened,
    RemoteHave,
    Replication,
    State,
)
from dxos.keys.ids import discovery_key, hypercore_key
from dxos.limits import (
    FEED_BITFIELDS_MAX,
    FEED_BLOCKS_MAX,
    FEED_FRAME_BYTES_MAX,
    FEED_IDLE_S_MAX,
    FEED_PING_S,
    FEED_REQUESTS_MAX,
    FEED_SEND_BYTES,
    FEED_UPLOADS_MAX,
    FEED_WANT_BLOCKS,
)

OPEN = Open(discovery_key(hypercore_key(SIGNER.key.public_key)))
WANT = Want(0, FEED_WANT_BLOCKS)


def frames(data: bytes) -> list[Message]:
    reader = FrameReader()
    reader.feed(data)
    return list(reader)


def opened(log: Log, *, download: bool = True, upload: bool = True) -> Replication:
    """A machine whose peer has sent Open, with nothing left to send."""
    machine = Replication(log, now=0.0, download=download, upload=upload)
    tell(machine, OPEN)
    send_all(machine)
    return machine


def tell(machine: Replication, *messages: Message, now: float = 0.0) -> list[Event]:
    return machine.receive(b"".join(map(encode_frame, messages)), now)


def said(machine: Replication) -> list[Message]:
    return frames(send_all(machine))


def data_of(log: Log, index: int) -> Data:
    proof = log.proof(index)
    assert proof is not None
    return Data(index, proof.data, proof.nodes, proof.signature)


# --- Two machines -------------------------------------------------------------------------------------------------


def test_bob_gets_all_that_alice_has() -> None:
    alice, bob = make_log(numbered(100)), make_log()
    joined = link(alice, bob)
    assert contents(bob) == numbered(100)
    assert joined.bob_events[:2] == [Opened(), RemoteHave(100)]
    assert joined.bob_events[2:] == [Downloaded(index) for index in range(100)]
    assert joined.bob.is_synced
    assert joined.alice.is_synced


def test_blocks_written_later_arrive_at_once() -> None:
    alice, bob = make_log(), make_log()
    joined = link(alice, bob)
    for block in numbered(5):
        joined.alice.local_append(alice.append(block, SIGNER))
        joined.settle()
        assert bob.read(alice.length - 1) == block
    assert RemoteHave(5) in joined.bob_events


def test_blocks_written_together_are_told_of_together() -> None:
    alice, bob = make_log(), make_log()
    joined = link(alice, bob)
    for block in numbered(50):
        joined.alice.local_append(alice.append(block, SIGNER))
    assert frames(joined.alice.data_to_send()) == [Have(0, 50)]


def test_a_download_goes_on_after_a_new_connection() -> None:
    alice, bob = make_log(numbered(60)), make_log()
    first = Link(Replication(alice, now=0.0), Replication(bob, now=0.0))
    for _ in range(5):
        first.bob.receive(first.alice.data_to_send(), 0.0)
        first.alice.receive(first.bob.data_to_send(), 0.0)
    half = bob.contiguous
    assert 0 < half < 60
    second = link(alice, bob)
    assert contents(bob) == numbered(60)
    assert second.bob_events.count(Downloaded(half - 1)) == 0


def test_two_readers_complete_each_other() -> None:
    writer, alice, bob = make_log(numbered(40)), make_log(), make_log()
    for index in range(40):
        data = data_of(writer, index)
        assert data.value is not None
        assert data.signature is not None
        (alice if index % 3 else bob).put_proof(index, data.value, data.nodes, data.signature)
    link(alice, bob)
    assert contents(alice) == contents(bob) == numbered(40)


def test_a_late_joiner_is_served_by_a_reader_while_the_writer_is_away() -> None:
    writer, bob, carol = make_log(numbered(10)), make_log(), make_log()
    link(writer, bob)
    link(bob, carol)
    assert contents(carol) == numbered(10)


def test_a_block_that_came_through_another_peer_is_passed_on() -> None:
    writer, bob, carol = make_log(), make_log(), make_log()
    to_writer, to_carol = link(writer, bob), link(bob, carol)
    to_writer.alice.local_append(writer.append(b"news", SIGNER))
    to_writer.settle()
    for event in to_writer.bob_events:
        if isinstance(event, Downloaded):
            to_carol.alice.local_append(event.index)
    to_carol.settle()
    assert contents(carol) == [b"news"]


def test_bytes_may_arrive_one_at_a_time() -> None:
    alice, bob = make_log(numbered(3)), make_log()
    source, target = Replication(alice, now=0.0), Replication(bob, now=0.0)
    for _ in range(6):
        for byte in send_all(source):
            target.receive(bytes([byte]), 0.0)
        for byte in send_all(target):
            source.receive(bytes([byte]), 0.0)
    assert contents(bob) == numbered(3)


# --- Every message in every state ---------------------------------------------------------------------------------

MESSAGES: list[Message] = [
    OPEN, Options(), Status(), Have(0), Unhave(0), WANT, Unwant(0), Request(0), Cancel(0),
    Data(0), Close(), Extension(b""),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_only_open_may_come_first(message: Message) -> None:
    machine = Replication(make_log(), now=0.0)
    if isinstance(message, Open):
        assert tell(machine, message) == [Opened()]
        assert machine.state is State.OPEN
    else:
        with pytest.raises(ProtocolError):
            tell(machine, message)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_all_but_a_second_open_may_follow(message: Message) -> None:
    machine = opened(make_log())
    if isinstance(message, Open):
        with pytest.raises(ProtocolError):
            tell(machine, message)
        assert machine.state is State.CLOSED
    else:
        tell(machine, message)
        assert machine.state is (State.CLOSED if isinstance(message, Close) else State.OPEN)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_nothing_happens_after_the_end(message: Message) -> None:
    machine = opened(make_log(numbered(2)))
    assert tell(machine, Close()) == [Closed(CloseReason.REMOTE)]
    assert tell(machine, message) == []
    assert machine.data_to_send() == b""
    assert machine.advance(1_000.0) == []
    assert machine.next_deadline is None


def test_a_peer_that_speaks_of_another_feed_is_refused() -> None:
    machine = Replication(make_log(), now=0.0)
    with pytest.raises(ProtocolError, match="another feed"):
        tell(machine, Open(bytes(32)))


# --- Downloading --------------------------------------------------------------------------------------------------


def test_requests_are_bounded_and_in_order() -> None:
    machine = opened(make_log())
    tell(machine, Have(0, 100))
    assert said(machine) == [Request(index) for index in range(FEED_REQUESTS_MAX)]
    assert said(machine) == []


def test_a_bitfield_tells_which_blocks_to_ask_for() -> None:
    machine = opened(make_log())
    assert tell(machine, Have(0, FEED_WANT_BLOCKS, bytes.fromhex("02a1"))) == [RemoteHave(8)]
    assert said(machine) == [Request(0), Request(2), Request(7)]


def test_a_block_that_was_not_asked_for_is_not_stored() -> None:
    log = make_log()
    machine = opened(log)
    assert tell(machine, data_of(make_log(numbered(2)), 1)) == []
    assert log.length == 0


def test_a_block_from_another_peer_cancels_the_request() -> None:
    writer, log = make_log(numbered(2)), make_log()
    machine = opened(log)
    tell(machine, WANT, Have(0, 2))
    said(machine)
    data = data_of(writer, 0)
    assert data.value is not None
    assert data.signature is not None
    log.put_proof(0, data.value, data.nodes, data.signature)
    machine.local_append(0)
    assert said(machine) == [Have(0), Cancel(0)]
    assert tell(machine, data) == []


def test_a_block_the_peer_lost_is_not_waited_for() -> None:
    machine = opened(make_log())
    tell(machine, Have(0, 20))
    said(machine)
    tell(machine, Unhave(0, 10))
    assert said(machine) == [Request(index) for index in range(16, 20)]
    assert not machine.is_synced


def test_a_peer_cannot_keep_us_busy_with_bitfields() -> None:
    machine = opened(make_log())
    all_blocks = Have(0, FEED_WANT_BLOCKS, bytes.fromhex("838020"))
    tell(machine, *[all_blocks] * FEED_BITFIELDS_MAX)
    with pytest.raises(LimitError):
        tell(machine, all_blocks)


def test_a_claim_of_more_blocks_than_a_feed_can_have_is_cut() -> None:
    for claim in (Have(0, FEED_WANT_BLOCKS), Have(0, FEED_WANT_BLOCKS, bytes.fromhex("838020"))):
        machine = opened(make_log())
        assert tell(machine, claim) == [RemoteHave(FEED_BLOCKS_MAX)]
        assert len(said(machine)) == FEED_REQUESTS_MAX


def test_without_download_nothing_is_asked_for() -> None:
    machine = opened(make_log(), download=False)
    assert tell(machine, Have(0, 5)) == [RemoteHave(5)]
    assert said(machine) == []


def test_a_forged_block_ends_the_machine_and_is_not_stored() -> None:
    forger, log = make_log(numbered(2), signer=OneKeySigner()), make_log()
    machine = opened(log)
    tell(machine, Have(0, 2))
    said(machine)
    with pytest.raises(ProofError):
        tell(machine, data_of(forger, 0))
    assert log.length == 0
    for call in (machine.data_to_send, lambda: machine.receive(b"", 0.0), lambda: machine.advance(0.0)):
        with pytest.raises(ProofError):
            call()


def test_what_was_stored_before_an_error_is_reported() -> None:
    writer, log = make_log(numbered(3)), make_log()
    machine = opened(log)
    tell(machine, Have(0, 3))
    said(machine)
    assert tell(machine, data_of(writer, 0), OPEN) == [Downloaded(0)]
    assert log.contiguous == 1
    with pytest.raises(ProtocolError):
        machine.data_to_send()


@pytest.mark.parametrize("data", [Data(0, b"x"), Data(0, None, (), bytes(64))])
def test_a_block_without_data_or_signature_is_refused(data: Data) -> None:
    machine = opened(make_log())
    tell(machine, Have(0))
    said(machine)
    with pytest.raises(ProtocolError):
        tell(machine, data)


# --- Uploading ----------------------------------------------------------------------------------------------------


def test_without_leave_to_upload_nothing_is_told() -> None:
    log = make_log(numbered(3))
    machine = opened(log, upload=False)
    tell(machine, WANT, Request(0), Request(1))
    machine.local_append(log.append(b"more", SIGNER))
    assert said(machine) == []


def test_leave_to_upload_answers_what_was_asked_before() -> None:
    machine = opened(make_log(numbered(3)), upload=False)
    tell(machine, WANT, Request(0))
    machine.permit_upload()
    assert said(machine) == [Have(2), Have(0, FEED_WANT_BLOCKS, bytes.fromhex("02e0"))]
    tell(machine, Request(1))
    assert [type(each) for each in said(machine)] == [Data]


def test_an_empty_log_answers_with_an_empty_bitfield() -> None:
    machine = opened(make_log())
    tell(machine, WANT)
    assert said(machine) == [Have(0, FEED_WANT_BLOCKS, b"")]


def test_a_request_for_a_missing_block_is_answered() -> None:
    machine = opened(make_log())
    tell(machine, Request(7))
    assert said(machine) == [Unhave(7, 1)]


def test_a_cancelled_request_is_not_served() -> None:
    machine = opened(make_log(numbered(2)))
    tell(machine, Request(0), Request(1), Cancel(0))
    assert [each.index for each in said(machine) if isinstance(each, Data)] == [1]


def test_news_are_told_only_to_those_who_want_them() -> None:
    log = make_log()
    machine = opened(log)
    machine.local_append(log.append(b"one", SIGNER))
    assert said(machine) == []
    tell(machine, WANT)
    said(machine)
    machine.local_append(log.append(b"two", SIGNER))
    assert said(machine) == [Have(1)]
    tell(machine, Unwant(0, FEED_WANT_BLOCKS))
    machine.local_append(log.append(b"three", SIGNER))
    assert said(machine) == []


def test_a_peer_that_asks_much_and_reads_little_costs_no_memory() -> None:
    machine = opened(make_log([bytes(200_000)] * 10))
    tell(machine, *(Request(index) for index in range(10)))
    assert len(machine.data_to_send()) < FEED_SEND_BYTES + 200_100
    assert len(frames(send_all(machine))) == 8


def test_too_many_requests_are_refused() -> None:
    machine = opened(make_log())
    with pytest.raises(LimitError):
        tell(machine, *(Request(index) for index in range(FEED_UPLOADS_MAX + 1)))


# --- Bytes that are not messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\xff" * 9, DecodeError),  # A length that does not end.
        (b"\xff\xff\xff\x7f", LimitError),  # A frame of 256 MiB.
        (b"\x02\x15\xff", DecodeError),  # No protobuf.
        (b"\x01\x15", DecodeError),  # Want without start.
        (b"\x01\x25", ProtocolError),  # Another channel.
        (b"\x01\x1b", ProtocolError),  # Kind 11.
        (b"\x01\xff", DecodeError),  # A header that does not end.
        (encode_frame(Want(1, 8192)), ProtocolError),
        (encode_frame(Have(3, 8, b"\x02\x80")), ProtocolError),  # A bitfield within a byte.
        (encode_frame(Have(0, 8, b"\x04\x80")), DecodeError),  # A run longer than its data.
        (encode_frame(Have(0, 8, b"\xff\xff\xff\xff\x0f")), LimitError),  # A run of a gigabyte.
        (encode_frame(Have(FEED_BLOCKS_MAX)), LimitError),
        (encode_frame(Request(FEED_BLOCKS_MAX)), LimitError),
        (encode_frame(Unhave(1 << 40, 1)), LimitError),
    ],
)
def test_malformed_bytes_are_refused_with_their_class(data: bytes, error: type[PeerError]) -> None:
    machine = opened(make_log())
    with pytest.raises(error):
        machine.receive(data, 0.0)


def test_the_longest_frame_is_taken() -> None:
    machine = opened(make_log())
    body = bytes(FEED_FRAME_BYTES_MAX - 1)
    assert tell(machine, Extension(body), Have(0)) == [RemoteHave(1)]


# --- Time ---------------------------------------------------------------------------------------------------------


def test_a_quiet_stream_pings() -> None:
    machine = opened(make_log())
    assert machine.next_deadline == FEED_PING_S
    assert machine.advance(FEED_PING_S) == []
    assert machine.data_to_send() == b"\x00"
    assert machine.next_deadline == 2 * FEED_PING_S


def test_a_silent_peer_is_given_up() -> None:
    machine = opened(make_log())
    machine.advance(FEED_PING_S)
    assert machine.advance(FEED_IDLE_S_MAX) == [Closed(CloseReason.IDLE)]
    assert machine.state is State.CLOSED


def test_a_ping_keeps_a_peer_alive() -> None:
    machine = opened(make_log())
    assert machine.receive(b"\x00", FEED_IDLE_S_MAX - 1) == []
    assert machine.advance(FEED_IDLE_S_MAX) == []
    assert machine.state is State.OPEN


def test_pings_alone_keep_two_machines_together_for_an_hour() -> None:
    joined = link(make_log(), make_log())
    for now in range(0, 3600, int(FEED_PING_S)):
        assert joined.alice.advance(float(now)) == joined.bob.advance(float(now)) == []
        joined.settle(now=float(now))


def test_closing_tells_the_peer() -> None:
    joined = link(make_log(), make_log())
    joined.alice.close()
    joined.settle()
    assert joined.bob_events[-1] == Closed(CloseReason.REMOTE)
    assert joined.alice.state is joined.bob.state is State.CLOSED


def test_a_machine_shows_where_it_is() -> None:
    machine = opened(make_log(numbered(2)))
    assert repr(machine) == f"<Replication {SIGNER.key.public_key.truncate()} open 2/0>"
