"""Spaces as JSON, archives through the client's face, and what is refused."""

import json
from typing import Any

import pytest

from dxos import Client, EchoObject, Space
from dxos.echo.query import HasType
from dxos.errors import ClosedError, InvalidValueError, SpaceNotReadyError
from dxos.keys.ids import make_object_id
from dxos.limits import UPDATE_OBJECTS_MAX
from dxos.services.contract import Progress
from dxos.testing.peers import simulated_clients
from dxos.testing.services import FakeServices

pytestmark = pytest.mark.anyio
TASK = "dxn:type:example.org/type/Task:0.1.0"
ID = make_object_id(1, bytes(10))


async def shop(client: Client) -> tuple[Space, EchoObject, EchoObject]:
    space = await client.create_space(name="shop")
    milk = space.db.add(EchoObject({"title": "Milk", "tags": ["a", {"b": None}]}, type=TASK))
    cart = space.db.add({"title": "Cart", "needs": [milk]})
    gone = space.db.add({"title": "gone"})
    await space.db.flush()
    space.db.remove(gone)
    return space, milk, cart


def document(*objects: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"version": 1, "objects": list(objects), **more}).encode()


async def test_a_space_becomes_json_in_the_original_form() -> None:
    async with simulated_clients(1) as (alice,):
        space, milk, cart = await shop(alice)
        milk.title = "Oat milk"  # Not sent yet.
        data = json.loads(await alice.create_serializer().serialize_space(space))
        assert data.keys() == {"version", "timestamp", "spaceKey", "objects"}
        assert data["version"] == 1
        assert data["spaceKey"] == space.key.hex
        properties, *rest = data["objects"]
        assert properties["@type"] == {"/": "dxn:type:dxos.org/type/Properties:0.1.0"}
        assert rest == [
            {
                "@id": milk.id, "@type": {"/": TASK}, "@version": 1, "@meta": {"keys": []},
                "title": "Oat milk", "tags": ["a", {"b": None}],
            },
            {
                "@id": cart.id, "@version": 1, "@meta": {"keys": []},
                "title": "Cart", "needs": [{"/": f"dxn:echo:@:{milk.id}"}],
            },
        ]  # fmt: skip


async def test_json_becomes_a_space_with_the_same_objects() -> None:
    async with simulated_clients(2) as (alice, bob):
        space, milk, cart = await shop(alice)
        told: list[Progress] = []
        data = await alice.create_serializer().serialize_space(space, progress=told.append)
        assert told[-1] == Progress(3, 3)
        copy = await bob.create_serializer().deserialize_space(data, progress=told.append)
        assert told[-1] == Progress(2, 2)
        assert copy.name == "shop"
        assert copy.id != space.id
        found = await copy.db.get(cart.id)
        assert found.needs[0].title == "Milk"
        assert found.needs[0].type == TASK
        assert [one.id for one in await copy.db.query(HasType(TASK)).run()] == [milk.id]
        assert await copy.db.query().deleted("include").count() == 3


async def test_json_can_be_added_to_a_space_that_is_there() -> None:
    async with simulated_clients(1) as (alice,):
        space, milk, _ = await shop(alice)
        serializer = alice.create_serializer()
        data = await serializer.serialize_space(space)
        target = await alice.create_space(name="target", color="red")
        assert await serializer.deserialize_space(data, into=target) is target
        assert target.properties.to_dict() == {"name": "shop", "color": "red"}
        assert (await target.db.get(milk.id)).title == "Milk"
        with pytest.raises(InvalidValueError, match="2 of these objects already"):
            await serializer.deserialize_space(data, into=target)


