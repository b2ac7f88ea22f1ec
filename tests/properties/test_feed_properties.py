"""Whatever a peer sends, a log holds its writer's blocks or nothing, and only errors of the tree come out."""

import contextlib

from feed_peers import SIGNER, contents, link, make_log, numbered, send_all
from hypothesis import given, settings
from hypothesis import strategies as st

from dxos.errors import PeerError
from dxos.feed.bitfield import Bitfield, decode_runs, encode_runs
from dxos.feed.merkle import Node
from dxos.feed.messages import FrameReader, Have, Open, Request, Want, encode_frame
from dxos.feed.replication import Replication
from dxos.keys.ids import discovery_key, hypercore_key

WRITER = make_log(numbered(13))
OPEN = encode_frame(Open(discovery_key(hypercore_key(SIGNER.key.public_key))))
members = st.sets(st.integers(0, 300))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bitfield_survives_its_run_length_code(data: bytes) -> None:
    assert decode_runs(encode_runs(data), bytes_max=200) == data.rstrip(b"\x00")
    assert len(encode_runs(data)) <= len(data) + 6 + len(data) // 4


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_any_run_length_code_is_decoded_or_refused(untrusted: bytes) -> None:
    with contextlib.suppress(PeerError):
        assert len(decode_runs(untrusted, bytes_max=1000)) <= 1000


ranges = st.tuples(st.sampled_from(["add", "discard", "merge"]), st.integers(0, 150), st.integers(0, 150))


@settings(max_examples=300, deadline=None)
@given(st.lists(ranges))
def test_a_bitfield_is_a_set_of_numbers(steps: list[tuple[str, int, int]]) -> None:
    field, model = Bitfield(), set[int]()
    for kind, start, length in steps:
        numbers = range(start, start + length)
        if kind == "add":
            field.add(start, start + length)
            model.update(numbers)
        elif kind == "discard":
            field.discard(start, start + length)
            model.difference_update(numbers)
        else:
            field.merge(bytes([length]), start * 8)
            model.update(start * 8 + bit for bit in range(8) if length & 0x80 >> bit)
        assert field.first() == (min(model) if model else None)
        assert field.end() == (max(model) + 1 if model else 0)
        assert bool(field) == bool(model)
    assert {number for number in range(2000) if number in field} == model


messages = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda kind, body: bytes([len(body) + 1, 0x10 | kind]) + body, st.integers(0, 15), st.binary(max_size=60)
    ),
    st.builds(
        lambda *args: encode_frame(Have(*args)), st.integers(0, 100), st.integers(0, 1 << 20), st.binary(max_size=9)
    ),
    st.builds(lambda start: encode_frame(Want(start * 8192, 8192)), st.integers(0, 200)),
    st.builds(lambda index: encode_frame(Request(index)), st.integers(0, 1 << 21)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(messages, max_size=8), st.booleans())
def test_whatever_arrives_only_errors_of_the_tree_come_out(untrusted: list[bytes], upload: bool) -> None:
    log = make_log()
    machine = Replication(log, now=0.0, upload=upload)
    with contextlib.suppress(PeerError):
        machine.receive(OPEN, 0.0)
        for data in untrusted:
            machine.receive(data, 0.0)
            send_all(machine)
    assert log.length == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 12), st.data())
def test_any_altered_proof_is_refused(index: int, data: st.DataObject) -> None:
    proof = WRITER.proof(index)
    assert proof is not None
    raw = [proof.data, proof.signature, *(node.hash for node in proof.nodes)]
    which = data.draw(st.integers(0, len(raw) - 1))
    at, bit = data.draw(st.integers(0, len(raw[which]) - 1)), data.draw(st.integers(0, 7))
    altered = bytearray(raw[which])
    altered[at] ^= 1 << bit
    raw[which] = bytes(altered)
    nodes = [Node(node.index, each, node.size) for node, each in zip(proof.nodes, raw[2:], strict=True)]
    reader = make_log()
    with contextlib.suppress(PeerError):
        reader.put_proof(index, raw[0], nodes, raw[1])
    assert reader.length == 0
    assert not reader.has(index)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 12), st.data())
def test_nodes_moved_resized_or_left_out_are_refused(index: int, data: st.DataObject) -> None:
    proof = WRITER.proof(index)
    assert proof is not None
    nodes = list(proof.nodes)
    at = data.draw(st.integers(0, len(nodes) - 1))
    match data.draw(st.sampled_from(["move", "resize", "omit", "repeat"])):
        case "move":
            shift = data.draw(st.integers(-40, 40).filter(bool))
            nodes[at] = Node(nodes[at].index + shift, nodes[at].hash, nodes[at].size)
        case "resize":
            nodes[at] = Node(
                nodes[at].index, nodes[at].hash, nodes[at].size + data.draw(st.integers(-50, 50).filter(bool))
            )
        case "omit":
            del nodes[at]
        case _:
            nodes.insert(at, nodes[at])
    reader = make_log()
    with contextlib.suppress(PeerError):
        reader.put_proof(index, proof.data, nodes, proof.signature)
        raise AssertionError("a false proof was accepted")
    assert reader.length == 0


def recorded() -> bytes:
    """All that a writer says to a reader that asks for everything."""
    machine = Replication(WRITER, now=0.0)
    machine.receive(OPEN + encode_frame(Want(0, 8192)), 0.0)
    machine.receive(b"".join(encode_frame(Request(index)) for index in range(13)), 0.0)
    return send_all(machine)


RECORDED = recorded()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(RECORDED) - 1), st.integers(0, 7), st.integers(1, 400))
def test_a_stream_with_one_bit_flipped_never_makes_a_false_block(at: int, bit: int, chunk: int) -> None:
    altered = bytearray(RECORDED)
    altered[at] ^= 1 << bit
    log = make_log()
    machine = Replication(log, now=0.0)
    with contextlib.suppress(PeerError):
        for start in range(0, len(altered), chunk):
            machine.receive(bytes(altered[start : start + chunk]), 0.0)
            send_all(machine)
    assert contents(log) == numbered(log.contiguous)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(RECORDED)), st.booleans())
def test_a_truncated_or_replayed_stream_leaves_a_log_that_can_go_on(end: int, replay: bool) -> None:
    log = make_log()
    machine = Replication(log, now=0.0)
    with contextlib.suppress(PeerError):
        for _ in range(1 + replay):
            machine.receive(RECORDED[:end], 0.0)
            send_all(machine)
    link(WRITER, log)
    assert contents(log) == numbered(13)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["write", "ab", "bc", "ca"]), st.integers(0, 5)), max_size=12))
def test_three_logs_converge_however_they_meet(steps: list[tuple[str, int]]) -> None:
    logs = {name: make_log() for name in "abc"}
    for step, count in steps:
        if step == "write":
            for block in numbered(count, start=logs["a"].length):
                logs["a"].append(block, SIGNER)
        else:
            link(logs[step[0]], logs[step[1]])
    link(logs["a"], logs["b"])
    link(logs["b"], logs["c"])
    assert contents(logs["a"]) == contents(logs["b"]) == contents(logs["c"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=10), st.integers(1, 30))
def test_frames_are_read_alike_in_any_pieces(bodies: list[bytes], chunk: int) -> None:
    data = b"".join(bytes([len(body) + 1, 0x1F]) + body for body in bodies)
    reader, found = FrameReader(), []
    for start in range(0, len(data), chunk):
        reader.feed(data[start : start + chunk])
        found += list(reader)
    assert [getattr(each, "body") for each in found] == bodies  # noqa: B009
