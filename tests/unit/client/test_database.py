import gc
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from dxos.client import Client, EchoObject, F, QueryUpdate, Space
from dxos.client.state import core_of
from dxos.echo.query import Equals, Not, Or
from dxos.errors import (
    ClosedError,
    DeadlineError,
    InvalidValueError,
    NotAllowedError,
    ObjectNotFoundError,
    SpaceNotReadyError,
    StorageFullError,
    UsageError,
)
from dxos.halo.invitation import AuthMethod, InvitationState
from dxos.limits import UPDATE_OBJECTS_MAX
from dxos.services.contract import SpaceState
from dxos.testing.services import FakeNetwork, FakeServices

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param, {"clock": MockClock(autojump_threshold=0)} if request.param == "trio" else {}


@asynccontextmanager
async def open_space(fake: FakeServices | None = None) -> AsyncIterator[tuple[FakeServices, Space]]:
    fake = fake or FakeServices()
    async with Client(services=fake) as client:
        await client.halo.create_identity("Alice")
        yield fake, await client.create_space(name="Groceries")


def rows(fake: FakeServices, space: Space) -> dict[str, Any]:
    """What the host has, but for the properties."""
    objects = fake.network.spaces[space.id].objects
    return {one: state.row.data for one, state in objects.items() if one != space.info.properties_id}


async def test_the_edits_of_one_turn_are_one_update() -> None:
    async with open_space() as (fake, space):
        fake.calls.clear()
        milk = space.db.add({"title": "Milk", "tags": ["dairy"]})
        eggs = space.db.add({"title": "Eggs"})
        milk.done = True
        milk.tags.append("cold")
        await space.db.flush()
        assert fake.calls == ["data.update", "data.flush"]
        assert rows(fake, space) == {
            milk.id: {"title": "Milk", "tags": ["dairy", "cold"], "done": True},
            eggs.id: {"title": "Eggs"},
        }
        fake.calls.clear()
        milk.tags[0] = "DAIRY"
        eggs.count = 12
        del milk.done
        await space.db.flush()
        assert fake.calls == ["data.update", "data.flush"]
        assert rows(fake, space)[milk.id] == milk.to_dict() == {"title": "Milk", "tags": ["DAIRY", "cold"]}


async def test_a_long_turn_goes_in_several_updates_of_which_subscribers_hear_once() -> None:
    async with open_space() as (fake, space):
        updates: list[QueryUpdate] = []
        space.db.query(kind="food").subscribe(updates.append)
        await anyio.wait_all_tasks_blocked()
        fake.calls.clear()
        updates.clear()
        count = 2 * UPDATE_OBJECTS_MAX + 1
        made = [space.db.add({"kind": "food", "n": n}) for n in range(count)]
        await space.db.flush()
        assert fake.calls == ["data.update"] * 3 + ["data.flush"]
        assert len(rows(fake, space)) == count
        assert [len(one.added) for one in updates] == [count]
        made[0].n = -1
        await space.db.flush()
        assert [one.changed for one in updates[1:]] == [(made[0],)]


async def test_edits_are_sent_without_a_flush() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"title": "Milk"})
        await anyio.wait_all_tasks_blocked()
        assert rows(fake, space) == {milk.id: {"title": "Milk"}}


async def test_queries_see_own_edits_and_give_the_same_objects() -> None:
    async with open_space() as (_, space):
        milk = space.db.add({"title": "Milk", "done": False, "shop": {"aisle": 3}})
        eggs = space.db.add({"title": "Eggs", "done": False, "shop": {"aisle": 1}})
        milk.done = True
        assert await space.db.query(done=True).run() == [milk]
        assert await space.db.query({"done": False}).first() is eggs
        assert await space.db.query(done=None, title="none").first() is None
        items = space.db.query(Or((Equals(("done",), True), Equals(("title",), "Eggs"))))
        assert await items.count() == 2
        assert await items.order_by("shop.aisle").run() == [eggs, milk]
        assert await items.order_by("title", descending=True).limit(1).run() == [milk]
        assert await items.order_by("title").offset(1).run() == [milk]
        assert await space.db.query(Not(Equals(("name",), "Groceries"))).run() == [milk, eggs]


