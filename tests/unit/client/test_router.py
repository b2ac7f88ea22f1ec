"""Types in a database: registered, stored as schemas, queried, migrated."""

import dataclasses
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, ClassVar

import anyio
import pytest
from pydantic import BaseModel

from dxos.client import Client, EchoObject, QueryUpdate, Space
from dxos.client.migrations import migration
from dxos.client.types import Object, Ref, Relation, field
from dxos.echo.schema import SCHEMA_TYPE, StoredSchema
from dxos.errors import InvalidKeyError, InvalidValueError, ObjectNotFoundError, StorageFullError, UsageError
from dxos.services.contract import ConnectionState
from dxos.testing.peers import join, simulated_clients, until
from dxos.testing.services import FakeServices

pytestmark = pytest.mark.anyio


class Person(Object, typename="example.com/type/Person", version="0.1.0"):
    name: str


class Task(Object, typename="example.com/type/Task", version="0.1.0"):
    title: str
    done: bool = False
    due: date | None = None
    assignee: Ref[Person] | None = None
    owner: Person | None = None
    tags: list[str] = field(default_factory=list)
    type_: str = field(default="chore", name="type")


class Knows(Relation[Person, Person], typename="example.com/type/Knows", version="0.1.0"):
    since: int


class TaskV2(Object, typename="example.com/type/Task", version="0.2.0"):
    name: str
    done: bool = False
    tags: list[str] = field(default_factory=list)


@migration(Task, TaskV2)
def rename_title(old: Task) -> dict[str, Any]:
    return {"name": old.title.upper(), "done": old.done, "tags": old.tags}


@asynccontextmanager
async def open_space(*types: type) -> AsyncIterator[tuple[FakeServices, Client, Space]]:
    fake = FakeServices()
    async with Client(services=fake) as client:
        client.add_schema(*types)
        await client.halo.create_identity("Alice")
        yield fake, client, await client.create_space(name="Groceries")


async def schemas(space: Space) -> list[StoredSchema]:
    found = [StoredSchema.from_data(one.to_dict()) for one in await space.db.query().run() if one.type == SCHEMA_TYPE]
    return [one for one in found if one is not None]


async def test_the_schema_is_stored_with_the_first_object_of_its_type() -> None:
    async with open_space(Person, Task) as (fake, _, space):
        assert await schemas(space) == []
        fake.calls.clear()
        alice = space.db.add(Person(name="Alice"))
        space.db.add(Person(name="Bob"))
        await space.db.flush()
        assert fake.calls.count("data.update") == 1
        assert await schemas(space) == [Person._stored_schema()]
        space.db.add(Task(title="Shop", assignee=Ref(alice)))
        await space.db.flush()
        assert await schemas(space) == [Person._stored_schema(), Task._stored_schema()]


async def test_a_schema_that_was_refused_is_stored_with_the_next_object_of_its_type() -> None:
    async with open_space(Person) as (fake, _, space):
        fake.refuse = StorageFullError("no room")
        alice = space.db.add(Person(name="Alice"))
        with pytest.raises(StorageFullError):
            await space.db.flush()
        assert await schemas(space) == []
        space.db.add(alice)
        await space.db.flush()
        assert await schemas(space) == [Person._stored_schema()]


async def test_a_schema_that_the_space_has_is_not_stored_again() -> None:
    async with open_space(Person) as (fake, _, space):
        keeper = EchoObject(type=SCHEMA_TYPE)
        fake.change(space.id, keeper.id, Person._stored_schema().to_data(keeper.id), type=SCHEMA_TYPE)
        space.db.add(Person(name="Alice"))
        await space.db.flush()
        assert len(await schemas(space)) == 1


async def test_a_class_with_a_further_optional_field_extends_the_schema_that_the_space_keeps() -> None:
    class Human(Object, typename="example.com/type/Person", version="0.1.0"):
        name: str
        nickname: str | None = None

    async with open_space(Human) as (fake, _, space):
        keeper = EchoObject(type=SCHEMA_TYPE)
        fake.change(space.id, keeper.id, Person._stored_schema().to_data(keeper.id), type=SCHEMA_TYPE)
        await space.db.query().run()
        for name in ("Alice", "Bob"):
            space.db.add(Human(name=name))
            await space.db.flush()
        (kept,) = await schemas(space)
        assert list(kept.properties) == [*Person._stored_schema().properties, "nickname"]
        assert kept.properties["nickname"] == Human._stored_schema().properties["nickname"]
        found = (await space.db.get(keeper.id)).to_dict()["jsonSchema"]
        assert found["propertyOrder"].count("nickname") == 1
        assert found["required"] == ["name", "id"]


