"""Roots of a space's epochs: a new one without the history of the last, and what arrives late in an earlier one.

A new epoch's root is a document of its own, which shares no history with the root before it. Whoever was away may have
edited that one meanwhile, so every root made here tells which changes of earlier roots it includes:

    included    {<document id of an earlier root>: "<heads in hex> <heads in hex>"}

JavaScript peers make no such entry, and ignore it. For a root of theirs the state that they copied is looked for in
the earlier root's history.

Invariants
1. What an earlier root gets after the state that is included, links and edits of the objects inside it, is taken over.
2. It is taken over once: afterwards the entry names the changes that it came with, in the same transaction on disk.
3. A link that the new root left out on purpose, because the object is deleted, is not taken over again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from msgspec import Struct
from msgspec.structs import replace

from dxos.echo import edit, layout
from dxos.echo.difference import merge_rows, to_mutations
from dxos.echo.document import MISSING, ROOT, Change, Document, Heads, NodeKind
from dxos.echo.layout import ObjectStructure
from dxos.echo.mutation import Mutation
from dxos.echo.rows import ObjectRow, same_value
from dxos.keys import PublicKey
from dxos.limits import DOCUMENT_HEADS_MAX, EPOCH_CHANGES_COMPARED_MAX

_INCLUDED: Final = "included"
_HASH_BYTES: Final = 32
_ACTOR_BYTES: Final = 16


@final
class RootContent(Struct, frozen=True):
    """What a root holds at one moment, apart from its history."""

    objects: tuple[ObjectRow, ...]  # Those inside it, without deleted ones.
    link_urls: dict[str, Any]  # As the root has them, valid or not.
    included: dict[str, Heads]  # Changes by the ids of roots: of earlier ones, and of this one all that it has.


def read_root(root: Document, root_id: str) -> RootContent:
    """What goes over into the root of the next epoch.

    Args:
        root: The root until now.
        root_id: Its document id.

    Raises:
        DecodeError: The root cannot be read.
    """
    objects = tuple(row for row in layout.materialize(root) if not row.deleted)
    earlier = {one: heads for one in included_roots(root) if (heads := included_heads(root, one)) is not None}
    return RootContent(objects, layout.link_urls(root), {**earlier, root_id: root.heads})


def next_root(space_key: PublicKey, content: RootContent, links: Mapping[str, str]) -> Document:
    """A root with the content of another one and none of its history.

    Args:
        space_key: Of the space.
        content: What the other one holds.
        links: Those of its links that are valid and lead to objects that are not deleted.

    Raises:
        InvalidValueError: An object inside the root holds what cannot be written.
    """
    made = Document.create()
    layout.make_root(space_key, made, links)
    for row in content.objects:
        layout.add_inline_object(made, row.object_id, _structure(row))
    with made.edit() as transaction:
        node = transaction.make(ROOT, _INCLUDED, NodeKind.MAP)
        for root_id, heads in content.included.items():
            transaction.put_scalar_text(node, root_id, _to_text(heads))
    return made


def take_over(
    root: Document,
    earlier: Document,
    earlier_id: str,
    *,
    is_gone: Callable[[str, str], bool],
    was_given_up: bool = False,
) -> bool:
    """Bring what an earlier root got late into the present one.

    Args:
        root: The present root, which is changed.
        earlier: A root of an earlier epoch.
        earlier_id: Its document id.
        is_gone: Whether an object, or its document, is known to be deleted; gets the ids of both, and is asked only
            where it is unknown what the root includes.
        was_given_up: Whether the earlier root was given up here and came back, so that what it lacks may never come.

    Returns:
        Whether the root has changed.

    Raises:
        InvalidValueError: The earlier root holds what cannot be written.
        DecodeError: One of the two cannot be read.
    """
    included = included_heads(root, earlier_id)
    if included == earlier.heads:
        return False
    if included is not None and not _has(earlier, included):
        if not was_given_up:
            return False  # Until the rest of it is here, nobody can tell what is late.
        included = None
    elif included is None:
        included = _copied_state(root, earlier)
    before = root.heads
    known = {} if included is None else layout.link_urls(earlier, included)
    now = layout.link_urls(earlier)
    unknown = {one: now[one] for one in _not_in(now, known)}
    late = {
        one: where
        for one, where in _not_in(unknown, layout.link_urls(root)).items()
        if not (included is None and is_gone(one, where))
    }
    if late:
        layout.add_links(root, late)
    _take_over_objects(root, earlier, included)
    if included is not None:
        _set_included(root, earlier_id, earlier.heads)
    return root.heads != before


def left_out(root: Document, earlier: Document, earlier_id: str) -> dict[str, str]:
    """The document ids, by object id, to which a root deliberately links no more.

    Raises:
        DecodeError: One of the two cannot be read.
    """
    included = included_heads(root, earlier_id)
    if included is None or not _has(earlier, included):
        return {}
    return _not_in(layout.link_urls(earlier, included), layout.link_urls(root))


def _not_in(urls: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, str]:
    """The valid ones of these links whose objects have no valid link among the others."""
    # Most are the same in both, and then need not be checked.
    different = {one: url for one, url in urls.items() if others.get(one) != url}
    linked = layout.valid_links({one: others[one] for one in different if one in others})
    return {one: where for one, where in layout.valid_links(different).items() if one not in linked}


def included_heads(root: Document, earlier_id: str) -> Heads | None:
    """Up to which changes of an earlier root everything is in this one; None if it does not say.

    Raises:
        DecodeError: The document cannot be read at all.
    """
    text = root.to_python((_INCLUDED, earlier_id))
    if not isinstance(text, str):
        return None
    try:
        heads = tuple(sorted(map(bytes.fromhex, text.split(" ", DOCUMENT_HEADS_MAX))))
    except ValueError:
        return None
    return heads if all(len(one) == _HASH_BYTES for one in heads) else None


def included_roots(root: Document) -> set[str]:
    """The ids of the earlier roots of which a root tells what it includes.

    Raises:
        DecodeError: The document cannot be read at all.
    """
    found = root.to_python((_INCLUDED,))
    return set(found) if isinstance(found, dict) else set()


def is_root(document: Document) -> bool:
    """Whether a document is, or was, the root of a space.

    Raises:
        DecodeError: The document cannot be read at all.
    """
    return document.to_python(("links",)) is not MISSING


def _set_included(root: Document, earlier_id: str, heads: Heads) -> None:
    with root.edit() as transaction:
        found = transaction.node(ROOT, _INCLUDED)
        is_map = found is not None and found[0] is NodeKind.MAP
        node = found[1] if found is not None and is_map else transaction.make(ROOT, _INCLUDED, NodeKind.MAP)
        transaction.put_scalar_text(node, earlier_id, _to_text(heads))


def _to_text(heads: Heads) -> str:
    return " ".join(one.hex() for one in heads)


def _take_over_objects(root: Document, earlier: Document, included: Heads | None) -> None:
    beginning = _beginning(root)
    if beginning is None:
        return
    present = {row.object_id: row for row in layout.materialize(root)}
    added: list[ObjectRow] = []
    edited: list[tuple[str, tuple[Mutation, ...]]] = []
    for row in layout.materialize(earlier):
        before = None if included is None else layout.object_at(earlier, row.object_id, included)
        now, begun = present.get(row.object_id), layout.object_at(root, row.object_id, beginning)
        if now is None and before is None and not row.deleted:
            added.append(row)
        elif now is not None and before is not None and begun is not None:
            mutations = to_mutations(begun, merge_rows(_except_alike(before, row, now), row, begun))
            if mutations:
                edited.append((row.object_id, mutations))
    if not added and not edited:
        return
    # Every peer does this at once: as a change of the same author to the same state it is one and the same change, and
    # what it inserts is there once. The author is named after the content, so that no two changes share a name.
    content = repr((added, edited)).encode()
    copy = root.fork(beginning, actor=hashlib.sha256(content).digest()[:_ACTOR_BYTES])
    for row in added:
        layout.add_inline_object(copy, row.object_id, _structure(row))
    for object_id, mutations in edited:
        edit.apply(copy, object_id, mutations)
    root.merge(copy)


def _except_alike(before: ObjectRow, row: ObjectRow, now: ObjectRow) -> ObjectRow:
    """The earlier state, but as it is now in all properties that are the same in both roots."""
    alike = {key: value for key, value in row.data.items() if key in now.data and same_value(value, now.data[key])}
    return replace(before, data={**before.data, **alike})


def _beginning(root: Document) -> Heads | None:
    """The state in which a root was begun, by whoever made it; the same on all peers."""
    own = [heads for heads in _states(root.changes()) if root.to_python((_INCLUDED,), heads) is not MISSING][:1]
    return own[0] if own else _first_objects(root)


def _first_objects(root: Document) -> Heads | None:
    return next((heads for heads in _states(root.changes()) if _objects(root, heads)), None)


def _copied_state(root: Document, earlier: Document) -> Heads | None:
    """The latest state of the earlier root that is the one in which this root was begun; None if there is none."""
    beginning = _beginning(root)
    if beginning is None:
        return None
    objects, links = _objects(root, beginning), layout.link_urls(root, beginning)
    states = _states(earlier.changes())[-EPOCH_CHANGES_COMPARED_MAX:]
    alike = (heads for heads in reversed(states) if same_value(_objects(earlier, heads), objects))
    return next((heads for heads in alike if layout.link_urls(earlier, heads) == links), None)


def _objects(document: Document, heads: Heads) -> object:
    found = document.to_python(("objects",), heads)
    return None if found is MISSING else found


def _states(changes: list[Change]) -> list[Heads]:
    """The heads after each change."""
    states: list[Heads] = []
    latest: set[bytes] = set()
    for change in changes:
        latest.difference_update(change.deps)
        latest.add(change.hash)
        states.append(tuple(sorted(latest)))
    return states


def _has(document: Document, heads: Heads) -> bool:
    return {change.hash for change in document.changes()}.issuperset(heads)


def _structure(row: ObjectRow) -> ObjectStructure:
    return ObjectStructure(row.data, row.type, row.kind, row.source, row.target, tuple(row.meta.get("keys", ())))
