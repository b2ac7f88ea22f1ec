"""One Automerge document: the only module that knows the CRDT library.

The library reports every failure as a bare `Exception`, and what it does not implement (counters) as a panic, which is
a `BaseException` and may leave the document unusable. Both are mapped here, once: to CorruptionError for our own
bytes, to DecodeError for a peer's; after a panic while writing, `poisoned` says that the document must be loaded again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NewType, final

from automerge import core
from msgspec import Struct

from dxos.echo import sync_message
from dxos.echo.rows import Json, Path
from dxos.errors import CorruptionError, DecodeError, DxosError, InvalidValueError
from dxos.limits import DOCUMENT_BYTES_MAX, STRING_SCALAR_CHARS_MIN, VALUE_DEPTH_MAX

Heads = tuple[bytes, ...]  # Hashes of 32 bytes of the latest changes, sorted.
NodeId = NewType("NodeId", bytes)  # A map, list or text inside one document.
Writing = NewType("Writing", bytes)  # The operation that put a value at its place; no other of the document is equal.

ROOT = NodeId(core.ROOT)
# System fields and the way down to an object's data come on top of the depth of a value.
_DEPTH_MAX = VALUE_DEPTH_MAX + 8
_PANIC = "PanicException"  # The library does not export the class.
_HASH_BYTES = 32
_LONG_TEXT_CHARS = 1_000
_LONG_TEXTS_MAX = 16  # Of one document.


class Missing(Enum):
    """What a read returns where there is nothing, or nothing that plain data can show."""

    MISSING = "missing"


MISSING = Missing.MISSING


class NodeKind(Enum):
    """What a node holds."""

    MAP = "map"
    LIST = "list"
    TEXT = "text"


_TYPES = {NodeKind.MAP: core.ObjType.Map, NodeKind.LIST: core.ObjType.List, NodeKind.TEXT: core.ObjType.Text}


@final
class Change(Struct, frozen=True):
    """One change of a document."""

    hash: bytes  # 32 bytes; its id.
    deps: Heads  # The changes that its author had seen last, as their hashes.
    actor: bytes  # Who wrote it: one copy of the document, usually 16 bytes.
    raw_bytes: bytes  # The change chunk.


@final
class SyncState:
    """What is known of one peer's copy of one document; good for one connection."""

    __slots__ = ("_inner",)

    def __init__(self) -> None:
        self._inner = core.SyncState()

    def __repr__(self) -> str:
        return "<SyncState>"