async def test_queries_find_objects_by_their_ids() -> None:
    async with open_space() as (_, space):
        milk, eggs = space.db.add({"title": "Milk"}), space.db.add({"title": "Eggs"})
        for query in (space.db.query(id=milk.id), space.db.query({"id": milk.id}), space.db.query(F.id == milk.id)):
            assert await query.run() == [milk]
            assert await query.count() == 1
        assert await space.db.query(F.id.in_([eggs.id, milk.id, "none"]), F.id != milk.id).run() == [eggs]
        assert await space.db.query(EchoObject, id=eggs.id, title="Milk").first() is None
        with pytest.raises(UsageError):
            space.db.query(F.id > milk.id)
        with pytest.raises(InvalidValueError):
            space.db.query(id=1)


async def test_a_removed_object_leaves_queries_and_can_be_brought_back() -> None:
    async with open_space() as (_, space):
        milk = space.db.add({"title": "Milk"})
        space.db.remove(milk)
        assert milk.deleted
        assert space.db.get_object_by_id(milk.id) is None
        await space.db.flush()
        assert await space.db.query(title="Milk").run() == []
        assert await space.db.query(title="Milk").deleted("only").run() == [milk]
        assert space.db.add(milk) is milk
        assert await space.db.query(title="Milk").run() == [milk]
        with pytest.raises(ObjectNotFoundError):
            space.db.remove(EchoObject())


async def test_objects_are_known_weakly_but_unsent_edits_are_kept() -> None:
    async with open_space() as (fake, space):
        ids = [space.db.add({"n": n}).id for n in range(10)]
        gc.collect()
        assert space.db.get_object_by_id(ids[0]) is not None
        await space.db.flush()
        gc.collect()
        assert [space.db.get_object_by_id(one) for one in ids] == [None] * 10
        assert len(rows(fake, space)) == 10
        first = await space.db.get(ids[0])
        assert space.db.get_object_by_id(ids[0]) is await space.db.get(ids[0]) is first


async def test_an_unknown_object_is_not_found() -> None:
    async with open_space() as (_, space):
        for object_id in ("nonsense", EchoObject().id):
            with pytest.raises(ObjectNotFoundError):
                await space.db.get(object_id)


async def test_what_a_peer_changes_is_seen_and_told_once() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"title": "Milk", "tags": ["a"]})
        await space.db.flush()
        seen: list[str] = []
        tags = milk.tags
        milk.subscribe(lambda one: seen.append(one.title))
        fake.change(space.id, milk.id, {"title": "Oat milk", "tags": ["a", "b"]})
        assert seen == ["Oat milk"]
        assert tags == ["a", "b"]
        tags.append("c")
        await space.db.flush()
        assert seen == ["Oat milk", "Oat milk"]
        assert rows(fake, space)[milk.id]["tags"] == ["a", "b", "c"]


async def test_a_nested_map_stays_itself_when_a_peer_moves_it() -> None:
    async with open_space() as (fake, space):
        one = space.db.add({"all": [{"n": 1}, {"n": 2}, {"n": 3}]})
        await space.db.flush()
        first, second, third = one.all
        fake.change(space.id, one.id, {"all": [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]})
        second.n = 20
        await space.db.flush()
        assert one.all == [{"n": 0}, {"n": 1}, {"n": 20}, {"n": 3}]
        fake.change(space.id, one.id, {"all": [{"n": 9}, {"n": 1}, {"n": 3}]})
        assert (first, third) == ({"n": 1}, {"n": 3})
        with pytest.raises(UsageError):
            second.n = 5
        fake.change(space.id, one.id, {"all": [{"n": 9}, {"n": 1, "x": 1}, {"n": 3}]})
        assert first.x == 1


async def test_own_and_foreign_edits_at_once_are_merged_without_a_flicker() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"tags": ["a"]})
        await space.db.flush()
        seen: list[Any] = []
        milk.subscribe(lambda one: seen.append(one.to_dict()))
        with fake.holding():
            milk.tags.append("mine")
            await anyio.wait_all_tasks_blocked()
            fake.change(space.id, milk.id, {"tags": ["theirs", "a"]})
            assert milk.tags == ["a", "mine"], "theirs waits for the answer"
            milk.tags.append("later")
        await space.db.flush()
        assert milk.tags == rows(fake, space)[milk.id]["tags"]
        assert sorted(milk.tags) == ["a", "later", "mine", "theirs"]
        assert all(len(set(one["tags"])) == len(one["tags"]) for one in seen), "nothing is seen twice"


