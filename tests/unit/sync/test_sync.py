import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from dxos import Client as AsyncClient
from dxos import EchoObject, F, Object, Ref, SpaceState
from dxos.errors import (
    ClosedError,
    DeadlineError,
    InvalidValueError,
    InvitationCancelledError,
    ObjectNotFoundError,
    StorageFullError,
    UsageError,
)
from dxos.sync import Client
from dxos.testing.services import FakeServices

WAIT_S = 10


class Person(Object, typename="example.com/type/Person", version="0.1.0"):
    name: str


class Task(Object, typename="example.com/type/Task", version="0.1.0"):
    title: str
    done: bool = False
    assignee: Ref[Person] | None = None

    def finish(self) -> None:
        """Methods run where the object lives."""
        self.done = True


@pytest.fixture
def fake() -> FakeServices:
    return FakeServices()


@pytest.fixture
def client(fake: FakeServices) -> Iterator[Any]:
    with Client(services=fake) as client:
        client.halo.create_identity("Alice")
        yield client


@pytest.fixture
def space(client: Any) -> Any:
    return client.create_space(name="Groceries")


def loops() -> int:
    return sum(one.name == "dxos loop" for one in threading.enumerate())


def test_a_script_does_without_await_what_the_asynchronous_client_does(client: Any, space: Any) -> None:
    milk = space.db.add({"title": "Milk", "tags": ["dairy"], "shop": {"aisle": 3}})
    milk.done = True
    milk.tags += ["cold"]
    milk.shop.aisle += 1
    del milk.tags[0]
    space.db.flush()
    assert space.db.query(done=True).run() == [milk]
    assert space.db.query().count() == 2, "the properties are an object too"
    assert space.db.get(milk.id) is milk, "the same object has the same face"
    assert milk.to_dict() == {"title": "Milk", "tags": ["cold"], "shop": {"aisle": 4}, "done": True}
    assert "done" in milk
    assert list(milk) == ["title", "tags", "shop", "done"]
    assert milk.tags == ["cold"]
    assert milk.tags[0] == "cold"
    assert dict(milk.shop.items()) == {"aisle": 4}
    assert [one.name for one in client.spaces] == ["Groceries"]
    assert space.properties.name == "Groceries"
    with pytest.raises(ObjectNotFoundError):
        space.db.get("nothing")
    with pytest.raises(InvalidValueError, match="title"):
        milk.title = {1, 2}
    with pytest.raises(AttributeError):
        milk.colour  # noqa: B018


def test_faces_look_like_what_they_show(client: Any, space: Any) -> None:
    milk = space.db.add({"title": "Milk"})
    assert isinstance(milk, EchoObject)
    assert isinstance(client, Client)
    assert isinstance(client, AsyncClient)
    assert repr(milk).startswith(f"<EchoObject {milk.id}")
    assert repr(space).startswith("<Space ")
    assert "create_invitation" in dir(space)
    assert space.create_invitation.__doc__.startswith("Invite somebody")
    with pytest.raises(TypeError):
        iter(space)
    assert milk in {milk}


def test_objects_made_by_the_script_can_be_added_and_referred_to(space: Any) -> None:
    bob = space.db.add(EchoObject(name="Bob"))
    task = space.db.add(EchoObject(title="Shop", assignee=bob))
    task.helpers = [bob]
    space.db.flush()
    assert task.assignee is bob
    assert task.helpers[0] is bob
    assert space.db.query(assignee=bob).first() is task
    raw = EchoObject(title="Raw")
    space.db.add(raw)
    with pytest.raises(UsageError, match=r"what `db\.add` returned"):
        raw.title = "Changed"


def test_classes_and_their_fields_are_there_too(client: Any, space: Any) -> None:
    client.add_schema(Task, Person)
    bob = space.db.add(Person(name="Bob"))
    task = space.db.add(Task(title="Shop", assignee=bob))
    task.finish()
    space.db.flush()
    assert isinstance(task, Task)
    assert task.assignee is not None
    assert task.assignee.target is bob
    assert space.db.query(Task, done=True).run() == client.query(Task).run() == [task]
    assert space.db.query(F.assignee == bob).first() is task
    with pytest.raises(InvalidValueError, match=r"Task\.done"):
        task.done = "no"


def test_for_over_a_query_gives_what_it_finds(space: Any) -> None:
    for n in range(3):
        space.db.add({"n": n, "kind": "number"})
    assert sorted(one.n for one in space.db.query(kind="number")) == [0, 1, 2]


def test_for_is_async_for(space: Any) -> None:
    for state in space.state:
        assert state is SpaceState.READY
        break
    assert space.state.wait_for(lambda one: one is SpaceState.READY, 1) is SpaceState.READY
    assert space.state.map(lambda one: one.name).get() == "READY"
    with pytest.raises(DeadlineError):
        space.state.wait_for(lambda one: one is SpaceState.ERROR, 0.01)


def test_subscribers_may_make_calls_that_wait(fake: FakeServices, space: Any) -> None:
    milk = space.db.add({"title": "Milk", "kind": "food"})
    space.db.flush()
    seen: list[Any] = []
    told = threading.Event()

    def look(update: Any) -> None:
        seen.append((update.objects, space.db.query(kind="food").count(), threading.current_thread().name))
        told.set()

    subscription = space.db.query(kind="food").subscribe(look)
    assert told.wait(WAIT_S)
    assert seen == [((milk,), 1, "dxos callbacks")]
    subscription.unsubscribe()
    milk.title = "Oat milk"
    space.db.flush()
    again = threading.Event()
    milk.subscribe(lambda one: again.set() if one is milk else None)
    milk.title = "Soy milk"
    assert again.wait(WAIT_S), "told after the first subscriber would have been"
    assert len(seen) == 1


