from typing import Any

import anyio
import pytest

from dxos.client import Client, EchoObject
from dxos.client.results import Results
from dxos.client.tables import properties_table
from dxos.limits import TABLE_CELL_CHARS_MAX, TABLE_COLUMNS_MAX, TABLE_ROWS_MAX
from dxos.testing.services import FakeServices

pytestmark = pytest.mark.anyio

HOSTILE = "<script>alert('x')</script>&\""


def html(shown: Any) -> str:
    return str(shown._repr_html_())


async def test_nothing_that_a_peer_wrote_is_markup() -> None:
    async with Client(services=FakeServices()) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name=HOSTILE)
        task = space.db.add({HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}})
        results = await space.db.query(nested={HOSTILE: [HOSTILE]}).run()
        assert results == [task]
        for shown in (space, client.spaces, task, results):
            assert html(shown).startswith("<table>")
            assert "script&gt;" in html(shown)
            assert "<script" not in html(shown)
            assert "'x'" not in html(shown)


async def test_results_are_a_table_with_a_column_for_each_property() -> None:
    async with Client(services=FakeServices()) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space()
        bob = space.db.add({"kind": "person", "name": "Bob"})
        space.db.add({"kind": "task", "title": "Shop", "assignee": bob, "done": False})
        query = space.db.query(kind="task")
        (task,) = await query.run()
        shown = html(await query.run())
        for text in ("title", "Shop", "assignee", f"→ {bob.id}", "false", task.id):
            assert f"<bdi>{text}</bdi>" in shown
        reference = {"/": f"dxn:echo:@:{bob.id}"}
        expected = {"id": task.id, "kind": "task", "title": "Shop", "assignee": reference, "done": False}
        assert await query.to_dicts() == (await query.run()).to_dicts() == [expected]
        await anyio.lowlevel.checkpoint()


async def test_a_table_has_bounds_and_says_what_is_missing() -> None:
    many = Results(EchoObject(n=n) for n in range(TABLE_ROWS_MAX + 5))
    assert html(many).count("<tr>") == TABLE_ROWS_MAX + 1
    assert f"{TABLE_ROWS_MAX + 5} in all" in html(many)
    assert "in all" not in html(Results([EchoObject(n=1)]))
    wide = Results([EchoObject({f"p{n}": n for n in range(TABLE_COLUMNS_MAX + 5)})])
    assert html(wide).count("<th>") == TABLE_COLUMNS_MAX + 1
    assert len(properties_table("x", {"long": "y" * 10_000})) < TABLE_CELL_CHARS_MAX + 200