async def test_an_edit_that_no_longer_fits_is_dropped() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"tags": ["a", "b"]})
        await space.db.flush()
        with fake.holding():
            milk.done = True
            await anyio.wait_all_tasks_blocked()
            fake.change(space.id, milk.id, {"tags": []})
            milk.tags.pop()
        await space.db.flush()
        assert milk.to_dict() == rows(fake, space)[milk.id] == {"tags": [], "done": True}


async def test_a_refused_update_is_undone_and_raised_by_the_next_flush() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        fake.refuse = StorageFullError("The disk is full.")
        milk.title = "Oat milk"
        eggs = space.db.add({"title": "Eggs"})
        with pytest.raises(StorageFullError):
            await space.db.flush()
        assert milk.title == "Milk"
        assert space.db.get_object_by_id(eggs.id) is None
        await space.db.flush()
        assert space.db.add(eggs) is eggs
        milk.title = "Soy milk"
        await space.db.flush()
        assert rows(fake, space) == {milk.id: {"title": "Soy milk"}, eggs.id: {"title": "Eggs"}}


async def test_what_cannot_be_stored_raises_at_its_line() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"tags": []})
        await space.db.flush()
        fake.calls.clear()
        with pytest.raises(InvalidValueError, match="tags"):
            milk.tags.append({1, 2})
        with pytest.raises(InvalidValueError):
            space.db.add({"when": object()})
        await anyio.wait_all_tasks_blocked()
        assert fake.calls == []


async def test_a_query_tells_of_each_change_once() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"kind": "food", "title": "Milk"})
        updates: list[QueryUpdate] = []
        subscription = space.db.query(kind="food").order_by("title").subscribe(updates.append)
        await anyio.wait_all_tasks_blocked()
        assert [(one.objects, one.added) for one in updates] == [((milk,), (milk,))]
        updates.clear()

        eggs = space.db.add({"kind": "food", "title": "Eggs"})
        space.db.add({"kind": "other"})
        eggs.count = 6
        await space.db.flush()
        assert updates == [QueryUpdate((eggs, milk), added=(eggs,))]
        updates.clear()

        eggs.title = "Zebra eggs"
        await space.db.flush()
        assert updates == [QueryUpdate((milk, eggs), changed=(eggs,))]
        updates.clear()

        stranger = EchoObject().id
        fake.change(space.id, stranger, {"kind": "food", "title": "Apple"})
        assert [one.title for one in updates[0].objects] == ["Apple", "Milk", "Zebra eggs"]
        fake.change(space.id, stranger, {"kind": "toy", "title": "Apple"})
        assert [one.id for one in updates[1].removed] == [stranger]
        fake.change(space.id, stranger, {"kind": "toy", "title": "Pear"})
        assert len(updates) == 2
        updates.clear()

        space.db.remove(milk)
        await space.db.flush()
        assert updates == [QueryUpdate((eggs,), removed=(milk,))]
        subscription.unsubscribe()
        eggs.count = 7
        await space.db.flush()
        assert len(updates) == 1


async def test_a_query_with_a_limit_tells_what_moves_in_and_out() -> None:
    async with open_space() as (_, space):
        two, three = space.db.add({"n": 2}), space.db.add({"n": 3})
        updates: list[QueryUpdate] = []
        space.db.query(Not(Equals(("n",), None))).order_by("n").limit(2).subscribe(updates.append)
        await anyio.wait_all_tasks_blocked()
        one = space.db.add({"n": 1})
        await space.db.flush()
        assert updates[-1] == QueryUpdate((one, two), added=(one,), removed=(three,))


async def test_a_refused_object_leaves_the_results_again() -> None:
    async with open_space() as (fake, space):
        updates: list[QueryUpdate] = []
        space.db.query(kind="food").subscribe(updates.append)
        await anyio.wait_all_tasks_blocked()
        fake.refuse = StorageFullError("The disk is full.")
        milk = space.db.add({"kind": "food"})
        with pytest.raises(StorageFullError):
            await space.db.flush()
        assert [one.objects for one in updates] == [(), (milk,), ()]