@final
class Document:
    """A document in memory. Not for use from two threads at once."""

    __slots__ = ("_inner", "_texts", "poisoned")

    def __init__(self, inner: core.Document) -> None:
        self._inner = inner
        # Long texts as they are, because reading one takes 70 ns a character; forgotten whenever anything but an edit
        # here may have changed them.
        self._texts: dict[bytes, str] = {}
        self.poisoned = False  # A panic may have left it half changed: throw it away and load it again.

    @classmethod
    def create(cls, actor: bytes | None = None) -> Document:
        """An empty document.

        Args:
            actor: 16 bytes that no other writer of this document uses; random where None.
        """
        return cls(core.Document(actor))

    @classmethod
    def load(cls, data: bytes) -> Document:
        """A document from a snapshot and the change chunks after it, in one piece.

        Raises:
            CorruptionError: The bytes are not such a document.
        """
        if len(data) > DOCUMENT_BYTES_MAX:
            raise CorruptionError("A document is larger than any may be.", bytes_count=len(data))
        with _mapped(CorruptionError, "a stored document does not parse"):
            return cls(core.Document.load(data))

    @classmethod
    def load_untrusted(cls, untrusted: bytes) -> Document:
        """The same for bytes that are not ours.

        Raises:
            DecodeError: The bytes are not such a document.
        """
        sync_message.check_chunks(untrusted)
        with _mapped(DecodeError, "a document does not parse"):
            return cls(core.Document.load(untrusted))

    def save(self) -> bytes:
        """The whole document in one snapshot."""
        with self._guarded(CorruptionError):
            return self._inner.save()

    @property
    def heads(self) -> Heads:
        """The hashes of the latest changes, sorted; empty for a document without changes."""
        with self._guarded(CorruptionError):
            return tuple(sorted(self._inner.get_heads()))

    @property
    def actor(self) -> bytes:
        """The id under which this copy writes."""
        return bytes(self._inner.get_actor())

    def changes_since(self, heads: Iterable[bytes]) -> list[bytes]:
        """The change chunks that a copy with those heads lacks, each after what it depends on."""
        with self._guarded(CorruptionError):
            return [change.raw_bytes for change in self._inner.get_changes(list(heads))]

    def changes(self) -> list[Change]:
        """All changes, each after what it depends on."""
        with self._guarded(CorruptionError):
            return [
                Change(bytes(one.hash), tuple(map(bytes, one.deps)), bytes(one.actor_id), one.raw_bytes)
                for one in self._inner.get_changes([])
            ]

    def fork(self, heads: Iterable[bytes] | None = None, *, actor: bytes | None = None) -> Document:
        """A copy that writes under its own actor, as of those heads or as of now.

        Args:
            heads: Changes of this document, which the copy has with all that they depend on; None: all changes.
            actor: 16 bytes under which nobody writes anything else; random where None.

        Raises:
            InvalidValueError: Heads that this document does not have.
        """
        with self._guarded(InvalidValueError, "the document never had these heads"):
            copy = self._inner.fork(None if heads is None else list(heads))
            if actor is not None:
                copy.set_actor(actor)
            return Document(copy)

    def merge(self, other: Document) -> None:
        """Take over every change of another copy."""
        self._texts.clear()
        with self._guarded(CorruptionError):
            self._inner.merge(other._inner)

    @contextmanager
    def edit(self) -> Iterator[Edit]:
        """One transaction: all of its changes are made when the block ends, none when it raises.

        Raises:
            InvalidValueError: An edit that the document does not allow.
        """
        refused = "the document does not allow this edit"
        texts, self._texts = self._texts, {}
        with self._guarded(InvalidValueError, refused), self._inner.transaction() as transaction:
            yield Edit(transaction, texts)
        self._texts = texts  # Not where it was undone.

    def to_python(self, path: Path = (), heads: Heads | None = None) -> Json | Missing:
        """The value at a path as plain data; what plain data cannot show is left out, in lists it is None.

        Args:
            path: Where to read.
            heads: Changes of this document: the value as it was with them and what they depend on; None: as it is now.

        Raises:
            DecodeError: The library fails on this document.
        """
        with self._guarded(DecodeError, "a document that cannot be read"):
            reader = self._inner if heads is None else _Past(self._inner, heads)
            node: Any = core.ObjType.Map, core.ROOT
            for step in path:
                if not isinstance(node[0], core.ObjType):
                    return MISSING
                node = _get(reader, node[1], step)
                if node is None:
                    return MISSING
            return _read(reader, node, _DEPTH_MAX, self._texts if heads is None else None)

    def writings(self, path: Path, pasts: Sequence[Heads]) -> list[Writing | None]:
        """Which writing of a map's key, all of whose maps and lists are there now, each of several pasts shows.

        Raises:
            DecodeError: The library fails on this document.
        """
        with self._guarded(DecodeError, "a document that cannot be read"):
            node: Any = core.ROOT
            for step in path[:-1]:
                found = _get(self._inner, node, step)
                if found is None or not isinstance(found[0], core.ObjType):
                    return [None] * len(pasts)
                node = found[1]
            shown: list[Writing | None] = []
            for heads in pasts:
                found = _get(_Past(self._inner, heads), node, path[-1])
                shown.append(None if found is None else Writing(bytes(found[1])))
            return shown

    def generate_sync_message(self, state: SyncState) -> bytes | None:
        """The next message for a peer, or None while there is nothing to say."""
        with self._guarded(CorruptionError):
            message = self._inner.generate_sync_message(state._inner)
            return None if message is None else message.encode()

    def receive_sync_message(self, state: SyncState, untrusted: bytes) -> None:
        """Take in a peer's message, with the changes that it carries.

        Raises:
            DecodeError: It does not parse, or its changes do not fit; see `poisoned`.
            LimitError: It is too large, or would be.
        """
        sync_message.parse(untrusted)
        self._texts.clear()
        with self._guarded(DecodeError, "a sync message that does not parse or fit"):
            self._inner.receive_sync_message(state._inner, core.Message.decode(untrusted))

    def assume_peer_has(self, state: SyncState, heads: Iterable[bytes]) -> None:
        """Take for granted what the peer has, so that the first message to it carries what it lacks.

        Args:
            state: A fresh state.
            heads: Of the peer's copy, as it told; empty where it has none. All are known here.
        """
        message = sync_message.encode_position(heads)
        with self._guarded(CorruptionError):
            self._inner.receive_sync_message(state._inner, core.Message.decode(message))

    @contextmanager
    def _guarded(self, error: type[DxosError], message: str = "the document is unusable") -> Iterator[None]:
        if self.poisoned:
            raise error("the document is unusable after a failure; it must be loaded again")
        try:
            with _mapped(error, message):
                yield
        except DxosError as raised:
            self.poisoned = self.poisoned or isinstance(raised.__cause__, _Panic)
            raise

    def __repr__(self) -> str:
        if self.poisoned:
            return "<Document poisoned>"
        return f"<Document heads={','.join(head.hex()[:8] for head in self.heads) or 'none'}>"