async def test_an_import_is_undone_as_one_with_the_name_that_it_gave() -> None:
    async with simulated_clients(1) as (alice,):
        serializer = alice.create_serializer()
        source = await alice.create_space(name="source")
        await source.db.add_all({"count": 1} for _ in range(UPDATE_OBJECTS_MAX + 1))
        target = await alice.create_space(name="target")
        await serializer.deserialize_space(await serializer.serialize_space(source), into=target)
        assert await target.db.undo()
        assert (target.name, await target.db.query(count=1).count()) == ("target", 0)
        assert await target.db.redo()
        assert (target.name, await target.db.query(count=1).count()) == ("source", UPDATE_OBJECTS_MAX + 1)


async def test_a_relation_stays_one() -> None:
    async with simulated_clients(1) as (alice,):
        ends = {"@relationSource": f"dxn:echo:@:{ID}", "@relationTarget": f"dxn:echo:@:{ID}"}
        one = {"@id": ID, "@type": {"/": TASK}, **ends, "since": 1}
        serializer = alice.create_serializer()
        space = await serializer.deserialize_space(document(one))
        back = json.loads(await serializer.serialize_space(space))["objects"]
        assert next(each for each in back if each["@id"] == ID) == {**one, "@version": 1, "@meta": {"keys": []}}


async def test_what_was_removed_and_what_other_systems_call_it_are_kept() -> None:
    async with simulated_clients(1) as (alice,):
        keys = [{"source": "shop.example", "id": "7"}]
        space = await alice.create_serializer().deserialize_space(
            document({"@id": ID, "@type": "example.org/type/Old", "@deleted": True, "@meta": {"keys": keys}})
        )
        (old,) = await space.db.query().deleted("only").run()
        assert old.meta == {"keys": keys}
        assert old.type == "dxn:type:example.org/type/Old"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON|nested"),
        (b'{"version": 1, "objects": [{"x": NaN}]}', "no JSON"),
        (b"[]", "no version"),
        (document(version=2), "Invalid version: 2"),
        (b'{"version": 1}', "no version"),
        (document({"title": "x"}), "without an id"),
        (document({"@id": "x"}), "without an id"),
        (document({"@id": ID}, {"@id": ID}), "same id"),
        (document({"@id": ID, "big": 2**60}), f"Object {ID}: big"),
    ],
)
async def test_what_is_no_json_of_a_space_makes_nothing(data: bytes, says: str) -> None:
    async with Client(services=FakeServices()) as client:
        await client.halo.create_identity("Alice")
        with pytest.raises(InvalidValueError, match=says):
            await client.create_serializer().deserialize_space(data)
        assert len(client.spaces) == 0


async def test_a_table_of_one_type_goes_out_and_comes_in() -> None:
    async with simulated_clients(1) as (alice,):
        space, milk, _ = await shop(alice)
        serializer = alice.create_serializer()
        table = await serializer.serialize_table(space, TASK.rpartition(":")[0])
        assert len(table.splitlines()) == 2
        copy = await serializer.deserialize_table(table, TASK, name="table")
        found = await copy.db.get(milk.id)
        assert found.to_dict() == milk.to_dict()
        assert found.type == TASK
        assert copy.name == "table"
        with pytest.raises(InvalidValueError, match="already"):
            await serializer.deserialize_table(table, TASK, into=space)


async def test_an_archive_goes_through_the_client() -> None:
    async with simulated_clients(1) as (alice,):
        space, milk, cart = await shop(alice)
        milk.title = "Oat milk"
        told: list[Progress] = []
        archive = await space.export_archive(progress=told.append)
        assert archive.filename == f"{space.id}.tar"
        assert told[-1] == Progress(3, 3)
        for given in (archive, archive.contents):
            copy = await alice.spaces.import_archive(given, progress=told.append)
            assert copy in alice.spaces
            assert (await copy.db.get(cart.id)).needs[0].title == "Oat milk"
        with pytest.raises(InvalidValueError):
            await alice.spaces.import_archive(b"x")
        await space.close()
        with pytest.raises(SpaceNotReadyError):
            await space.export_archive()
    with pytest.raises(ClosedError):
        alice.create_serializer()