async def test_an_object_with_a_subscriber_stays_although_nobody_holds_it() -> None:
    async with open_space() as (fake, space):
        seen: list[str] = []
        ended, kept = EchoObject(n=1), EchoObject(n=2)
        ids = [ended.id, kept.id]
        subscription = ended.subscribe(lambda one: seen.append(one.id))
        kept.subscribe(lambda one: seen.append(one.id))
        space.db.add(ended)
        space.db.add(kept)
        await space.db.flush()
        subscription.unsubscribe()
        del ended, kept, subscription
        gc.collect()
        assert [space.db.get_object_by_id(one) is None for one in ids] == [True, False]
        seen.clear()
        for one in ids:
            fake.change(space.id, one, {"n": 3})
        assert seen == ids[1:]


async def test_a_change_in_another_thread_is_refused_at_its_line() -> None:
    async with open_space() as (_, space):
        milk = space.db.add({"title": "Milk"})
        with pytest.raises(UsageError, match="thread"):
            await anyio.to_thread.run_sync(lambda: milk.update(done=True))
        assert "done" not in milk


async def test_references_are_objects_of_the_same_space() -> None:
    network = FakeNetwork()
    fake = FakeServices(network)
    async with open_space(fake) as (_, space):
        bob = EchoObject(name="Bob")
        task = space.db.add({"title": "Shop", "assignee": bob})
        assert core_of(bob).home is space.db
        assert task.assignee is bob
        assert await space.db.query(assignee=bob).run() == [task]
        await space.db.flush()
        task_id, bob_id = task.id, bob.id
        del task, bob
        gc.collect()
        # A query loads what its results refer to.
        (task,) = await space.db.query(title="Shop").run()
        assert task.assignee.name == "Bob"
        assert task.assignee is await space.db.get(bob_id)
        assert task.id == task_id


async def test_a_new_object_refers_to_one_of_the_space_and_brings_new_ones_along() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"title": "Milk"})
        shop = EchoObject(name="Corner", street=EchoObject(name="Main Street"))
        shop.street.shop = shop
        pancakes = EchoObject({"needs": [milk], "made": {"from": milk}, "shop": shop})
        assert core_of(pancakes).home is core_of(shop).home is None
        waffles = space.db.add({"needs": [milk]})
        assert space.db.add(pancakes) is pancakes
        await space.db.flush()
        reference = {"/": f"dxn:echo:@:{milk.id}"}
        found = rows(fake, space)
        assert found[waffles.id] == {"needs": [reference]}
        assert (found[pancakes.id]["needs"], found[pancakes.id]["made"]) == ([reference], {"from": reference})
        assert found[shop.id]["name"] == "Corner"
        assert found[shop.street.id]["name"] == "Main Street"
        assert pancakes.needs[0] is pancakes.made["from"] is milk


async def test_an_object_in_a_query_stands_for_a_reference_to_it_in_either_form() -> None:
    async with open_space() as (fake, space):
        milk, bread = space.db.add({"title": "Milk"}), space.db.add({"title": "Bread"})
        ours = space.db.add({"buy": milk})
        space.db.add({"buy": bread})
        await space.db.flush()
        theirs = EchoObject().id
        fake.change(space.id, theirs, {"buy": {"/": f"dxn:echo:{space.id}:{milk.id}"}})
        assert {one.id for one in await space.db.query(buy=milk).run()} == {ours.id, theirs}


async def test_a_reference_that_is_not_loaded_yet_says_so() -> None:
    async with open_space() as (fake, space):
        task = space.db.add({"title": "Shop"})
        await space.db.flush()
        bob_id, nobody_id = EchoObject().id, EchoObject().id
        fake.change(space.id, bob_id, {"name": "Bob"})
        fake.change(
            space.id, task.id, {"bob": {"/": f"dxn:echo:@:{bob_id}"}, "nobody": {"/": f"dxn:echo:@:{nobody_id}"}}
        )
        bob, nobody = task.bob, task.nobody
        with pytest.raises(UsageError, match="load"):
            _ = bob.name
        assert "not loaded" in repr(bob)
        assert (await bob.load()).name == "Bob"
        with pytest.raises(ObjectNotFoundError):
            await nobody.load()
        fake.change(space.id, nobody_id, {"name": "Somebody"})
        assert nobody.name == "Somebody"


