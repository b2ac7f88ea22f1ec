"""Queries of a client reach the rows of a real host: filters, searches, plans and indexes."""

import pytest

from dxos.client.client import Client
from dxos.client.fields import F

pytestmark = pytest.mark.anyio


async def test_a_host_answers_every_kind_of_query() -> None:
    async with Client() as client:
        await client.halo.create_identity(display_name="Alice")
        space = await client.create_space(name="Shop")
        milk = space.db.add({"title": "Oat milk", "n": 2, "tags": ["dairy"], "shop": {"aisle": 3}})
        bread = space.db.add({"title": "Bread", "n": 1, "note": None})
        meal = space.db.add({"title": "Meal", "needs": [milk], "first": bread})
        db = space.db
        for query, found in [
            (db.query(F.n >= 2), [milk]),
            (db.query(F.shop.aisle.between(3, 4)), [milk]),
            (db.query(F.tags.contains("dairy")), [milk]),
            (db.query(F.title.in_(["Bread", "Meal"])).order_by(F.title), [bread, meal]),
            (db.query(F.note.exists()), [bread]),
            (db.query(F.title.exists(), F.note.is_missing()), [milk, meal]),
            (db.query(first=bread), [meal]),
            (db.query(F.first == bread), [meal]),
            (db.query(F.refers_to(milk)), [meal]),
            (db.query(F.needs.contains(milk)), [meal]),
            (db.query(F.title.matches("MIL*")), [milk]),
            (db.query(F.n != None).order_by(F.n, descending=True), [milk, bread]),  # noqa: E711
        ]:
            assert await query.run() == found, query
            assert await query.count() == len(found), query
        (hit,) = await db.query().search("milk").hits()
        assert (hit.object, hit.snippet) == (milk, "Oat [milk]")
        milk.title = "Tea"
        assert await db.query().search("milk").run() == []
        assert (await db.query(n=2).explain()).index is None
        await db.create_index(F.n)
        plan = await db.query(n=2).explain()
        assert (plan.index, plan.rows) == ("n", 1)
