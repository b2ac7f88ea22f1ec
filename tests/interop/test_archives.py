"""Spaces that leave one implementation as a file and arrive in the other."""

import json
from pathlib import Path
from typing import Any

import pytest
from interop.live import JavaScriptPeer, python, sees, welcome

from dxos import Client, Space

pytestmark = pytest.mark.anyio

VALUES: dict[str, Any] = {
    "text": "äöü 🛒",
    "count": 3,
    "price": 2.5,
    "done": False,
    "nothing": None,
    "list": [1, "two", [3], {"four": 4}],
    "map": {"a": {"b": ["c"]}},
}


async def objects_of(js: JavaScriptPeer, space_id: str) -> dict[str, Any]:
    found = (await js.do("query", space=space_id, properties=True))["objects"]
    return {one["id"]: one["data"] for one in found}


async def loaded_by(js: JavaScriptPeer, space_id: str) -> dict[str, Any]:
    """Objects of a space that 0.8.3 has imported: it loads them by id, and its queries do not find them."""
    found = (await js.do("exportJson", space=space_id))["data"]["objects"]
    return {one["@id"]: {name: value for name, value in one.items() if not name.startswith("@")} for one in found}


async def full_space(client: Client) -> tuple[Space, str, str, str]:
    """A space with values of every kind, a reference, history, and an object that was removed."""
    space = await client.create_space(name="ours")
    cart = space.db.add(VALUES)
    note = space.db.add({"title": "draft", "cart": None})
    gone = space.db.add({"title": "gone"})
    await space.db.flush()
    note.title, note.cart = "final", cart
    space.db.remove(gone)
    await space.db.flush()
    return space, cart.id, note.id, gone.id


async def test_javascript_imports_an_archive_of_python(shared_js: JavaScriptPeer, signal: str, tmp_path: Path) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path / "profile", "Peter") as client:
        space, cart, note, gone = await full_space(client)
        archive = await space.export_archive()
        (tmp_path / archive.filename).write_bytes(archive.contents)
        imported = await js.do("importArchive", path=str(tmp_path / archive.filename))
        assert imported["spaceId"] != space.id
        assert imported["name"] == "ours"
        found = await loaded_by(js, imported["spaceId"])
        assert found[cart] == VALUES
        assert found[note] == {"title": "final", "cart": {"/": f"dxn:echo:@:{cart}"}}
        assert gone not in found
        # What it has imported is its own: it can edit it, and ours stays as it is.
        await js.do("update", space=imported["spaceId"], objectId=note, set={"title": "theirs"})
        assert (await loaded_by(js, imported["spaceId"]))[note]["title"] == "theirs"
        assert (await space.db.get(note)).title == "final"


async def test_python_imports_an_archive_of_javascript_and_shares_it_with_the_exporter(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    theirs = (await js.do("createSpace", name="theirs"))["spaceId"]
    cart = (await js.do("add", space=theirs, data=VALUES))["objectId"]
    gone = (await js.do("add", space=theirs, data={"title": "gone"}))["objectId"]
    await js.do("update", space=theirs, objectId=cart, set={"count": 4})
    await js.do("remove", space=theirs, objectId=gone)
    path = tmp_path / "theirs.tar"
    assert (await js.do("exportArchive", space=theirs, path=str(path)))["filename"] == f"{theirs}.tar"
    async with python(signal, tmp_path / "profile", "Peter") as client:
        space = await client.spaces.import_archive(path.read_bytes())
        assert space.name == "theirs"
        copied = await space.db.get(cart)
        assert copied.to_dict() == VALUES | {"count": 4}
        assert [one.id for one in await space.db.query().deleted("only").run()] == [gone]
        # The copy is a space like any other: the very peer that it came from joins it, beside its own.
        await welcome(space, js)
        await js.sees(space.id, cart, VALUES | {"count": 4})
        await js.do("update", space=space.id, objectId=cart, text={"text": "äöü 🛒🛒"}, push={"list": ["js"]})
        await sees(space, cart, text="äöü 🛒🛒")
        copied.count = 5
        await space.db.flush()
        await js.sees(space.id, cart, {"count": 5})
        assert (await objects_of(js, theirs))[cart]["count"] == 4


async def test_javascript_imports_json_of_python(shared_js: JavaScriptPeer, signal: str, tmp_path: Path) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space, cart, note, gone = await full_space(client)
        data = json.loads(await client.create_serializer().serialize_space(space))
    target = (await js.do("createSpace", name="target"))["spaceId"]
    await js.do("importJson", space=target, data=data)
    found = await objects_of(js, target)
    assert found[cart] == VALUES
    assert found[note] == {"title": "final", "cart": {"/": f"dxn:echo:@:{cart}"}}
    assert gone not in found


async def test_python_imports_json_of_javascript(shared_js: JavaScriptPeer, signal: str, tmp_path: Path) -> None:
    js = await shared_js.open("Jane")
    theirs = (await js.do("createSpace", name="theirs"))["spaceId"]
    cart = (await js.do("add", space=theirs, data=VALUES))["objectId"]
    data = (await js.do("exportJson", space=theirs))["data"]
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_serializer().deserialize_space(json.dumps(data).encode())
        assert space.name == "theirs"
        copied = await space.db.get(cart)
        assert copied.to_dict() == VALUES
        assert await space.db.query().count() == 2