async def test_objects_do_not_cross_spaces() -> None:
    network = FakeNetwork()
    async with Client(services=FakeServices(network)) as client:
        await client.halo.create_identity()
        one, two = await client.create_space(), await client.create_space()
        milk = one.db.add({"title": "Milk"})
        with pytest.raises(UsageError):
            two.db.add(milk)
        shop = two.db.add({})
        with pytest.raises(InvalidValueError, match="another space"):
            shop.milk = milk
        new = EchoObject(milk=milk, shelf=EchoObject())
        with pytest.raises(InvalidValueError, match="another space"):
            two.db.add({"new": new})
        assert core_of(new).home is core_of(new.shelf).home is None
        assert one.db.add(new).milk is milk
        with pytest.raises(ObjectNotFoundError):
            two.db.remove(milk)
        await one.db.flush()
        with pytest.raises(ObjectNotFoundError):
            await two.db.get(milk.id)


async def test_a_closed_space_cannot_be_changed_and_catches_up_when_opened() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"title": "Milk"})
        await space.close()
        assert space.state.get() is SpaceState.INACTIVE
        assert space.name == "Groceries"
        with pytest.raises(SpaceNotReadyError):
            milk.title = "x"
        with pytest.raises(SpaceNotReadyError):
            space.db.add({})
        with pytest.raises(SpaceNotReadyError):
            _ = space.properties
        fake.change(space.id, milk.id, {"title": "Oat milk"})
        assert milk.title == "Milk"
        await space.open()
        assert space.is_open
        assert milk.title == "Oat milk"
        milk.title = "Soy milk"
        await space.db.flush()
        assert rows(fake, space)[milk.id] == {"title": "Soy milk"}


async def test_a_space_that_closes_while_it_opens_follows_its_rows_in_the_end() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"title": "Milk"})
        await space.close()
        for state in (SpaceState.READY, SpaceState.INACTIVE, SpaceState.READY):
            fake.space_states[space.id] = state
            fake.spaces.stream.refresh()
        fake.change(space.id, milk.id, {"title": "Oat milk"})
        await space.wait_until_ready()
        assert milk.title == "Oat milk"
        fake.change(space.id, milk.id, {"title": "Soy milk"})
        assert milk.title == "Soy milk"
        assert space.properties.name == "Groceries"


async def test_a_closed_client_says_so() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"title": "Milk"})
    with pytest.raises(ClosedError):
        milk.title = "x"
    with pytest.raises(ClosedError):
        space.db.add({})
    assert milk.title == "Milk"
    assert rows(fake, space) == {milk.id: {"title": "Milk"}}


async def test_meta_data_and_text() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        milk.set_meta("keys", [{"source": "shop", "id": "1"}])
        milk.splice("title", 0, 0, "Oat ")
        await space.db.flush()
        row = fake.network.spaces[space.id].objects[milk.id].row
        assert (row.meta, row.data) == ({"keys": [{"source": "shop", "id": "1"}]}, {"title": "Oat Milk"})
        assert milk.meta == row.meta


async def test_the_name_of_a_space_is_a_live_property() -> None:
    async with open_space() as (_, space):
        space.properties.name = "Shopping"
        assert space.name == "Shopping"
        await space.db.flush()
        assert space.to_json()["name"] == "Shopping"
        assert "Shopping" in repr(space)


@pytest.mark.parametrize("value", [{1, 2}, datetime(2026, 1, 2), Decimal(1), b"x", object(), 2**70, math.nan])
async def test_what_is_no_json_is_refused_before_it_is_sent(value: object) -> None:
    async with Client(services=FakeServices()) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space()
        with pytest.raises(InvalidValueError, match="deep"):
            await space.post_message("chat", {"deep": [value]})
        with pytest.raises(InvalidValueError, match="deep"):
            await client.create_space(deep=[value])
        with pytest.raises(InvalidValueError, match="deep"):
            await client.halo.update_profile(data={"deep": [value]})


