import pytest

from dxos.errors import CorruptionError
from dxos.limits import CHUNKS_PER_DOCUMENT_MAX
from dxos.store.database import Database
from dxos.store.documents import DocumentSize, DocumentStore

HEAD, HEAD_2 = b"1" * 32, b"2" * 32


@pytest.fixture
def database() -> Database:
    return Database(None)


@pytest.fixture
def store(database: Database) -> DocumentStore:
    return DocumentStore(database)


def test_chunks_load_in_the_order_they_were_appended(store: DocumentStore) -> None:
    store.append("a", "space", [b"one", b"two"], [HEAD])
    store.append("b", "space", [b"other"], [HEAD])
    store.append("a", "space", [b"three"], [HEAD, HEAD_2])
    assert store.load("a") == b"onetwothree"
    assert store.heads("a") == (HEAD, HEAD_2)
    assert store.size("a") == DocumentSize(0, 11, 3)


def test_many_new_documents_are_stored_as_if_one_by_one(store: DocumentStore) -> None:
    store.append("a", "space", [b"one"], [HEAD])
    store.create("space", [("b", [b"two", b"three"], [HEAD_2]), ("c", [b"four"], [HEAD])])
    store.append("b", "space", [b"five"], [HEAD])
    assert [store.load(one) for one in ("a", "b", "c")] == [b"one", b"twothreefive", b"four"]
    assert store.all_heads("space") == {"a": (HEAD,), "b": (HEAD,), "c": (HEAD,)}
    assert store.size("b") == DocumentSize(0, 12, 3)


def test_appending_tells_how_large_the_document_is_now(store: DocumentStore) -> None:
    assert store.append("a", "space", [b"one", b"two"], [HEAD]) == DocumentSize(0, 6, 2)
    assert store.append("a", "space", [b"three"], [HEAD]) == DocumentSize(0, 11, 3)


def test_a_snapshot_replaces_what_came_before_and_precedes_what_comes_after(store: DocumentStore) -> None:
    store.append("a", "space", [b"one", b"two"], [HEAD])
    store.replace_with_snapshot("a", b"both", [HEAD])
    store.append("a", "space", [b"three"], [HEAD_2])
    assert store.load("a") == b"boththree"
    assert store.size("a") == DocumentSize(4, 5, 1)


def test_heads_of_a_space_are_found_without_loading(store: DocumentStore) -> None:
    store.append("a", "space", [b"one"], [HEAD])
    store.append("b", "other", [b"two"], [])
    assert store.all_heads("space") == {"a": (HEAD,)}
    assert store.all_heads("other") == {"b": ()}
    assert store.all_heads("unknown") == {}
    assert store.ids("space") == ["a"]
    assert store.space_of("b") == "other"


def test_an_unknown_document_is_none(store: DocumentStore) -> None:
    assert (store.load("x"), store.heads("x"), store.size("x"), store.space_of("x")) == (None, None, None, None)
    assert not store.exists("x")
    assert not store.delete("x")


def test_a_quarantined_document_is_kept_but_neither_loaded_nor_offered(store: DocumentStore) -> None:
    store.append("a", "space", [b"one"], [HEAD])
    store.quarantine("a", "a counter")
    with pytest.raises(CorruptionError) as caught:
        store.load("a")
    assert caught.value.detail["reason"] == "a counter"
    assert store.all_heads("space") == {}
    assert store.heads("a") is None
    assert store.quarantined("space") == {"a": "a counter"}
    assert store.ids("space") == ["a"]


def test_a_missing_chunk_is_corruption(store: DocumentStore, database: Database) -> None:
    store.append("a", "space", [b"one", b"two"], [HEAD])
    database.run("DELETE FROM chunks WHERE bytes = ?", (b"one",))
    with pytest.raises(CorruptionError, match="missing"):
        store.load("a")


def test_deleting_leaves_the_neighbours(store: DocumentStore, database: Database) -> None:
    for document_id in "abc":
        store.append(document_id, "space", [document_id.encode()], [HEAD])
    assert store.delete("b")
    assert [store.load(document_id) for document_id in "abc"] == [b"a", None, b"c"]
    assert database.rows("SELECT count(*) FROM chunks") == [(2,)]


@pytest.mark.slow
def test_too_many_chunks_are_joined_into_one(store: DocumentStore) -> None:
    store.append("a", "space", [b"x"] * (CHUNKS_PER_DOCUMENT_MAX - 1), [HEAD])
    store.append("a", "space", [b"y", b"z"], [HEAD])
    assert store.size("a") == DocumentSize(0, CHUNKS_PER_DOCUMENT_MAX + 1, 3)
    assert store.load("a") == b"x" * (CHUNKS_PER_DOCUMENT_MAX - 1) + b"yz"
