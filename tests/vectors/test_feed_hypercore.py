"""Files, proofs and a replication that hypercore 9.12 inside DXOS 0.8.3 wrote."""

import contextlib
import json
from pathlib import Path

import pytest
from feed_peers import contents, send_all

from dxos.errors import PeerError
from dxos.feed import merkle
from dxos.feed.log import Log
from dxos.feed.merkle import Node
from dxos.feed.messages import Data, FrameReader, Have, Message, Open, Request, Want, encode_frame
from dxos.feed.replication import Downloaded, Opened, RemoteHave, Replication
from dxos.feed.storage import LogWrite, MemoryLogStorage
from dxos.keys import PublicKey
from dxos.keys.ids import discovery_key, hypercore_key

VECTOR = json.loads(Path(__file__).with_name("feed_hypercore.json").read_text())
KEY = PublicKey.from_hex(VECTOR["feedKey"])
LENGTH = VECTOR["length"]
HEADER_BYTES, NODE_BYTES, SIGNATURE_BYTES = 32, 40, 64
TREE, SIGNATURES, DATA = (bytes.fromhex(VECTOR["files"][name]) for name in ("tree", "signatures", "data"))


def stored_node(index: int) -> Node:
    at = HEADER_BYTES + NODE_BYTES * index
    return Node(index, TREE[at : at + 32], int.from_bytes(TREE[at + 32 : at + NODE_BYTES], "big"))


def stored_signature(index: int) -> bytes:
    at = HEADER_BYTES + SIGNATURE_BYTES * index
    return SIGNATURES[at : at + SIGNATURE_BYTES]


def stored_blocks() -> list[bytes]:
    blocks, at = [], 0
    for index in range(LENGTH):
        size = stored_node(2 * index).size
        blocks.append(DATA[at : at + size])
        at += size
    assert at == len(DATA)
    return blocks


def stored_log() -> Log:
    """The writer's log, from its files."""
    storage = MemoryLogStorage()
    for index, block in enumerate(stored_blocks()):
        nodes = [stored_node(each) for each in range(2 * index + 1) if stored_node(each).size]
        length = index + 1
        storage.commit(LogWrite(index, block, tuple(nodes), stored_signature(index), length, length, length))
    return Log(KEY, storage)


def frames(data: bytes) -> list[Message]:
    reader = FrameReader()
    reader.feed(data)
    return list(reader)


def wire(direction: str) -> list[bytes]:
    return [bytes.fromhex(data) for way, data in VECTOR["wire"] if way == direction]


def test_the_keys_are_derived_from_the_feed_key() -> None:
    assert hypercore_key(KEY).hex() == VECTOR["hypercoreKey"]
    assert discovery_key(hypercore_key(KEY)).hex() == VECTOR["discoveryKey"]


def test_the_tree_follows_from_the_blocks() -> None:
    for index, block in enumerate(stored_blocks()):
        assert merkle.leaf_node(index, block) == stored_node(2 * index)
    for left in (0, 4, 1):
        right = merkle.sibling(left)
        assert merkle.parent_node(stored_node(left), stored_node(right)) == stored_node(merkle.parent(left))


def test_each_signature_covers_the_tree_of_its_length() -> None:
    for index in range(LENGTH):
        roots = [stored_node(root) for root in merkle.roots(index + 1)]
        log = Log(KEY, MemoryLogStorage())
        path = merkle.make_path(index, index + 1, stored_node)
        assert path is not None
        assert log.put_proof(index, stored_blocks()[index], path, stored_signature(index))
        assert log.length == index + 1
        assert merkle.signable(roots, index + 1)[32:] == (index + 1).to_bytes(8, "big")


def test_our_proofs_are_the_proofs_of_the_writer() -> None:
    log = stored_log()
    for vector in VECTOR["proofs"]:
        proof = log.proof(vector["index"])
        assert proof is not None
        assert proof.signature.hex() == vector["signature"]
        ours = [{"index": node.index, "size": node.size, "hash": node.hash.hex()} for node in proof.nodes]
        assert ours == vector["nodes"]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]])
def test_a_reader_takes_the_proofs_in_any_order(order: list[int]) -> None:
    log, blocks = Log(KEY, MemoryLogStorage()), stored_blocks()
    for index in order:
        vector = VECTOR["proofs"][index]
        nodes = [Node(node["index"], bytes.fromhex(node["hash"]), node["size"]) for node in vector["nodes"]]
        assert log.put_proof(index, blocks[index], nodes, bytes.fromhex(vector["signature"]))
    assert contents(log) == blocks


def test_every_frame_is_read_and_written_byte_for_byte() -> None:
    for _, data in VECTOR["wire"]:
        raw = bytes.fromhex(data)
        (message,) = frames(raw)
        assert encode_frame(message) == raw


def test_the_frames_mean_what_they_should() -> None:
    read = [frames(data)[0] for data in wire("a->b") + wire("b->a")]
    kinds = [type(message).__name__ for message in read]
    assert kinds.count("Request") == kinds.count("Data") == LENGTH
    assert Have(0, 1_048_576, bytes.fromhex("02f8")) in read
    assert Have(4) in read


def test_we_download_from_the_writer() -> None:
    log = Log(KEY, MemoryLogStorage())
    machine = Replication(log, now=0.0)
    events = [event for data in wire("a->b")[:4] for event in machine.receive(data, 0.0)]
    assert events == [Opened(), RemoteHave(5)]
    sent = frames(send_all(machine))
    assert sent[:3] == [Open(bytes.fromhex(VECTOR["discoveryKey"])), Want(0, 1_048_576), Have(0, 1_048_576, b"")]
    assert sent[3:] == [Request(index) for index in range(LENGTH)]
    theirs = [frames(data)[0] for data in wire("b->a")]
    assert sorted(map(repr, sent)) == sorted(map(repr, theirs))
    events = [event for data in wire("a->b")[4:] for event in machine.receive(data, 0.0)]
    assert events == [Downloaded(1), Downloaded(3), Downloaded(4), Downloaded(0), Downloaded(2)]
    assert contents(log) == stored_blocks()
    assert machine.is_synced


def test_we_serve_a_reader_with_the_bytes_of_the_writer() -> None:
    machine = Replication(stored_log(), now=0.0, download=False)
    sent = b"".join([machine.data_to_send(), *(_answer(machine, data) for data in wire("b->a"))])
    ours, theirs = frames(sent), [frames(data)[0] for data in wire("a->b")]
    assert [message for message in ours if not isinstance(message, Data)] == [
        message for message in theirs if not isinstance(message, Data | Want)
    ]
    assert {encode_frame(each) for each in ours if isinstance(each, Data)} == {
        encode_frame(each) for each in theirs if isinstance(each, Data)
    }


def _answer(machine: Replication, data: bytes) -> bytes:
    machine.receive(data, 0.0)
    return send_all(machine)


@pytest.mark.parametrize("at", range(0, 650, 7))
def test_an_altered_byte_in_a_block_or_its_proof_is_refused(at: int) -> None:
    log = Log(KEY, MemoryLogStorage())
    machine = Replication(log, now=0.0)
    for data in wire("a->b")[:4]:
        machine.receive(data, 0.0)
    send_all(machine)
    altered = bytearray(wire("a->b")[4])
    altered[5 + at] ^= 1
    with contextlib.suppress(PeerError):
        machine.receive(bytes(altered), 0.0)
    assert not any(log.has(index) for index in range(LENGTH))