async def test_members_messages_and_roles() -> None:
    network = FakeNetwork()
    async with (
        open_space(FakeServices(network)) as (_, space),
        Client(services=FakeServices(network)) as bob,
    ):
        await bob.halo.create_identity("Bob")
        guest = bob.accept_invitation(space.create_invitation().code)
        await guest.authenticate("123456")
        theirs = bob.get_space(space.id)
        assert theirs is not None
        await theirs.wait_until_ready()
        heard: list[Any] = []
        subscription = theirs.listen("chat", lambda message: heard.append(dict(message.payload)))
        await space.post_message("chat", {"text": "hi"})
        await space.post_message("other", {"text": "ho"})
        subscription.unsubscribe()
        await space.post_message("chat", {"text": "gone"})
        assert heard == [{"text": "hi"}]
        with pytest.raises(NotAllowedError):
            await theirs.remove_member(theirs.members.get()[0])
        await space.remove_member(space.members.get()[1])
        assert bob.spaces.get() == ()
        with pytest.raises(ClosedError):
            await theirs.members.wait_for(lambda members: len(members) == 9)


edits = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("xyz"), st.integers(0, 3)),
    st.tuples(st.just("delete"), st.sampled_from("xyz")),
    st.tuples(st.just("append"), st.integers(0, 3)),
    st.tuples(st.just("pop"), st.just(0)),
    st.tuples(st.just("remove"), st.just(0)),
    st.tuples(st.just("add"), st.just(0)),
    st.tuples(st.just("theirs"), st.sampled_from("xyz"), st.integers(0, 3)),
    st.tuples(st.just("turn"), st.just(0)),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("hold"), st.just(0)),
    st.tuples(st.just("release"), st.just(0)),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(edits, max_size=12))
def test_whatever_is_edited_and_when_both_sides_end_equal(steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        async with open_space() as (fake, space):
            one = space.db.add({"list": []})
            for step in steps:
                match step:
                    case ("put", key, value):
                        one[key] = value
                    case ("delete", key):
                        if key in one:
                            del one[key]
                    case ("append", value):
                        one.list.append(value)
                    case ("pop", _):
                        if len(one.list):
                            one.list.pop()
                    case ("remove", _):
                        space.db.remove(one)
                    case ("add", _):
                        space.db.add(one)
                    case ("theirs", key, value):
                        state = fake.network.spaces[space.id].objects.get(one.id)
                        if state is not None:
                            fake.change(space.id, one.id, {**state.row.data, key: value})
                    case ("hold", _):
                        fake.held = fake.held or anyio.Event()
                    case ("turn", _):
                        await anyio.wait_all_tasks_blocked()
                    case _:
                        if fake.held is not None:
                            fake.held.set()
                            fake.held = None
                        if step[0] == "flush":
                            await space.db.flush()
            if fake.held is not None:
                fake.held.set()
                fake.held = None
            await space.db.flush()
            row = fake.network.spaces[space.id].objects[one.id].row
            assert (one.to_dict(), one.deleted) == (row.data, row.deleted)

    anyio.run(run, backend="trio")


async def test_waiting_until_another_member_has_everything() -> None:
    network = FakeNetwork()
    async with Client(services=FakeServices(network)) as alice, Client(services=FakeServices(network)) as bob:
        await alice.halo.create_identity("Alice")
        await bob.halo.create_identity("Bob")
        space = await alice.create_space(name="Groceries")
        with pytest.raises(DeadlineError, match="travels"):
            await space.wait_until_synced(0.01)  # Nobody else is there.
        invitation = space.create_invitation(auth_method=AuthMethod.NONE)
        await invitation.wait_for(lambda it: it.state is not InvitationState.INIT)
        await bob.accept_invitation(invitation.code)
        milk = space.db.add({"title": "Milk"})
        assert await space.wait_until_synced(5) is space
        assert core_of(milk).state is not None
        (other,) = [one for one in space.members.get() if not one.is_self]
        assert await space.wait_until_synced(5, member=other) is space
        with pytest.raises(DeadlineError):
            await space.wait_until_synced(0.01, member=space.key)


async def test_waiting_for_another_member_ends_with_the_client() -> None:
    async with anyio.create_task_group() as tasks:

        async def wait(space: Space) -> None:
            with pytest.raises(ClosedError):
                await space.wait_until_synced()

        async with open_space() as (_, space):
            tasks.start_soon(wait, space)
            await anyio.sleep(0.01)


async def test_a_new_name_is_seen_by_the_members_of_a_space() -> None:
    async with Client(services=FakeServices()) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space()
        await client.halo.update_profile("Alicia")
        await space.members.wait_for(lambda them: them[0].profile.display_name == "Alicia", timeout_s=1)
