import pytest
from msgspec.structs import replace

from dxos.errors import CorruptionError
from dxos.keys import PublicKey
from dxos.store.database import Database
from dxos.store.metadata import MetadataStore, SpaceRecord

KEYS = [PublicKey(bytes([4, number]) + b"k" * 63) for number in range(8)]
SPACE = SpaceRecord("space", KEYS[0], KEYS[1], KEYS[2], KEYS[3], "ACTIVE", b"rest")
OTHER = SpaceRecord("other", KEYS[4], KEYS[5], KEYS[6], KEYS[7], "INACTIVE")


@pytest.fixture
def database() -> Database:
    return Database(None)


@pytest.fixture
def store(database: Database) -> MetadataStore:
    return MetadataStore(database)


def test_the_identity_is_none_until_it_is_put(store: MetadataStore) -> None:
    assert store.identity() is None
    store.put_identity(b"alice")
    store.put_identity(b"alice 2")
    assert store.identity() == b"alice 2"


def test_settings_are_kept_by_name(store: MetadataStore) -> None:
    store.put_setting("a", b"1")
    assert (store.setting("a"), store.setting("b")) == (b"1", None)
    assert store.delete_setting("a")
    assert not store.delete_setting("a")


def test_space_records_come_back_oldest_first_and_can_change(store: MetadataStore) -> None:
    store.put_space(SPACE)
    store.put_space(OTHER)
    changed = replace(SPACE, state="CLOSED", record=b"new")
    store.put_space(changed)
    assert store.spaces() == [changed, OTHER]
    assert store.space_ids() == ["space", "other"]
    assert store.space("other") == OTHER
    assert store.space("unknown") is None


def test_timeframes_keep_the_feeds_that_are_not_named(store: MetadataStore) -> None:
    store.put_space(SPACE)
    store.put_timeframe("space", {KEYS[1]: 3, KEYS[2]: 0})
    store.put_timeframe("space", {KEYS[1]: 4})
    assert store.timeframe("space") == {KEYS[1]: 4, KEYS[2]: 0}
    assert store.timeframe("unknown") == {}


def test_a_deleted_space_takes_its_timeframe_along(store: MetadataStore, database: Database) -> None:
    store.put_space(SPACE)
    store.put_timeframe("space", {KEYS[1]: 3})
    assert store.delete_space("space")
    assert not store.delete_space("space")
    assert store.spaces() == []
    assert database.rows("SELECT * FROM timeframes") == []


def test_a_damaged_record_is_named_and_never_returned(store: MetadataStore, database: Database) -> None:
    store.put_identity(b"alice")
    store.put_space(SPACE)
    database.run("UPDATE settings SET bytes = ?", (b"alicf",))
    database.run("UPDATE space_records SET bytes = ?", (b"resu",))
    with pytest.raises(CorruptionError, match="identity"):
        store.identity()
    with pytest.raises(CorruptionError, match="space"):
        store.spaces()
    assert store.space_ids() == ["space"]
