"""Types that a live JavaScript client and Python share: stored schemas, typed objects, references, relations."""

from pathlib import Path
from typing import Any

import pytest
from interop.live import JavaScriptPeer, python, sees, until, welcome

from dxos.client.types import Object, Ref, Relation, Struct, field

pytestmark = pytest.mark.anyio


class Person(Object, typename="example.com/type/Person", version="0.1.0"):
    name: str


class Shop(Struct):
    name: str = ""
    aisle: int = 1


class Task(Object, typename="example.com/type/Task", version="0.1.0"):
    """Something to do."""

    title: str
    done: bool = False
    price: float | None = None
    tags: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    shop: Shop = field(default_factory=Shop)
    assignee: Ref[Person] | None = None


class Knows(Relation[Person, Person], typename="example.com/type/Knows", version="0.1.0"):
    since: int


class Note(Object, typename="example.com/type/Note", version="0.2.0"):
    text: str
    stars: int = 0
    tags: list[str] = field(default_factory=list)
    about: Ref[Task] | None = None


async def test_javascript_reads_and_checks_by_the_schemas_of_python(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        client.add_schema(Person, Task, Knows)
        space = await client.create_space(name="ours")
        await welcome(space, js)
        alice, bob = space.db.add(Person(name="Alice")), space.db.add(Person(name="Bob"))
        task = space.db.add(Task(title="Shop", assignee=Ref(alice), counts={"milk": 2}, shop=Shop(name="Corner")))
        knows = space.db.add(Knows(source=alice, target=bob, since=2020))
        await space.db.flush()
        await js.sees(space.id, task.id, {"title": "Shop", "shop.aisle": 1})
        await js.sees(space.id, knows.id, {"since": 2020})
        found: dict[str, Any] = {one["typename"]: one for one in (await js.do("schemas", space=space.id))["schemas"]}
        assert found.keys() == {"example.com/type/Person", "example.com/type/Task", "example.com/type/Knows"}
        fields = found["example.com/type/Task"]["fields"]
        assert fields == ["title", "done", "price", "tags", "counts", "shop", "assignee"]
        refused = {"done": "yes", "title": 1, "shop": {"aisle": "first"}, "counts": {"milk": "two"}, "tags": [1]}
        typed = await js.do("typed", space=space.id, typename="example.com/type/Task", refused=refused)
        assert [one["data"] for one in typed["objects"]] == [task.to_dict()]
        assert all(typed["errors"][0]), typed["errors"]
        allowed = {"done": True, "price": 1.5, "shop": {"name": "Market", "aisle": 3}, "counts": {"eggs": 6}}
        typed = await js.do("typed", space=space.id, typename="example.com/type/Task", refused=allowed)
        assert typed["errors"] == [[None] * len(allowed)]
        await until(lambda: task.price == 1.5 and task.shop == {"name": "Market", "aisle": 3}, "what JavaScript wrote")
        assert task.counts == {"eggs": 6}


async def test_objects_of_a_javascript_schema_become_typed_when_the_class_is_registered(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        task = space.db.add({"title": "Shop"})
        await space.db.flush()
        await js.sees(space.id, task.id, {"title": "Shop"})
        fields = {"text": "string", "stars": "number?", "tags": "strings", "about": "ref?"}
        data = {"text": "Hello", "tags": ["a"], "about": task.id}
        made = await js.do(
            "addTyped", space=space.id, typename="example.com/type/Note", version="0.2.0", fields=fields, data=data
        )
        note = await sees(space, made["objectId"], text="Hello")
        client.add_schema(Note)
        assert isinstance(note, Note)
        assert await space.db.query(Note, text="Hello").run() == [note]
        assert note.about is not None
        assert (await note.about.load()) is task
        note.stars = 3
        note.tags.append("b")
        space.db.add(Note(text="Mine"))
        await space.db.flush()
        await js.sees(space.id, note.id, {"stars": 3, "tags": ["a", "b"]})
        schemas = (await js.do("schemas", space=space.id))["schemas"]
        assert [one["typename"] for one in schemas] == ["example.com/type/Note"], "the space had the schema already"
        await js.do("waitFor", space=space.id, match={"text": "Mine"})
        typed = await js.do("typed", space=space.id, typename="example.com/type/Note", refused={"stars": "many"})
        assert sorted(one["data"]["text"] for one in typed["objects"]) == ["Hello", "Mine"]
