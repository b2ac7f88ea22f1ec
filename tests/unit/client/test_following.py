"""Live queries tell of every change of their results, and look at nothing else."""

import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from dxos.client.client import Client
from dxos.client.fields import F
from dxos.client.following import LiveQuery
from dxos.client.query import Query, QueryUpdate
from dxos.client.space import Space
from dxos.errors import ClosedError, InvalidValueError, UsageError
from dxos.testing.services import FakeNetwork, FakeServices

pytestmark = pytest.mark.anyio


@pytest.fixture
async def space() -> AsyncIterator[Space]:
    async with Client(services=FakeServices(FakeNetwork())) as client:
        await client.halo.create_identity(display_name="Alice")
        yield await client.create_space(name="Shop")


def titles(objects: Any) -> list[str]:
    return [one.title for one in objects]


async def followed(query: Query[Any]) -> list[QueryUpdate[Any]]:
    seen: list[QueryUpdate[Any]] = []
    query.subscribe(seen.append)
    await anyio.wait_all_tasks_blocked()
    return seen


async def test_a_limited_query_stays_right_as_objects_come_go_and_move(space: Space) -> None:
    items = [space.db.add({"title": str(n), "n": n}) for n in range(6)]
    seen = await followed(space.db.query(F.n >= 0).order_by(F.n, descending=True).limit(2).offset(1))
    assert titles(seen[-1].objects) == ["4", "3"]
    items[0].n = 10
    await space.db.flush()
    assert titles(seen[-1].objects) == ["5", "4"]
    assert titles(seen[-1].added) == ["5"]
    assert titles(seen[-1].removed) == ["3"]
    space.db.remove(items[5])
    await space.db.flush()
    assert titles(seen[-1].objects) == ["4", "3"]
    items[1].n = 2.5
    await space.db.flush()
    assert titles(seen[-1].objects) == ["4", "3"]
    assert len(seen) == 3, "a change behind the limit is told to nobody"


@pytest.mark.parametrize("seed", range(5))
async def test_following_gives_what_asking_gives(space: Space, seed: int) -> None:
    draw = random.Random(seed)
    owners = [space.db.add({"title": f"owner {n}"}) for n in range(2)]
    queries = [
        space.db.query(n=1),
        space.db.query(F.n == True),  # noqa: E712
        space.db.query(F.n.in_([1, 2])).order_by("title"),
        space.db.query((F.n == 2) | (F.n == 3)).order_by(F.n, descending=True).limit(3),
        space.db.query(F.owner == owners[0]),
        space.db.query(F.refers_to(owners[1])),
        space.db.query(F.n.is_missing()),
        space.db.query().search("milk"),
        space.db.query(F.title.matches("mi*")).deleted("include"),
        space.db.query(F.n < 2).deleted("only"),
    ]
    latest: dict[int, list[str]] = {}

    def follow(number: int, query: Query[Any]) -> None:
        def told(update: QueryUpdate[Any]) -> None:
            before = set(latest.get(number, ()))
            latest[number] = [one.id for one in update.objects]
            if number in latest and query._query.limit is None:
                assert before - {one.id for one in update.removed} | {one.id for one in update.added} == set(
                    latest[number]
                )

        query.subscribe(told)

    for number, query in enumerate(queries):
        follow(number, query)
    objects: list[Any] = []
    for _ in range(30):
        match draw.randrange(5):
            case 0 | 1:
                given = {"title": draw.choice(["milk", "mill", "oat"]), "n": draw.choice([1, 1.0, True, 2, 3, None])}
                objects.append(space.db.add(given))
            case 2 if objects:
                draw.choice(objects).owner = draw.choice(owners)
            case 3 if objects:
                draw.choice(objects).n = draw.choice([1, 2, 3])
            case 4 if objects:
                one = draw.choice(objects)
                space.db.add(one) if one.deleted else space.db.remove(one)
        if draw.random() < 0.5:
            await space.db.flush()
    await space.db.flush()
    await anyio.wait_all_tasks_blocked()
    for number, query in enumerate(queries):
        assert latest.get(number, []) == [one.id for one in await query.run()], query


