"""Apply a client's mutations to the document that holds the object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from msgspec import to_builtins

from dxos.echo.document import MISSING, ROOT, Document, Edit, NodeId, NodeKind
from dxos.echo.mutation import (
    ChangeType,
    Delete,
    Insert,
    Mutation,
    Put,
    Remove,
    SetDeleted,
    SetMeta,
    Splice,
    check,
    misfit,
)
from dxos.echo.rows import Json, Path, reference, same_value
from dxos.errors import InvalidValueError, ObjectNotFoundError
from dxos.limits import STRING_SCALAR_CHARS_MIN

_SHARED_ACTOR = b"dxos-change-type-1"
_ACTOR_BYTES = 16
_DATA, _META, _SYSTEM = "data", "meta", "system"


def apply(
    document: Document, object_id: str, mutations: Sequence[Mutation], *, base_heads: Iterable[bytes] | None = None
) -> bool:
    """Apply mutations in one transaction: all of them, or none where one does not fit.

    Args:
        document: The document that holds the object.
        object_id: Which object in it.
        mutations: What the client asked for, in its order.
        base_heads: The heads of the state that the client saw, so that its list positions mean what it meant though
            the document has moved on; None: the present state.

    Returns:
        Whether the document has changed.

    Raises:
        InvalidValueError: A mutation that does not fit, or a value that cannot be stored; names the path.
        ObjectNotFoundError: The document holds no such object.
    """
    for mutation in mutations:
        check(mutation)
    before = document.heads
    if mutations and isinstance(mutations[0], ChangeType):
        document.merge(_change_type(document, object_id, mutations, before if base_heads is None else base_heads))
    elif base_heads is None or tuple(sorted(base_heads)) == before:
        _apply_all(document, object_id, mutations)
    else:
        fork = document.fork(base_heads)
        _apply_all(fork, object_id, mutations)
        document.merge(fork)
    return document.heads != before


def _change_type(
    document: Document, object_id: str, mutations: Sequence[Mutation], base_heads: Iterable[bytes]
) -> Document:
    """A copy with the mutations, of which the first is written under an actor that follows from what it does to what.

    So two peers that migrate the same state make the very same change, and what anybody writes after it stays.
    """
    first, *rest = mutations
    heads = sorted(base_heads)
    said = json.dumps([object_id, to_builtins(first)], sort_keys=True).encode()
    actor = hashlib.sha256(b"".join((_SHARED_ACTOR, *heads, said))).digest()[:_ACTOR_BYTES]
    fork = document.fork(heads, actor=actor)
    _apply_all(fork, object_id, [first])
    if rest:
        fork = fork.fork()
        _apply_all(fork, object_id, rest)
    return fork


def _apply_all(document: Document, object_id: str, mutations: Sequence[Mutation]) -> None:
    try:
        _apply_once(document, object_id, mutations, by_length=True)
    except _NotCharacters:
        _apply_once(document, object_id, mutations, by_length=False)


class _NotCharacters(Exception):
    """A text is not one by characters, which shows when it is half edited: all is done again, with reading it first."""


def _apply_once(document: Document, object_id: str, mutations: Sequence[Mutation], *, by_length: bool) -> None:
    """Apply mutations in one transaction.

    Args:
        document, object_id, mutations: As in `apply`.
        by_length: Whether to edit texts without reading them, which would take longer than the edit.
    """
    with document.edit() as edit:
        objects = edit.node(ROOT, "objects")
        found = None if objects is None or objects[0] is not NodeKind.MAP else edit.node(objects[1], object_id)
        if found is None or found[0] is not NodeKind.MAP:
            raise ObjectNotFoundError("The document does not hold this object.", object_id=object_id)
        text: NodeId | None = None
        typed_at: Path | None = None  # Where the last edit was, if that was one of a text by characters.
        for mutation in mutations:
            if isinstance(mutation, Splice) and by_length:
                if mutation.path != typed_at:
                    text = _text_node(edit, found[1], mutation.path)
                    typed_at = None if text is None else mutation.path
                if text is not None and _splice_by_length(edit, text, mutation):
                    continue
            typed_at = None
            _apply(edit, found[1], mutation)


def _text_node(edit: Edit, node: NodeId, path: Path) -> NodeId | None:
    """The text at a path, if it is one that is edited by characters."""
    if not path:
        return None
    kind, parent = _parent(edit, node, path)
    found = edit.node(parent, path[-1]) if _fits(kind, path[-1]) else None
    return found[1] if found is not None and found[0] is NodeKind.TEXT else None


def _splice_by_length(edit: Edit, text: NodeId, mutation: Splice) -> bool:
    """Replace characters of a text without reading it; whether it fits and does not become too long for that."""
    length = edit.length(text)
    if mutation.index + mutation.delete_count > length:
        raise _NotCharacters
    if length - mutation.delete_count + len(mutation.text) > STRING_SCALAR_CHARS_MIN:
        return False
    try:
        edit.splice(text, mutation.index, mutation.delete_count, mutation.text)
    except InvalidValueError:
        raise _NotCharacters from None
    return True


def _apply(edit: Edit, node: NodeId, mutation: Mutation) -> None:
    match mutation:
        case Put(path, value):
            _put(edit, *_parent(edit, node, path), path, value)
        case Delete(path):
            kind, parent = _parent(edit, node, path)
            if kind is not NodeKind.MAP or not isinstance(path[-1], str):
                raise misfit(path, "no map")
            edit.delete(parent, path[-1])
        case Insert(path, index, values):
            target = _list(edit, node, path, index)
            for offset, value in enumerate(values):
                edit.insert(target, index + offset, value)
        case Remove(path, index, count):
            target = _list(edit, node, path, index + count)
            for _ in range(count):
                edit.delete(target, index)
        case Splice(path, index, delete_count, text):
            _splice(edit, node, path, index, delete_count, text)
        case SetDeleted(deleted):
            _set_deleted(edit, _section(edit, node, _SYSTEM), deleted)
        case SetMeta(key, value):
            _put(edit, NodeKind.MAP, _section(edit, node, _META), ("meta", key), value)
        case ChangeType(type_, values, gone):
            # A new map with a new text: an edit of the old text, made twice, would spell a type that nobody knows.
            edit.put(_section(edit, node, _SYSTEM), "type", reference(type_))
            data = _section(edit, node, _DATA)
            for key in sorted(gone):
                if edit.read(data, key) is not MISSING:
                    edit.delete(data, key)
            for key, value in sorted(values.items()):
                edit.put(data, key, value)


def _section(edit: Edit, node: NodeId, name: str) -> NodeId:
    """One of the three maps of an object; made where a foreign writer left it out."""
    found = edit.node(node, name)
    return found[1] if found is not None and found[0] is NodeKind.MAP else edit.make(node, name, NodeKind.MAP)


def _parent(edit: Edit, node: NodeId, path: Path) -> tuple[NodeKind, NodeId]:
    return _walk(edit, node, path[:-1])


def _walk(edit: Edit, node: NodeId, path: Path) -> tuple[NodeKind, NodeId]:
    kind, here = NodeKind.MAP, _section(edit, node, _DATA)
    for count, step in enumerate(path, start=1):
        found = edit.node(here, step) if _fits(kind, step) else None
        if found is None:
            raise misfit(path[:count], "nothing with parts")
        kind, here = found
    return kind, here


def _fits(kind: NodeKind, step: str | int) -> bool:
    return isinstance(step, str) if kind is NodeKind.MAP else kind is NodeKind.LIST and isinstance(step, int)


def _list(edit: Edit, node: NodeId, path: Path, length_min: int) -> NodeId:
    kind, target = _walk(edit, node, path)
    if kind is not NodeKind.LIST or edit.length(target) < length_min:
        raise misfit(path, "no list of that length")
    return target


def _put(edit: Edit, kind: NodeKind, parent: NodeId, path: Path, value: Json) -> None:
    step = path[-1]
    if not _fits(kind, step) or (isinstance(step, int) and step >= edit.length(parent)):
        raise misfit(path, "no map or list with such a place")
    present = edit.read(parent, step)
    if present is not MISSING and same_value(present, value):
        return
    text = edit.node(parent, step)
    short = isinstance(value, str) and len(value) <= STRING_SCALAR_CHARS_MIN
    if short and text is not None and text[0] is NodeKind.TEXT:
        _change_text(edit, parent, step, text[1], str(present), str(value))
    else:
        edit.put(parent, step, value)


def _change_text(edit: Edit, parent: NodeId, step: str | int, node: NodeId, before: str, after: str) -> None:
    """The smallest single splice that makes one text of another."""
    shorter = min(len(before), len(after))
    start = _common_prefix(before, after, shorter)
    end = _common_prefix(before[::-1], after[::-1], shorter - start)
    _splice_text(edit, parent, step, node, start, len(before) - start - end, after[start : len(after) - end], after)


def _splice_text(
    edit: Edit,
    parent: NodeId,
    step: str | int,
    node: NodeId,
    index: int,
    delete_count: int,
    text: str,
    after: str,
) -> None:
    try:
        edit.splice(node, index, delete_count, text)
    except InvalidValueError:
        # A foreign writer stored the text in pieces, not characters; the only way to edit it is to store it anew.
        edit.put(parent, step, after)


def _common_prefix(one: str, other: str, limit: int) -> int:
    """How many first characters are equal, by halving: comparing slices is far faster than characters."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _splice(edit: Edit, node: NodeId, path: Path, index: int, delete_count: int, text: str) -> None:
    if not path:
        raise misfit(path, "no text")
    kind, parent = _parent(edit, node, path)
    present = edit.read(parent, path[-1]) if _fits(kind, path[-1]) else MISSING
    if not isinstance(present, str) or index + delete_count > len(present):
        raise misfit(path, "no text of that length")
    found = edit.node(parent, path[-1])
    after = present[:index] + text + present[index + delete_count :]
    if found is not None and len(after) <= STRING_SCALAR_CHARS_MIN:
        _splice_text(edit, parent, path[-1], found[1], index, delete_count, text, after)
    else:
        edit.put(parent, path[-1], after)


def _set_deleted(edit: Edit, system: NodeId, deleted: bool) -> None:
    present = edit.read(system, "deleted")
    if deleted:
        edit.put(system, "deleted", True)
    elif present is not MISSING:
        edit.delete(system, "deleted")