class _Panic(Exception):
    """Stands for the library's panic, which is no Exception, as the cause of the error it became."""


@contextmanager
def _mapped(error: type[DxosError], message: str) -> Iterator[None]:
    try:
        yield
    except BaseException as foreign:
        if _is_panic(foreign):
            raise error(f"{message}: {foreign}"[:300]) from _Panic(str(foreign))
        # The library raises plain `Exception`, and these two for values that do not fit its types. What the caller of
        # `edit` raises, an interrupt and a cancellation pass through.
        if type(foreign) is Exception or isinstance(foreign, UnicodeError | OverflowError):
            raise error(f"{message}: {foreign}"[:300]) from foreign
        raise


@final
class Edit:
    """The changes of one open transaction; see `Document.edit`."""

    __slots__ = ("_inner", "_texts")

    def __init__(self, inner: core.Transaction, texts: dict[bytes, str]) -> None:
        self._inner, self._texts = inner, texts

    def node(self, parent: NodeId, step: str | int) -> tuple[NodeKind, NodeId] | None:
        """The map, list or text at a place, or None where there is a plain value, or nothing."""
        found = _get(self._inner, parent, step)
        if found is None or not isinstance(found[0], core.ObjType):
            return None
        # The library's types can be compared, but not hashed.
        return next(((kind, NodeId(found[1])) for kind, type_ in _TYPES.items() if type_ == found[0]), None)

    def read(self, parent: NodeId, step: str | int) -> Json | Missing:
        """The value at a place as plain data."""
        found = _get(self._inner, parent, step)
        return MISSING if found is None else _read(self._inner, found, _DEPTH_MAX, self._texts)

    def length(self, node: NodeId) -> int:
        """How many entries, elements or characters a node has."""
        return self._inner.length(node)

    def text(self, node: NodeId) -> str:
        """The characters of a text."""
        return self._inner.text(node)

    def make(self, parent: NodeId, step: str | int, kind: NodeKind) -> NodeId:
        """Put an empty map, list or text at a map's key or over a list's element."""
        return NodeId(self._inner.put_object(parent, step, _TYPES[kind]))

    def put(self, parent: NodeId, step: str | int, value: Json) -> None:
        """Put a value at a map's key or over a list's element: texts become Text, unless they are very long."""
        match value:
            case dict():
                self._fill_map(self.make(parent, step, NodeKind.MAP), value)
            case list():
                self._fill_list(self.make(parent, step, NodeKind.LIST), value)
            case str() if len(value) <= STRING_SCALAR_CHARS_MIN:
                self.splice(self.make(parent, step, NodeKind.TEXT), 0, 0, value)
            case _:
                self._inner.put(parent, step, _scalar_type(value), value)

    def put_fixed_text(self, parent: NodeId, step: str | int, text: str) -> None:
        """Put a Text in one piece, twenty times faster than by character; only for texts that nobody ever edits."""
        self._inner.insert(self.make(parent, step, NodeKind.TEXT), 0, core.ScalarType.Str, text)

    def put_scalar_text(self, parent: NodeId, step: str | int, text: str) -> None:
        """Put a text that is replaced as a whole."""
        self._inner.put(parent, step, core.ScalarType.Str, text)

    def insert(self, parent: NodeId, index: int, value: Json) -> None:
        """Insert a value into a list."""
        match value:
            case dict():
                self._fill_map(NodeId(self._inner.insert_object(parent, index, core.ObjType.Map)), value)
            case list():
                self._fill_list(NodeId(self._inner.insert_object(parent, index, core.ObjType.List)), value)
            case str() if len(value) <= STRING_SCALAR_CHARS_MIN:
                self.splice(NodeId(self._inner.insert_object(parent, index, core.ObjType.Text)), 0, 0, value)
            case _:
                self._inner.insert(parent, index, _scalar_type(value), value)

    def delete(self, parent: NodeId, step: str | int) -> None:
        """Remove a map's key or a list's element."""
        self._inner.delete(parent, step)

    def splice(self, text_node: NodeId, index: int, delete_count: int, text: str) -> None:
        """Replace characters of a text; positions count code points.

        Raises:
            InvalidValueError: Not characters but longer pieces are at this place; see `put_fixed_text`.
        """
        delete, insert, type_ = self._inner.delete, self._inner.insert, core.ScalarType.Str
        wanted = self._inner.length(text_node) - delete_count + len(text)
        # One by one: a text inserted at once is one piece, and an edit inside it, by any peer, would delete all of it.
        try:
            for position, character in enumerate(text, start=index):
                insert(text_node, position, type_, character)
            # Afterwards, because the library walks over what is deleted with each insertion behind it.
            for _ in range(delete_count):
                delete(text_node, index + len(text))
        except Exception as refused:
            raise InvalidValueError(f"The text has no character at {index}") from refused
        if self._inner.length(text_node) != wanted:
            raise InvalidValueError(f"The text has no single characters at {index}")
        known = self._texts.get(text_node)
        if known is not None:
            self._texts[text_node] = known[:index] + text + known[index + delete_count :]

    def _fill_map(self, node: NodeId, value: dict[str, Any]) -> None:
        for key, child in value.items():
            self.put(node, key, child)

    def _fill_list(self, node: NodeId, value: Sequence[Any]) -> None:
        for index, child in enumerate(value):
            self.insert(node, index, child)


