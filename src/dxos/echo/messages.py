"""The messages of automerge-repo and of ECHO's collections, as far as peers of a space exchange them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from msgspec import Struct

from dxos.echo import cbor
from dxos.errors import DecodeError, InvalidKeyError, LimitError
from dxos.keys.ids import is_space_id, parse_document_id
from dxos.limits import DOCUMENT_HEADS_MAX, DOCUMENTS_PER_SPACE_MAX, MESSAGE_BYTES_MAX

_COLLECTION_PREFIX = "space"
_HASH_BYTES = 32


@final
class Sync(Struct, frozen=True):
    """One step of the sync protocol for one document."""

    document_id: str
    data: bytes  # An Automerge sync message, unchecked.
    request: bool = False  # The sender lacks the document and wants to know if we do too.


@final
class Unavailable(Struct, frozen=True):
    """The sender does not have, or does not share, the document."""

    document_id: str


@final
class Collection(Struct, frozen=True):
    """The documents of one space, or of one root document of it."""

    space_id: str
    root_document_id: str | None = None  # None in the older form of the id.

    def __str__(self) -> str:
        parts = [_COLLECTION_PREFIX, self.space_id, self.root_document_id]
        return ":".join(part for part in parts if part is not None)


@final
class CollectionQuery(Struct, frozen=True):
    """Asks which documents of a collection the other peer has."""

    collection: Collection


@final
class CollectionState(Struct, frozen=True):
    """Answers with the heads, sorted, of every document of a collection."""

    collection: Collection
    documents: Mapping[str, tuple[bytes, ...]]


@final
class Ignored(Struct, frozen=True):
    """A message for which ECHO has no use."""

    type: str


Message = Sync | Unavailable | CollectionQuery | CollectionState | Ignored

_IGNORED = frozenset({"ephemeral", "remote-subscription-change", "remote-heads-changed"})


def encode(message: Sync | Unavailable | CollectionQuery | CollectionState, *, sender: str, target: str) -> bytes:
    """The bytes of a message between two automerge-repo peer ids."""
    names = {"senderId": sender, "targetId": target}
    match message:
        case Sync(document_id, data, request):
            type_ = "request" if request else "sync"
            return cbor.encode({"type": type_, **names, "documentId": document_id, "data": data})
        case Unavailable(document_id):
            return cbor.encode({"type": "doc-unavailable", **names, "documentId": document_id})
        case CollectionQuery(collection):
            return cbor.encode({"type": "collection-query", **names, "collectionId": str(collection)})
        case CollectionState(collection, documents):
            state = {"documents": {id_: [head.hex() for head in heads] for id_, heads in documents.items()}}
            return cbor.encode({"type": "collection-state", **names, "collectionId": str(collection), "state": state})


def decode(untrusted: bytes) -> Message:
    """Parse a message; the peer ids in it are not looked at, because the connection says who the peer is.

    Raises:
        DecodeError: It does not parse.
        LimitError: It is larger, or lists more, than is allowed.
    """
    if len(untrusted) > MESSAGE_BYTES_MAX:
        raise LimitError("A replication message is too large.", bytes_count=len(untrusted))
    match cbor.decode(untrusted):
        case {"type": "sync" | "request" as type_, "documentId": str(document_id), "data": bytes(data)}:
            return Sync(_document_id(document_id), data, request=type_ == "request")
        case {"type": "doc-unavailable", "documentId": str(document_id)}:
            return Unavailable(_document_id(document_id))
        case {"type": "collection-query", "collectionId": str(collection_id)}:
            return CollectionQuery(_collection(collection_id))
        case {"type": "collection-state", "collectionId": str(collection_id), "state": {"documents": dict(documents)}}:
            return CollectionState(_collection(collection_id), _documents(documents))
        case {"type": str(type_)} if type_ in _IGNORED:
            return Ignored(type_)
    raise DecodeError("Not a replication message.")


def _document_id(untrusted: str) -> str:
    try:
        parse_document_id(untrusted)
    except InvalidKeyError:
        raise DecodeError("A replication message with an invalid document id.") from None
    return untrusted


def _collection(untrusted: str) -> Collection:
    match untrusted.split(":"):
        case ["space", space_id] if is_space_id(space_id):
            return Collection(space_id)
        case ["space", space_id, root_id] if is_space_id(space_id):
            return Collection(space_id, _document_id(root_id))
    raise DecodeError("A replication message with an invalid collection id.")


def _documents(untrusted: dict[str, Any]) -> dict[str, tuple[bytes, ...]]:
    if len(untrusted) > DOCUMENTS_PER_SPACE_MAX:
        raise LimitError("A collection has too many documents.", count=len(untrusted))
    return {_document_id(document_id): _heads(heads) for document_id, heads in untrusted.items()}


def _heads(untrusted: object) -> tuple[bytes, ...]:
    if not isinstance(untrusted, list) or len(untrusted) > DOCUMENT_HEADS_MAX:
        raise DecodeError("A document's heads are a list.")
    return tuple(sorted(map(_head, untrusted)))


def _head(untrusted: object) -> bytes:
    try:
        head = bytes.fromhex(untrusted) if isinstance(untrusted, str) else b""
    except ValueError:
        head = b""
    if len(head) != _HASH_BYTES:
        raise DecodeError("A document's head is a hash in hex.")
    return head
