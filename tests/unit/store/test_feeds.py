import pytest

from dxos.errors import CorruptionError
from dxos.feed.log import Log
from dxos.feed.merkle import Node
from dxos.feed.storage import LogStorage, LogWrite
from dxos.keys import PublicKey
from dxos.store.database import Database
from dxos.store.feeds import FeedStore
from dxos.store.keyring import Keyring

KEY, OTHER = PublicKey(b"\4" + b"k" * 64), PublicKey(b"\4" + b"o" * 64)


@pytest.fixture
def database() -> Database:
    return Database(None)


@pytest.fixture
def store(database: Database) -> FeedStore:
    return FeedStore(database)


def test_a_log_written_here_is_the_same_log_when_opened_again(store: FeedStore) -> None:
    keyring = Keyring(None)
    key = keyring.create()
    storage: LogStorage = store.open(key)
    log = Log(key, storage)
    for index in range(20):
        assert log.append(b"block %d" % index, keyring) == index
    again = Log(key, store.open(key))
    assert (again.contiguous, again.length) == (20, 20)
    assert [again.read(index) for index in range(20)] == [b"block %d" % index for index in range(20)]
    assert again.proof(7) == log.proof(7)
    assert again.append(b"more", keyring) == 20


def test_feeds_do_not_mix(store: FeedStore) -> None:
    one, other = store.open(KEY), store.open(OTHER)
    one.commit(LogWrite(0, b"one", (Node(0, b"h" * 32, 3),), b"s" * 64, 1, 1, 1))
    other.commit(LogWrite(5, b"other", (), b"t" * 64, 9, 0, 9))
    assert (one.block(0), one.node(0), one.signature(0), one.lengths()) == (b"one", (b"h" * 32, 3), b"s" * 64, (1, 1))
    assert (one.block(5), one.node(10), one.signature(8)) == (None, None, None)
    assert (other.block(5), other.signature(8), other.lengths()) == (b"other", b"t" * 64, (0, 9))
    assert other.has(5)
    assert not other.has(0)
    assert store.keys() == [KEY, OTHER]


def test_an_unknown_feed_is_empty_and_any_index_may_be_asked_for(store: FeedStore) -> None:
    storage = store.open(KEY)
    assert storage.lengths() == (0, 0)
    for index in (0, -1, 1 << 24, 1 << 70):
        assert (storage.block(index), storage.node(index), storage.signature(index)) == (None, None, None)
    assert store.keys() == []


def test_a_write_that_fails_leaves_nothing(store: FeedStore, database: Database) -> None:
    def write() -> None:
        with database.transaction():
            store.open(KEY).commit(LogWrite(0, b"one", (), b"s" * 64, 1, 1, 1))
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write()
    assert store.open(KEY).lengths() == (0, 0)
    assert store.open(KEY).block(0) is None


def test_a_flipped_bit_in_a_block_is_corruption(store: FeedStore, database: Database) -> None:
    storage = store.open(KEY)
    storage.commit(LogWrite(0, b"one", (), None, 1, 1, 1))
    database.run("UPDATE blocks SET bytes = ?", (b"onf",))
    with pytest.raises(CorruptionError):
        storage.block(0)


def test_a_deleted_feed_is_gone_and_others_stay(store: FeedStore) -> None:
    for key in (KEY, OTHER):
        store.open(key).commit(LogWrite(0, bytes(key), (), b"s" * 64, 1, 1, 1))
    assert store.delete(KEY)
    assert not store.delete(KEY)
    assert store.open(KEY).block(0) is None
    assert store.open(OTHER).block(0) == bytes(OTHER)