class _Numbered(Object, typename="example.com/type/Person", version="0.1.0"):
    name: int


class _Nameless(Object, typename="example.com/type/Person", version="0.1.0"):
    title: str | None = None


class _Older(Object, typename="example.com/type/Person", version="0.1.0"):
    name: str
    born: int


@pytest.mark.parametrize(
    ("other", "values", "why"),
    [
        (_Numbered, {"name": 1}, "says that 'name' is string, not integer"),
        (_Nameless, {"title": "Dr"}, "requires 'name'"),
        (_Older, {"name": "Alice", "born": 1}, "has no 'born', which must be optional if it is new"),
    ],
)
async def test_a_class_whose_objects_do_not_fit_the_schema_that_the_space_keeps_needs_a_version_of_its_own(
    other: type[Object], values: dict[str, Any], why: str
) -> None:
    async with open_space(other) as (fake, _, space):
        keeper = EchoObject(type=SCHEMA_TYPE)
        fake.change(space.id, keeper.id, Person._stored_schema().to_data(keeper.id), type=SCHEMA_TYPE)
        await space.db.query().run()
        made = other(**values)
        with pytest.raises(UsageError, match=re.escape(f"{why}; give yours a higher version, and a migration.")):
            space.db.add(made)
        assert await space.db.query(other).run() == []


async def test_only_registered_classes_can_be_added() -> None:
    async with open_space() as (_, client, space):
        alice = Person(name="Alice")
        with pytest.raises(UsageError, match=r"add_schema\(Person\)"):
            space.db.add(alice)
        with pytest.raises(UsageError):
            space.db.add({"who": alice})
        client.add_schema(Person)
        assert space.db.add(alice) is alice


async def test_an_object_of_an_unknown_type_becomes_typed_when_its_class_is_registered() -> None:
    async with open_space() as (fake, client, space):
        task_id = EchoObject().id
        data = {"title": "Shop", "done": False, "tags": ["food"], "extra": 1}
        fake.change(space.id, task_id, data, type="dxn:type:example.com/type/Task:0.1.0")
        found = await space.db.get(task_id)
        tags = found.tags
        assert type(found) is EchoObject
        assert found.title == "Shop"
        client.add_schema(Task)
        assert isinstance(found, Task)
        assert await space.db.query(Task).first() is found
        with pytest.raises(InvalidValueError, match=r"Task\.tags\.1: expected a text"):
            tags.append(1)
        with pytest.raises(InvalidValueError, match="expected true or false"):
            found.done = 1  # type: ignore[assignment]
        assert found["extra"] == 1, "what a peer has stored can be read"


async def test_queries_by_class_give_objects_of_that_class() -> None:
    async with open_space(Person, Task) as (_, _, space):
        alice, bob = space.db.add(Person(name="Alice")), space.db.add(Person(name="Bob"))
        one = space.db.add(Task(title="One", assignee=Ref(alice), owner=bob, due=date(2030, 1, 2)))
        two = space.db.add(Task(title="Two", done=True, type_="work"))
        tasks: list[Task] = await space.db.query(Task).run()
        assert tasks == [one, two]
        assert await space.db.query(Task, done=True).run() == [two]
        assert await space.db.query(Task, id=two.id).run() == [two]
        assert await space.db.query(Task, type_="work").run() == [two]
        assert await space.db.query(Task, assignee=Ref(alice)).run() == [one]
        assert await space.db.query(Task, assignee=alice).run() == [one]
        assert await space.db.query(Task, owner=bob).run() == [one]
        assert await space.db.query(Task, owner=None).run() == [two]
        assert await space.db.query(Task, due=date(2030, 1, 2)).run() == [one]
        assert await space.db.query(Person).count() == 2
        with pytest.raises(InvalidValueError, match=r"Task\.titel"):
            space.db.query(Task, titel="One")
        with pytest.raises(InvalidValueError, match=r"Task\.done: expected true or false"):
            space.db.query(Task, done="yes")
        updates: list[QueryUpdate[Task]] = []
        space.db.query(Task, done=True).subscribe(updates.append)
        one.done = True
        await space.db.flush()
        await anyio.wait_all_tasks_blocked()
        assert [one.title for one in updates[-1].objects] == ["One", "Two"]


