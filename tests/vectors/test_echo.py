"""Documents, sync messages and replication messages written by @dxos/client 0.8.3 and @automerge/automerge 3."""

import json
from pathlib import Path
from typing import Any

import pytest
from echo_peers import MemorySource, Wire

from dxos.echo import messages, sync_message
from dxos.echo.document import ROOT, Document, SyncState
from dxos.echo.layout import links, materialize, space_key_of
from dxos.echo.messages import Collection, CollectionQuery, CollectionState, Sync
from dxos.echo.repo import SharedSpace
from dxos.errors import PeerError
from dxos.keys.ids import space_id


def vector(name: str) -> Any:
    return json.loads(Path(__file__).with_name(f"echo_{name}.json").read_text())


DOCUMENTS = vector("echo_documents")["i_echo_documents"]
AUTOMERGE = vector("automerge")["i_automerge"]
CBOR = vector("automerge_repo_cbor")["i_automerge_repo_cbor"]
TRACE = vector("live_repo_trace")["repo_cbor"]
ROOT_ID = next(id_ for id_, one in DOCUMENTS.items() if "links" in one["json"])


def load(document_id: str) -> Document:
    return Document.load_untrusted(bytes.fromhex(DOCUMENTS[document_id]["save"]))


@pytest.mark.parametrize("document_id", DOCUMENTS)
def test_a_document_is_read_and_saved_as_javascript_wrote_it(document_id: str) -> None:
    document = load(document_id)
    assert document.save().hex() == DOCUMENTS[document_id]["save"]
    shown = document.to_python()
    assert isinstance(shown, dict)
    for object_ in shown["objects"].values():
        if len(object_["data"].get("big", "")) > 300_000:
            object_["data"]["big"] = object_["data"]["big"][:10] + "…"
    assert shown == DOCUMENTS[document_id]["json"]


@pytest.mark.parametrize("document_id", DOCUMENTS)
def test_its_objects_become_rows(document_id: str) -> None:
    document, wanted = load(document_id), DOCUMENTS[document_id]["json"]
    rows = {row.object_id: row for row in materialize(document)}
    assert rows.keys() == wanted["objects"].keys()
    for object_id, object_ in wanted["objects"].items():
        row, system = rows[object_id], object_["system"]
        assert row.kind == system.get("kind", "object")
        assert row.type == system.get("type", {}).get("/")
        assert row.deleted == system.get("deleted", False)
        assert row.source == system.get("source", {}).get("/")
        assert row.target == system.get("target", {}).get("/")
        assert row.meta == object_["meta"]
        assert row.data == object_["data"] or "big" in row.data
    key = space_key_of(document)
    assert key is not None
    assert key.hex == wanted["access"]["spaceKey"]


def test_the_root_links_the_other_documents() -> None:
    assert set(links(load(ROOT_ID)).values()) == DOCUMENTS.keys() - {ROOT_ID}


@pytest.mark.parametrize("document_id", DOCUMENTS)
def test_an_altered_document_is_refused(document_id: str) -> None:
    data = bytes.fromhex(DOCUMENTS[document_id]["save"])
    for position in range(0, len(data), 97):
        altered = data[:position] + bytes((data[position] ^ 0x20,)) + data[position + 1 :]
        with pytest.raises(PeerError):
            Document.load_untrusted(altered)


def test_javascript_documents_replicate_between_sessions() -> None:
    key = space_key_of(load(ROOT_ID))
    assert key is not None
    one, other = MemorySource(), MemorySource()
    for document_id in DOCUMENTS:
        one.add(document_id, load(document_id), space_id(key))
    Wire(one, other, spaces=(SharedSpace(space_id(key), key),)).settle()
    assert other.rows() == one.rows()
    assert {id_: other.load(id_).heads for id_ in DOCUMENTS} == {id_: load(id_).heads for id_ in DOCUMENTS}


def test_a_document_with_counter_date_and_bytes_is_shown_without_what_cannot_be() -> None:
    document = Document.load_untrusted(bytes.fromhex(AUTOMERGE["save"]))
    assert [head.hex() for head in document.heads] == AUTOMERGE["heads"]
    wanted = {key: value for key, value in AUTOMERGE["json"].items() if key not in ("cnt", "bytes")}
    assert document.to_python() == wanted
    assert not document.poisoned
    with document.edit() as edit:
        edit.put(ROOT, "cnt", 1)
    assert document.to_python(("cnt",)) == 1


def test_a_document_is_put_together_from_its_changes() -> None:
    changes = [bytes.fromhex(change) for change in AUTOMERGE["changes"]]
    document = Document.load(b"".join(changes))
    assert [head.hex() for head in document.heads] == AUTOMERGE["heads"]
    assert document.changes_since(()) == changes


def test_a_sync_message_says_what_it_says_in_javascript() -> None:
    data = bytes.fromhex(AUTOMERGE["sync1"])
    header = sync_message.parse(data)
    assert [head.hex() for head in header.heads] == AUTOMERGE["decoded"]["heads"]
    assert (header.need, header.changes_count) == ((), 0)
    document, state = Document.load(bytes.fromhex(AUTOMERGE["save"])), SyncState()
    document.receive_sync_message(state, data)


@pytest.mark.parametrize("name", CBOR)
def test_a_replication_message_is_read_and_written_byte_for_byte(name: str) -> None:
    data = bytes.fromhex(CBOR[name])
    message = messages.decode(data)
    assert isinstance(message, Sync | CollectionQuery | CollectionState)
    assert messages.encode(message, sender="host-aa", target="host-bb") == data
    for end in range(len(data)):
        with pytest.raises(PeerError):
            messages.decode(data[:end])


def test_the_messages_of_a_live_session_are_read() -> None:
    for _, type_, data in TRACE:
        message = messages.decode(bytes.fromhex(data))
        match message:
            case Sync(_, sync_data, request):
                assert type_ == ("request" if request else "sync")
                header = sync_message.parse(sync_data)
                assert header.heads or header.need or request
            case CollectionQuery(collection) | CollectionState(collection):
                assert messages._collection(str(collection)) == collection
            case _:
                assert type_ in ("doc-unavailable", "ephemeral")
    assert Collection("B" * 33) == messages._collection("space:" + "B" * 33)