def test_a_predicate_can_read_but_not_wait(space: Any) -> None:
    milk = space.db.add({"title": "Milk"})
    assert space.state.wait_for(lambda _: milk.title == "Milk", 1) is SpaceState.READY
    with pytest.raises(UsageError, match="predicate"):
        space.state.wait_for(lambda _: space.db.flush(), 1)


def test_a_batch_is_a_block(fake: FakeServices, space: Any) -> None:
    source, target = space.db.add({"amount": 9}), space.db.add({"amount": 0})
    space.db.flush()
    fake.calls.clear()
    with space.db.batch():
        source.amount -= 5
        target.amount += 5
    assert fake.calls.count("data.update") == 1
    with pytest.raises(ZeroDivisionError), space.db.batch():
        source.amount = 1 // 0
    assert [source.amount, target.amount] == [4, 5]


def test_many_objects_come_from_a_generator(space: Any) -> None:
    done: list[int] = []
    ids = space.db.add_all(({"n": n} for n in range(450)), progress=lambda one: done.append(one.done))
    space.db.flush()
    assert len(set(ids)) == 450
    assert done[-1] == 450
    assert sorted(one["n"] for one in space.db.query().to_dicts() if "n" in one) == [*range(450)]
    assert space.db.query(n=7).run()._repr_html_().count("<tr>") == 2
    assert "Groceries" in space._repr_html_()


def test_an_invitation_is_waited_for_by_name(space: Any) -> None:
    invitation = space.create_invitation()
    with pytest.raises(DeadlineError):
        invitation.wait(0.01)
    invitation.cancel()
    with pytest.raises(InvitationCancelledError):
        invitation.wait()


def test_what_is_refused_is_raised_by_flush(fake: FakeServices, space: Any) -> None:
    milk = space.db.add({"title": "Milk"})
    space.db.flush()
    fake.refuse = StorageFullError("The disk is full.")
    milk.title = "Oat milk"
    with pytest.raises(StorageFullError):
        space.db.flush()
    assert milk.title == "Milk"


def test_several_threads_may_use_one_client(space: Any) -> None:
    counter = space.db.add({"log": []})

    def work() -> None:
        for n in range(20):
            counter.log.append(n)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(WAIT_S)
    space.db.flush()
    assert sorted(counter.log) == sorted([*range(20)] * 4)


def test_a_closed_client_leaves_no_thread_and_can_be_opened_again(fake: FakeServices) -> None:
    before = loops()
    client: Any = Client(services=fake)
    assert not client.initialized
    assert loops() == before
    with pytest.raises(ClosedError):
        client.create_space()
    assert loops() == before
    client.initialize()
    assert loops() == before + 1
    client.halo.create_identity("Alice")
    space = client.create_space(name="Groceries")
    milk = space.db.add({"title": "Milk"})
    client.destroy()
    assert loops() == before
    assert milk.title == "Milk", "what was read before can still be read"
    with pytest.raises(ClosedError):
        milk.title = "Oat milk"
    with client:
        assert client.halo.identity.get().profile.display_name == "Alice"
        assert client.get_space(space.id).db.query(title="Milk").count() == 1
    assert loops() == before


def test_a_client_that_cannot_open_leaves_no_thread(fake: FakeServices) -> None:
    before = loops()
    fake.open_error = StorageFullError("The disk is full.")
    with pytest.raises(StorageFullError), Client(services=fake):
        pass
    assert loops() == before


def test_objects_that_nobody_holds_are_let_go(space: Any) -> None:
    milk = space.db.add({"title": "Milk"})
    one = milk.id
    space.db.flush()
    assert space.db.get_object_by_id(one) is milk
    del milk
    gc.collect()
    assert space.db.get_object_by_id(one) is None


@pytest.mark.anyio
async def test_it_works_where_an_event_loop_runs_already() -> None:
    await anyio.lowlevel.checkpoint()
    with Client(services=FakeServices()) as client:
        client.halo.create_identity("Alice")
        assert client.create_space(name="Groceries").name == "Groceries"


@pytest.mark.slow
def test_a_backup_tells_how_far_it_is(tmp_path: Path) -> None:
    def settings(name: str) -> dict[str, Any]:
        storage = {"persistent": True, "dataRoot": str(tmp_path / name)}
        return {"runtime": {"client": {"storage": storage, "services": "local"}}}

    seen: list[Any] = []
    ended = threading.Event()

    def look(activities: Any) -> None:
        seen.extend((one.kind, one.progress.fraction) for one in activities)
        if seen and not activities:
            ended.set()

    with Client(settings("before")) as client:
        client.halo.create_identity("Alice")
        client.create_space(name="Groceries")
        client.progress.subscribe(look)
        client.back_up(tmp_path / "file", "a long passphrase")
        assert ended.wait(WAIT_S)
        assert seen[-1] == ("back_up", 1.0)
    seen.clear()
    ended.clear()
    other: Any = Client(settings("after"))
    other.progress.subscribe(look)
    other.restore(tmp_path / "file", "a long passphrase")
    assert ended.wait(WAIT_S)
    assert seen[-1] == ("restore", 1.0)
    with other:
        (space,) = other.spaces
        assert space.wait_until_ready(WAIT_S).name == "Groceries"