def _scalar_type(value: Json) -> core.ScalarType:
    match value:
        case None:
            return core.ScalarType.Null
        case bool():
            return core.ScalarType.Boolean
        case int():
            return core.ScalarType.Int
        case float():
            return core.ScalarType.F64
        case str():
            return core.ScalarType.Str
    raise AssertionError(f"unchecked value of type {type(value).__name__}")


def _is_panic(raised: BaseException) -> bool:
    return type(raised).__name__ == _PANIC


def _is_unreadable(raised: BaseException) -> bool:
    """Whether a read failed on the value: counters panic, and times beyond Python's have no datetime."""
    return _is_panic(raised) or isinstance(raised, ValueError | OverflowError | OSError)


def _get(reader: Any, node: bytes, step: str | int) -> Any:
    """What the library has at a place: (kind or (type, value), id); None for nothing, and for what is unreadable."""
    try:
        return reader.get(node, step)
    except BaseException as raised:
        if not _is_unreadable(raised):
            raise
        return None


def _read(reader: Any, found: Any, depth_left: int, texts: dict[bytes, str] | None = None) -> Json | Missing:
    what, node = found
    if isinstance(what, tuple):
        return _plain(*what)
    if depth_left == 0:
        return MISSING
    if what == core.ObjType.Text:
        known = None if texts is None else texts.get(node)
        text: str = reader.text(node) if known is None else known
        if known is None and texts is not None and len(text) >= _LONG_TEXT_CHARS and len(texts) < _LONG_TEXTS_MAX:
            texts[node] = text
        return text
    if what == core.ObjType.List:
        values = [_read(reader, child, depth_left - 1, texts) for child in _elements(reader, node)]
        return [None if value is MISSING else value for value in values]
    if what != core.ObjType.Map:
        return MISSING
    entries = {}
    for key, child in _entries(reader, node):
        value = MISSING if child is None else _read(reader, child, depth_left - 1, texts)
        if value is not MISSING:
            entries[key] = value
    return entries


def _entries(reader: Any, node: bytes) -> Iterable[tuple[str, Any]]:
    keys = reader.keys(node)
    try:
        values = reader.values(node)
    except BaseException as raised:
        if not _is_unreadable(raised):
            raise
        values = [_get(reader, node, key) for key in keys]
    return zip(keys, values, strict=True)


def _elements(reader: Any, node: bytes) -> Iterable[Any]:
    try:
        values: Iterable[Any] = reader.values(node)
    except BaseException as raised:
        if not _is_unreadable(raised):
            raise
        nothing = (core.ScalarType.Null, None), b""
        values = [_get(reader, node, index) or nothing for index in range(reader.length(node))]
    return values


@final
class _Past:
    """Reads a document as it was with certain heads."""

    __slots__ = ("_heads", "_inner")

    def __init__(self, inner: core.Document, heads: Heads) -> None:
        self._inner, self._heads = inner, list(heads)

    def get(self, node: bytes, step: str | int) -> Any:
        return self._inner.get(node, step, self._heads)

    def keys(self, node: bytes) -> list[str]:
        return self._inner.keys(node, self._heads)

    def values(self, node: bytes) -> Any:
        return self._inner.values(node, self._heads)

    def length(self, node: bytes) -> int:
        return self._inner.length(node, self._heads)

    def text(self, node: bytes) -> str:
        return self._inner.text(node, self._heads)


def _plain(type_: core.ScalarType, value: Any) -> Json | Missing:
    match value:
        case None if type_ == core.ScalarType.Null:
            return None
        case bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else MISSING
        case datetime():
            # The library hands out local time without a zone.
            return datetime.fromtimestamp(value.timestamp(), UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    return MISSING


def is_hash(value: object) -> bool:
    """Whether a value has the form of a head."""
    return isinstance(value, bytes) and len(value) == _HASH_BYTES