async def test_references_lead_to_typed_objects_also_after_a_restart() -> None:
    fake = FakeServices()
    async with Client(services=fake) as client:
        client.add_schema(Person, Task, Knows)
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")
        alice, bob = Person(name="Alice"), Person(name="Bob")
        space.db.add(Task(title="Shop", assignee=Ref(alice), owner=alice))
        space.db.add(Knows(source=alice, target=bob, since=2020))
        with pytest.raises(InvalidValueError, match=r"Knows\.source: expected a Person"):
            Knows(source=Task(title="x"), target=bob, since=1)  # type: ignore[arg-type]
    again = Client(services=fake)
    again.add_schema(Person, Task, Knows)
    async with again as client:
        reopened = client.get_space(space.id)
        assert reopened is not None
        await reopened.wait_until_ready()
        task = await reopened.db.query(Task).first()
        assert task is not None
        assert task.assignee is not None
        assert task.owner is not None
        person: Person = task.assignee.target
        assert person.name == "Alice"
        assert task.owner is person
        assert await task.assignee.load() is person
        knows = await reopened.db.query(Knows).first()
        assert knows is not None
        assert knows.since == 2020
        assert (knows.source.name, knows.target.name) == ("Alice", "Bob")
        assert knows.source is person
        dxn = f"dxn:echo:{reopened.id}:{person.id}"
        assert await client.db_router.get_object(dxn) is person


async def test_a_reference_to_an_object_that_is_not_here_says_so() -> None:
    async with open_space(Person, Task) as (fake, client, space):
        task = space.db.add(Task(title="Shop"))
        await space.db.flush()
        bob_id = EchoObject().id
        away = {"/": f"dxn:echo:@:{bob_id}"}
        elsewhere = {"/": "dxn:queue:data:B:01M7X3AKB3G8GY48A99542WNX6"}
        fake.change(space.id, task.id, {"title": "Shop", "assignee": away, "owner": elsewhere})
        assert task.assignee is not None
        assert not task.assignee.loaded
        with pytest.raises(ObjectNotFoundError):
            await task.assignee.load()
        fake.change(space.id, bob_id, {"name": "Bob"}, type=Person.type_name.dxn)
        assert (await task.assignee.load()).name == "Bob"
        assert task.assignee.target.name == "Bob"
        with pytest.raises(ObjectNotFoundError):
            await client.db_router.get_object("dxn:echo:B" + "A" * 32 + f":{bob_id}")
        with pytest.raises(InvalidKeyError):
            await client.db_router.get_object(f"dxn:echo:@:{bob_id}")


async def test_a_default_list_is_stored_with_its_first_edit() -> None:
    async with open_space(Task) as (fake, _, space):
        task_id = EchoObject().id
        fake.change(space.id, task_id, {"title": "Shop"}, type=Task.type_name.dxn)
        task = await space.db.query(Task).first()
        assert task is not None
        assert (task.tags, task.done, task.due) == ([], False, None)
        tags = task.tags
        tags.append("food")
        tags.append("soon")
        assert task.tags == ["food", "soon"]
        await space.db.flush()
        assert fake.network.spaces[space.id].objects[task_id].row.data == {"title": "Shop", "tags": ["food", "soon"]}


async def test_the_router_finds_classes_and_refuses_two_schemas_of_one_name() -> None:
    router = Client(services=FakeServices()).db_router
    router.add_schema(Task, TaskV2)
    assert router.get_type("example.com/type/Task") is TaskV2
    assert router.get_type("dxn:type:example.com/type/Task:0.1.0") is Task
    assert router.get_type("example.com/type/Other") is None
    assert router.types == (Task, TaskV2)

    class Other(Object, typename="example.com/type/Task", version="0.1.0"):
        title: int

    with pytest.raises(UsageError, match="higher version"):
        router.add_schema(Other)
    with pytest.raises(UsageError, match="no type of objects"):
        router.add_schema(int)
    with pytest.raises(UsageError):
        router.add_schema(Object)


class Contact(BaseModel):
    typename: ClassVar[str] = "example.com/type/Contact"
    version: ClassVar[str] = "0.1.0"
    name: str
    age: int | None = None


@dataclasses.dataclass
class Place:
    typename: ClassVar[str] = "example.com/type/Place"
    version: ClassVar[str] = "0.1.0"
    street: str
    tags: list[str] = dataclasses.field(default_factory=list)


async def test_models_of_pydantic_and_dataclasses_are_types() -> None:
    async with open_space(Contact, Place) as (_, _, space):
        contact = space.db.add(Contact(name="Alice"))
        place = space.db.add(Place("Main Street", ["near"]))
        assert contact.name == "Alice"
        assert place.to_dict() == {"street": "Main Street", "tags": ["near"]}
        contact.age = 3
        with pytest.raises(InvalidValueError, match=r"Contact\.age"):
            contact.age = "old"
        assert await space.db.query(Contact, age=3).run() == [contact]
        assert {one.name.typename for one in await schemas(space)} == {
            "example.com/type/Contact",
            "example.com/type/Place",
        }


