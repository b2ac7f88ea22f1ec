import random

import pytest
from feed_peers import SIGNER, OneKeySigner, contents, make_log, numbered

from dxos.errors import CorruptionError, LimitError, ProofError
from dxos.feed import merkle
from dxos.feed.log import Log
from dxos.feed.merkle import Node, Proof
from dxos.feed.storage import LogWrite, MemoryLogStorage
from dxos.limits import BLOCK_BYTES_MAX, FEED_BLOCKS_MAX


def proof_of(log: Log, index: int) -> Proof:
    proof = log.proof(index)
    assert proof is not None
    return proof


def copy(source: Log, target: Log, index: int) -> bool:
    proof = proof_of(source, index)
    return target.put_proof(index, proof.data, proof.nodes, proof.signature)


def test_a_log_returns_what_was_appended() -> None:
    log = make_log([b"one", b"", b"three"])
    assert contents(log) == [b"one", b"", b"three"]
    assert (log.length, log.contiguous) == (3, 3)
    assert not log.has(3)
    assert not log.has(-1)
    with pytest.raises(IndexError):
        log.read(3)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 31])
def test_a_reader_accepts_each_block_of_a_writer(count: int) -> None:
    writer, reader = make_log(numbered(count)), make_log()
    for index in range(count):
        assert copy(writer, reader, index)
        assert reader.contiguous == index + 1
    assert contents(reader) == contents(writer)


def test_a_known_block_is_taken_once() -> None:
    writer, reader = make_log(numbered(3)), make_log()
    assert copy(writer, reader, 1)
    assert not copy(writer, reader, 1)
    assert (reader.contiguous, reader.length) == (0, 3)
    assert reader.has(1)
    assert not reader.has(0)


def test_a_gap_that_is_filled_joins_what_is_behind_it() -> None:
    writer, reader = make_log(numbered(6)), make_log()
    for index in (5, 1, 2, 0):
        copy(writer, reader, index)
    assert reader.contiguous == 3
    copy(writer, reader, 4)
    copy(writer, reader, 3)
    assert reader.contiguous == 6


def test_a_log_continues_where_its_storage_ends() -> None:
    storage = MemoryLogStorage()
    for block in numbered(11):
        Log(SIGNER.key.public_key, storage).append(block, SIGNER)
    log = Log(SIGNER.key.public_key, storage)
    assert contents(log) == numbered(11)
    assert contents_of_reader(log) == numbered(11)


def contents_of_reader(writer: Log) -> list[bytes]:
    reader = make_log()
    for index in range(writer.contiguous):
        copy(writer, reader, index)
    return contents(reader)


def test_opening_and_appending_read_a_logarithm_of_the_log() -> None:
    storage = MemoryLogStorage()
    log = Log(SIGNER.key.public_key, storage)
    for block in numbered(1000):
        log.append(block, SIGNER)
    counting = ReadCounter(storage)
    reopened = Log(SIGNER.key.public_key, counting)
    reopened.append(b"one more", SIGNER)
    assert counting.reads <= 1 + (1000).bit_length()
    counting.reads = 0
    reopened.proof(500)
    assert counting.reads <= 3 + 2 * (1000).bit_length()


class ReadCounter:
    """A storage that counts what is read from it."""

    def __init__(self, storage: MemoryLogStorage) -> None:
        self.storage, self.reads = storage, 0

    def lengths(self) -> tuple[int, int]:
        self.reads += 1
        return self.storage.lengths()

    def has(self, index: int) -> bool:
        self.reads += 1
        return self.storage.has(index)

    def block(self, index: int) -> bytes | None:
        self.reads += 1
        return self.storage.block(index)

    def node(self, index: int) -> tuple[bytes, int] | None:
        self.reads += 1
        return self.storage.node(index)

    def signature(self, index: int) -> bytes | None:
        self.reads += 1
        return self.storage.signature(index)

    def commit(self, write: LogWrite) -> None:
        self.storage.commit(write)


def test_other_data_at_a_known_index_is_refused() -> None:
    writer, forger, reader = make_log(numbered(4)), make_log([b"other", *numbered(3)]), make_log()
    copy(writer, reader, 0)
    with pytest.raises(ProofError):
        copy(forger, reader, 0)
    assert reader.read(0) == b"block 0"


def test_a_second_history_of_the_same_writer_is_refused_at_other_indexes_too() -> None:
    writer, forger, reader = make_log(numbered(4)), make_log([b"other", *numbered(7)]), make_log()
    copy(writer, reader, 0)
    for index in range(1, 4):
        with pytest.raises(ProofError, match="two histories"):
            copy(forger, reader, index)
    assert (reader.contiguous, reader.length) == (1, 4)


def test_a_block_signed_by_somebody_else_is_refused() -> None:
    stranger, reader = make_log(numbered(2), signer=OneKeySigner()), make_log()
    with pytest.raises(ProofError):
        copy(stranger, reader, 0)
    assert reader.length == 0


def test_a_block_is_refused_under_another_index() -> None:
    writer, reader = make_log([b"same"] * 4), make_log()
    proof = proof_of(writer, 1)
    with pytest.raises(ProofError):
        reader.put_proof(2, proof.data, proof.nodes, proof.signature)


def test_the_signature_of_roots_without_length_is_accepted() -> None:
    reader = make_log()
    leaf = merkle.leaf_node(0, b"old")
    assert reader.put_proof(0, b"old", [], SIGNER.key.sign(merkle.tree_hash([leaf])))


def test_limits_hold_before_anything_is_hashed() -> None:
    reader = make_log()
    with pytest.raises(LimitError):
        reader.put_proof(FEED_BLOCKS_MAX, b"", [], bytes(64))
    with pytest.raises(LimitError):
        reader.put_proof(0, bytes(BLOCK_BYTES_MAX + 1), [], bytes(64))
    with pytest.raises(ValueError, match="block"):
        reader.append(bytes(BLOCK_BYTES_MAX + 1), SIGNER)


def test_a_writer_that_lost_blocks_does_not_write_a_second_history() -> None:
    writer, restored = make_log(numbered(3)), make_log(numbered(1))
    copy(writer, restored, 2)
    with pytest.raises(CorruptionError, match="longer elsewhere"):
        restored.append(b"block 1b", SIGNER)


def test_a_block_that_vanished_is_corruption() -> None:
    storage = MemoryLogStorage()
    log = Log(SIGNER.key.public_key, storage)
    log.append(b"one", SIGNER)
    storage.blocks.clear()
    with pytest.raises(CorruptionError):
        log.read(0)


def test_a_reader_of_parts_serves_every_part_it_has() -> None:
    chance = random.Random(7)
    for _ in range(30):
        writer, reader = make_log(), make_log()
        for _ in range(12):
            for block in numbered(chance.randrange(4), start=writer.length):
                writer.append(block, SIGNER)
            if writer.length:
                copy(writer, reader, chance.randrange(writer.length))
            for index in filter(reader.has, range(writer.length)):
                assert copy(reader, make_log(), index)


def test_a_log_shows_how_far_it_is() -> None:
    log = make_log(numbered(2))
    assert repr(log) == f"<Log {log.key.truncate()} 2/2>"


def test_a_node_of_the_wrong_size_is_refused() -> None:
    writer, reader = make_log(numbered(2)), make_log()
    proof = proof_of(writer, 0)
    (node,) = proof.nodes
    with pytest.raises(ProofError):
        reader.put_proof(0, proof.data, [Node(node.index, node.hash, node.size + 1)], proof.signature)