async def test_only_queries_that_may_match_look_at_a_change(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[LiveQuery] = []
    wants = LiveQuery.wants
    monkeypatch.setattr(LiveQuery, "wants", lambda self, row: looked.append(self) or wants(self, row))  # type: ignore[func-returns-value]
    for n in range(500):
        await followed(space.db.query(F.n == n))
    looked.clear()
    item = space.db.add({"n": 7})
    await space.db.flush()
    assert len(set(looked)) == 1
    looked.clear()
    item.n = 8
    await space.db.flush()
    assert len(set(looked)) == 2, "the one it leaves and the one it enters"


async def test_a_search_has_hits_with_the_place(space: Space) -> None:
    space.db.add({"title": "Oat milk", "notes": ["fresh"]})
    space.db.add({"title": "Bread"})
    (hit,) = await space.db.query().search("MILK").hits()
    assert (hit.object.title, hit.snippet) == ("Oat milk", "Oat [milk]")
    with pytest.raises(UsageError):
        await space.db.query().hits()


async def test_filters_join_by_operators_and_not_by_words(space: Space) -> None:
    space.db.add({"title": "a", "n": 1, "shop": {"aisle": 3}, "tags": ["x"]})
    space.db.add({"title": "b", "n": 2, "shop": {"aisle": 4}, "tags": []})
    assert titles(await space.db.query(F.n >= 1, F.shop.aisle > 3).run()) == ["b"]
    assert titles(await space.db.query((F.n == 1) | ~F.n.exists(), F.title.exists()).run()) == ["a"]
    assert titles(await space.db.query(F.n.between(2, 3) & F.tags.exists()).run()) == ["b"]
    assert titles(await space.db.query(F.tags.contains("x")).run()) == ["a"]
    assert titles(await space.db.query(F.title.startswith("b")).run()) == ["b"]
    assert titles(await space.db.query(F.title != "a", F.title != None).run()) == ["b"]  # noqa: E711
    for wrong in (lambda: (F.n == 1) and F.n, lambda: 1 < F.n < 3, lambda: bool(F.n), lambda: "x" in F.tags):
        with pytest.raises(UsageError):
            wrong()
    with pytest.raises(InvalidValueError):
        F.n < None  # type: ignore[operator]  # noqa: B015
    with pytest.raises(InvalidValueError):
        F.title.matches("*")
    assert repr(F.shop["two words"][0]) == "F.shop['two words'][0]"


async def test_a_loop_over_a_query_gets_the_results_and_then_each_change_once(space: Space) -> None:
    milk = space.db.add({"title": "Milk", "kind": "food"})
    updates = aiter(space.db.query(kind="food"))
    first = await anext(updates)
    assert (titles(first.objects), titles(first.added)) == (["Milk"], ["Milk"])
    eggs = space.db.add({"title": "Eggs", "kind": "food"})
    assert await anext(updates) == QueryUpdate((milk, eggs), added=(eggs,))
    milk.title = "Oat milk"
    assert await anext(updates) == QueryUpdate((milk, eggs), changed=(milk,))
    space.db.remove(eggs)
    assert await anext(updates) == QueryUpdate((milk,), removed=(eggs,))
    with anyio.move_on_after(5) as waiting:
        await anext(updates)
    assert waiting.cancelled_caught


async def test_a_loop_over_a_query_without_results_says_so_at_once(space: Space) -> None:
    async for update in space.db.query(kind="food"):
        assert update == QueryUpdate(())
        break


async def test_a_slow_loop_gets_what_came_meanwhile_as_one_change(space: Space) -> None:
    kept, gone, back = (space.db.add({"title": title, "kind": "food"}) for title in ("kept", "gone", "back"))
    updates = aiter(space.db.query(kind="food"))
    await anext(updates)
    back.kind = "lost"
    brief, new = space.db.add({"kind": "food"}), space.db.add({"kind": "food", "n": 0})
    await space.db.flush()
    kept.n, new.n, back.kind = 1, 1, "food"
    space.db.remove(gone)
    await space.db.flush()
    space.db.remove(brief)
    await space.db.flush()
    update = await anext(updates)
    assert set(update.objects) == {kept, back, new}
    assert (update.added, update.removed) == ((new,), (gone,))
    assert set(update.changed) == {kept, back}


@pytest.mark.parametrize("seed", range(5))
async def test_what_a_slow_loop_is_told_leads_to_what_there_is(space: Space, seed: int) -> None:
    draw = random.Random(seed)
    items = [space.db.add({"n": n, "shown": draw.random() < 0.5}) for n in range(8)]
    updates = aiter(space.db.query(shown=True))
    known: set[Any] = set()
    for _ in range(30):
        for item in draw.sample(items, 2):
            item.shown = not item.shown
        await space.db.flush()
        if draw.random() < 0.4:
            with anyio.move_on_after(1):
                update = await anext(updates)
                assert known.isdisjoint(update.added)
                assert known.issuperset({*update.removed, *update.changed})
                known = known - {*update.removed} | {*update.added}
                assert known == {*update.objects} == {item for item in items if item.shown}


async def test_changes_that_undo_each_other_are_told_to_no_slow_loop(space: Space) -> None:
    updates = aiter(space.db.query(kind="food"))
    await anext(updates)
    brief = space.db.add({"kind": "food"})
    await space.db.flush()
    space.db.remove(brief)
    await space.db.flush()
    with anyio.move_on_after(5) as waiting:
        await anext(updates)
    assert waiting.cancelled_caught


async def test_leaving_a_loop_over_a_query_ends_the_subscription(space: Space) -> None:
    async for _ in space.db.query(kind="food"):
        assert len(space.db._live) == 1
        break
    assert len(space.db._live) == 0


@pytest.mark.parametrize("everywhere", [False, True])
async def test_a_loop_over_a_query_ends_when_the_client_is_closed(everywhere: bool) -> None:
    client = Client(services=FakeServices(FakeNetwork()))
    await client.initialize()
    await client.halo.create_identity(display_name="Alice")
    space = await client.create_space(name="Shop")
    query = client.query(kind="food") if everywhere else space.db.query(kind="food")
    seen: list[QueryUpdate[Any]] = []

    async def read() -> None:
        async for update in query:
            seen.append(update)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await client.destroy()
    assert seen == [QueryUpdate(())]
    if not everywhere:
        with pytest.raises(ClosedError):
            aiter(query)