async def test_a_migration_changes_each_object_once() -> None:
    async with open_space(Task, TaskV2) as (fake, _, space):
        milk = space.db.add(Task(title="Milk", tags=["dairy"]))
        space.db.add(TaskV2(name="Eggs"))
        await space.db.flush()
        seen: list[EchoObject] = []
        milk.subscribe(seen.append)
        assert await space.db.run_migrations(rename_title) == 1
        assert isinstance(milk, TaskV2)
        assert milk.name == "MILK"
        assert seen
        assert milk.to_dict() == {"name": "MILK", "done": False, "tags": ["dairy"]}
        row = fake.network.spaces[space.id].objects[milk.id].row
        assert (row.type, row.data) == (TaskV2.type_name.dxn, milk.to_dict())
        assert await space.db.query(Task).count() == 0
        assert await space.db.run_migrations(rename_title) == 0
        assert {one.name for one in await schemas(space)} == {Task.type_name, TaskV2.type_name}


async def test_a_migration_that_is_refused_leaves_the_object_as_it_was() -> None:
    async with open_space(Task, TaskV2) as (fake, _, space):
        milk = space.db.add(Task(title="Milk"))
        await space.db.flush()
        fake.refuse = StorageFullError("no room")
        with pytest.raises(StorageFullError):
            await space.db.run_migrations(rename_title)
        assert isinstance(milk, Task)
        assert milk.title == "Milk"

        @migration(Task, TaskV2)
        def wrong(old: Task) -> Mapping[str, Any]:
            return {"name": len(old.title)}

        with pytest.raises(InvalidValueError, match="name: expected a text"):
            await space.db.run_migrations(wrong)
        assert isinstance(milk, Task)
        assert milk.to_dict()["title"] == "Milk"


async def test_an_object_whose_type_is_a_stored_schema_is_of_the_type_that_it_says() -> None:
    async with open_space(Task) as (fake, _, space):
        updates: list[QueryUpdate[Task]] = []
        space.db.query(Task, done=False).subscribe(updates.append)
        await anyio.wait_all_tasks_blocked()
        keeper, shop_id, cook_id = EchoObject(type=SCHEMA_TYPE), EchoObject().id, EchoObject().id
        by_schema = f"dxn:echo:@:{keeper.id}"
        fake.change(space.id, shop_id, {"title": "Shop", "done": False}, type=by_schema)
        await anyio.wait_all_tasks_blocked()
        assert await space.db.query(Task).run() == []
        fake.change(space.id, keeper.id, Task._stored_schema().to_data(keeper.id), type=SCHEMA_TYPE)
        fake.change(space.id, cook_id, {"title": "Cook", "done": False}, type=by_schema)
        await anyio.wait_all_tasks_blocked()
        assert [one.title for one in updates[-1].objects] == ["Shop", "Cook"]
        assert all(isinstance(one, Task) for one in updates[-1].objects)
        assert await space.db.query(Task).count() == 2
        own = space.db.add(Task(title="Eat"))
        await space.db.flush()
        assert len(await schemas(space)) == 1
        assert {one.id for one in await space.db.query(Task).run()} == {shop_id, cook_id, own.id}
        updates[-1].objects[0].done = True
        await space.db.flush()
        assert [one.title for one in updates[-1].objects] == ["Cook", "Eat"]


async def test_peers_that_migrate_at_once_agree_and_keep_each_others_edits() -> None:
    async with simulated_clients(2) as (alice, bob):
        for client in (alice, bob):
            client.add_schema(Task, TaskV2)
        ours = await alice.create_space(name="ours")
        milk = ours.db.add(Task(title="Milk", tags=["dairy"]))
        theirs = await join(ours, bob)
        arrived: list[QueryUpdate[Task]] = []
        theirs.db.query(Task).subscribe(arrived.append)
        await until(lambda: bool(arrived and arrived[-1].objects))
        await bob.mesh.update_config(ConnectionState.OFFLINE)
        assert await ours.db.run_migrations(rename_title) == 1
        assert await theirs.db.run_migrations(rename_title) == 1
        assert isinstance(milk, TaskV2)
        milk.splice("name", 4, 0, "!")
        milk.tags.append("cold")
        same = await theirs.db.query(TaskV2).first()
        assert same is not None
        same.done = True
        await ours.db.flush()
        await theirs.db.flush()
        await bob.mesh.update_config(ConnectionState.ONLINE)
        await until(lambda: milk.done and same.name == "MILK!")
        assert milk.to_dict() == same.to_dict() == {"name": "MILK!", "done": True, "tags": ["dairy", "cold"]}
        assert await theirs.db.run_migrations(rename_title) == 0
