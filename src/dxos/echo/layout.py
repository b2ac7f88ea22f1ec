"""The shape of ECHO's documents: a root that lists a space's objects, and one document for each object.

    root    {version: 1, access: {spaceKey}, objects: {id: OBJECT}, links: {id: "automerge:<document id>"}}
    object  {version: 1, access: {spaceKey}, objects: {id: OBJECT}}
    OBJECT  {system: {kind?, type?: {"/": dxn}, deleted?, source?: REF, target?: REF}, meta: {keys: []}, data: {}}

Only `access.spaceKey` ties a document to a space. Whoever writes a type or a reference writes it once, as a whole:
two peers that create the same text at once make one text of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, final

from msgspec import Struct, field

from dxos.echo.document import MISSING, ROOT, Document, Edit, Heads, NodeId, NodeKind
from dxos.echo.mutation import check_value
from dxos.echo.rows import KINDS, Kind, ObjectRow, reference, reference_dxn
from dxos.errors import InvalidKeyError, InvalidValueError
from dxos.keys import PublicKey
from dxos.keys.ids import is_object_id, parse_document_id

VERSION = 1
PROPERTIES_TYPE = "dxn:type:dxos.org/type/Properties:0.1.0"  # Of the object, inline in the root, that names a space.
DOCUMENT_URL_PREFIX = "automerge:"


@final
class ObjectStructure(Struct, frozen=True):
    """A new object."""

    data: dict[str, Any] = field(default_factory=dict)
    type: str | None = None  # `dxn:type:<name>:<version>`; None for an object without schema.
    kind: Kind = "object"
    source: str | None = None  # The DXNs that a relation connects.
    target: str | None = None
    keys: tuple[dict[str, str], ...] = ()  # `{"source", "id"}`: what other systems call it.


def make_root(space_key: PublicKey, document: Document, links: Mapping[str, str] | None = None) -> None:
    """Make an empty document the root of a space.

    Args:
        space_key: Of the space.
        document: The empty document.
        links: Document ids by object id, all of them valid.
    """
    with document.edit() as edit:
        _put_head(edit, space_key)
        edit.make(ROOT, "objects", NodeKind.MAP)
        node = edit.make(ROOT, "links", NodeKind.MAP)
        for object_id, document_id in (links or {}).items():
            edit.put_scalar_text(node, object_id, DOCUMENT_URL_PREFIX + document_id)


def make_object_document(
    space_key: PublicKey, object_id: str, structure: ObjectStructure, document: Document | None = None
) -> Document:
    """A document that holds one new object.

    Raises:
        InvalidValueError: The id is none, or the data cannot be stored; names the path.
    """
    _check(object_id, structure)
    made = document or Document.create()
    with made.edit() as edit:
        _put_head(edit, space_key)
        _put_object(edit, edit.make(ROOT, "objects", NodeKind.MAP), object_id, structure)
    return made


def add_inline_object(document: Document, object_id: str, structure: ObjectStructure) -> None:
    """Add an object inside a document that has objects already, such as a space's properties inside its root.

    Raises:
        InvalidValueError: The id is none, the data cannot be stored, or the document has no objects.
    """
    _check(object_id, structure)
    with document.edit() as edit:
        _put_object(edit, _map_of(edit, "objects"), object_id, structure)


def add_links(root: Document, links: dict[str, str]) -> None:
    """Tell in the root which documents hold which objects; links that are there already are left alone.

    Args:
        root: The root document.
        links: Document ids by object id.

    Raises:
        InvalidValueError: An id that is none: such a link would stop a JavaScript peer.
    """
    for object_id, document_id in links.items():
        _check_object_id(object_id)
        if not is_document_id(document_id):
            raise InvalidValueError(f"{document_id!r:.60} is no document id.")
    with root.edit() as edit:
        node = _map_of(edit, "links")
        for object_id, document_id in links.items():
            url = DOCUMENT_URL_PREFIX + document_id
            if edit.read(node, object_id) != url:
                edit.put_scalar_text(node, object_id, url)


def adopt(document: Document, space_key: PublicKey) -> None:
    """Make a copy of a document one of another space; its history stays.

    Raises:
        InvalidValueError: It is no document of a space.
    """
    if space_key_of(document) is None:
        raise InvalidValueError("The document is of no space.")
    with document.edit() as edit:
        edit.put_fixed_text(_map_of(edit, "access"), "spaceKey", space_key.hex)


def replace_links(root: Document, document_ids: Mapping[str, str | None]) -> None:
    """Let links of a copied root lead to copies of its documents.

    Args:
        root: The copy of the root.
        document_ids: Ids of the copies, by the ids of objects that have a link; where None, the link is removed.

    Raises:
        InvalidValueError: It is no root.
    """
    with root.edit() as edit:
        match edit.node(ROOT, "links"):
            case (NodeKind.MAP, node):
                for object_id, document_id in document_ids.items():
                    if document_id is None:
                        edit.delete(node, object_id)
                    else:
                        edit.put_scalar_text(node, object_id, DOCUMENT_URL_PREFIX + document_id)
            case _:
                raise InvalidValueError("The document has no links: it is no root of a space.")


def links(root: Document, heads: Heads | None = None) -> dict[str, str]:
    """Document ids by object id, as far as they are valid.

    Args:
        root: The root document.
        heads: Changes of the root: its links as they were with them; None: as they are now.

    Raises:
        DecodeError: The document cannot be read at all.
    """
    return valid_links(link_urls(root, heads))


def link_urls(root: Document, heads: Heads | None = None) -> dict[str, Any]:
    """What a root says of its links, valid or not, by object id; far faster than `links` for large roots.

    Raises:
        DecodeError: The document cannot be read at all.
    """
    found = root.to_python(("links",), heads)
    return found if isinstance(found, dict) else {}


def valid_links(urls: Mapping[str, object]) -> dict[str, str]:
    """Document ids by object id, of those of `link_urls` that are valid."""
    linked = {}
    for object_id, url in urls.items():
        if isinstance(url, str) and is_object_id(object_id):
            document_id = url.removeprefix(DOCUMENT_URL_PREFIX)
            if document_id != url and is_document_id(document_id):
                linked[object_id] = document_id
    return linked


def space_key_of(document: Document) -> PublicKey | None:
    """The space a document says it belongs to, or None.

    Raises:
        DecodeError: The document cannot be read at all.
    """
    text = document.to_python(("access", "spaceKey"))
    if not isinstance(text, str):
        return None
    try:
        return PublicKey.from_hex(text)
    except InvalidKeyError:
        return None


def materialize(document: Document) -> list[ObjectRow]:
    """The objects inside a document as rows; what has no object's shape, or no object id, is left out.

    Raises:
        DecodeError: The document cannot be read at all.
    """
    objects = document.to_python(("objects",))
    if not isinstance(objects, dict):
        return []
    rows = [_row(object_id, found) for object_id, found in objects.items() if is_object_id(object_id)]
    return [row for row in rows if row is not None]


def object_at(document: Document, object_id: str, heads: Heads) -> ObjectRow | None:
    """An object as it was with certain heads of its document; None if it did not exist.

    Raises:
        DecodeError: The document cannot be read at all.
    """
    return _row(object_id, document.to_python(("objects", object_id), heads))


def is_document_id(text: str) -> bool:
    """Whether text is a document id that every peer accepts."""
    try:
        parse_document_id(text)
    except InvalidKeyError:
        return False
    return True


def _row(object_id: str, found: object) -> ObjectRow | None:
    if not isinstance(found, dict):
        return None
    system, meta, data = (_map(found.get(name)) for name in ("system", "meta", "data"))
    kind = system.get("kind")
    return ObjectRow(
        object_id,
        cast(Kind, kind) if kind in KINDS else "object",
        reference_dxn(system.get("type")),
        system.get("deleted") is True,
        reference_dxn(system.get("source")),
        reference_dxn(system.get("target")),
        meta,
        data,
    )


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _put_head(edit: Edit, space_key: PublicKey) -> None:
    edit.put(ROOT, "version", VERSION)
    edit.put_fixed_text(edit.make(ROOT, "access", NodeKind.MAP), "spaceKey", space_key.hex)


def _put_object(edit: Edit, objects: NodeId, object_id: str, structure: ObjectStructure) -> None:
    if edit.read(objects, object_id) is not MISSING:
        raise InvalidValueError(f"There is an object {object_id} already.")
    system: dict[str, Any] = {}
    if structure.type is not None:
        system = {"type": reference(structure.type), "kind": structure.kind}
    if structure.kind == "relation":
        system["kind"] = structure.kind
    if structure.source is not None:
        system["source"] = reference(structure.source)
    if structure.target is not None:
        system["target"] = reference(structure.target)
    meta = {"keys": list(structure.keys)}
    edit.put(objects, object_id, {"system": system, "meta": meta, "data": structure.data})


def _map_of(edit: Edit, name: str) -> NodeId:
    match edit.node(ROOT, name):
        case (NodeKind.MAP, node):
            return node
        case None if edit.read(ROOT, name) is MISSING:
            return edit.make(ROOT, name, NodeKind.MAP)
    raise InvalidValueError(f"The document has no map of {name}")


def _check(object_id: str, structure: ObjectStructure) -> None:
    _check_object_id(object_id)
    check_value(structure.data)
    check_value(list(structure.keys), ("meta", "keys"))


def _check_object_id(object_id: str) -> None:
    if not is_object_id(object_id):
        raise InvalidValueError(f"{object_id!r:.60} is no object id.")
