"""Clients over sessions: whatever happens to a session, nothing is lost, done twice, or told twice."""

import logging
import os
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream

from dxos.client import Client, F
from dxos.client.database import Database
from dxos.client.query import QueryUpdate
from dxos.echo.mutation import Put, SetDeleted
from dxos.echo.rows import ObjectRow
from dxos.errors import (
    BrokenError,
    ClosedError,
    FencedError,
    IdentityExistsError,
    IdentityMissingError,
    InvalidValueError,
    ProfileLockedError,
)
from dxos.keys.ids import make_object_id
from dxos.limits import HOST_SILENCE_S_MAX, RECEIPT_AGE_S_MAX, SESSION_PIECE_BYTES, SPACE_REOPEN_S
from dxos.mesh.memory import MemoryStream, memory_links
from dxos.services.contract import (
    Edit,
    Identity,
    LogEntry,
    LogLevel,
    Profile,
    Receipt,
    Services,
    SpaceInfo,
    SpaceState,
    SwarmInfo,
    SystemStatus,
)
from dxos.services.local import LocalServices
from dxos.services.remote import RemoteServices
from dxos.services.server import serve
from dxos.testing.peers import Simulation, until
from dxos.testing.remote import Hosts, OpenServices, ServedServices
from dxos.testing.services import FakeServices

pytestmark = pytest.mark.anyio
ID = make_object_id(1_760_000_000_001, bytes(10))


@asynccontextmanager
async def host_with_space() -> AsyncIterator[tuple[Services, str]]:
    async with Simulation().services() as services:
        await services.identity.create_identity(Profile("alice"))
        space = await services.spaces.create_space({"name": "Groceries"})
        yield services, space.id


async def database(client: Client, space_id: str) -> Database:
    space = client.get_space(space_id)
    assert space is not None
    await space.wait_until_ready()
    return space.db


# --- Through a session, everything is as without ----------------------------------------------------------------------


async def test_a_client_over_a_session_has_identity_spaces_and_objects() -> None:
    async with Client(services=ServedServices(Simulation().services())) as client:
        identity = await client.halo.create_identity("alice")
        assert client.halo.identity.get() == identity
        space = await client.create_space(name="Groceries")
        milk = space.db.add({"title": "Milk", "size": 1.0})
        await space.db.flush()
        assert await space.db.query(title="Milk").run() == [milk]
        assert type(milk.size) is float
        assert space.members.get()[0].profile.display_name == "alice"


async def test_an_error_of_the_host_is_the_same_error_with_the_same_detail() -> None:
    async with ServedServices(Simulation().services()) as services:
        await services.identity.create_identity(Profile("alice"))
        with pytest.raises(IdentityExistsError):
            await services.identity.create_identity(Profile("alice"))
        space = await services.spaces.create_space({})
        edit = Edit(ID, create=ObjectRow(ID, data={"a": 1}))
        await services.data.update(space.id, [edit])
        with pytest.raises(InvalidValueError, match="exists already") as raised:
            await services.data.update(space.id, [edit])
        assert raised.value.detail == {"object_id": ID}


async def test_what_the_streams_told_at_first_is_here_when_initialize_returns() -> None:
    async with (
        host_with_space() as (services, space_id),
        Client(services=ServedServices(OpenServices(services))) as client,
    ):
        assert client.halo.identity.get() is not None
        assert client.get_space(space_id) is not None
        assert client.status.get() is SystemStatus.ACTIVE


async def test_long_arguments_and_long_answers_travel_in_pieces() -> None:
    async with Client(services=ServedServices(Simulation().services())) as client:
        await client.halo.create_identity("alice")
        space = await client.create_space()
        await space.db.add_all({"number": number} for number in range(450))
        # Long enough to be no collaborative text, and not to be made short by compression.
        text = random.Random(1).randbytes(200_000).hex()
        space.db.add({"number": 450, "text": text})
        await space.db.flush()
        found = await space.db.query(F.number >= 0).run()
        assert sorted(one.number for one in found) == list(range(451))
        assert next(one.text for one in found if one.number == 450) == text
        archive = await space.export_archive()
        assert len(archive.contents) > SESSION_PIECE_BYTES
        copy = await client.spaces.import_archive(archive)
        assert await copy.db.query(F.number >= 0).count() == 451


async def test_cancelling_a_call_cancels_it_at_the_host() -> None:
    cancelled = anyio.Event()
    started = anyio.Event()

    class Flushing:
        async def flush(self, space_id: str) -> None:
            started.set()
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.set()

        def forget(self, client_id: str) -> None:
            pass

    class Slow:
        def __init__(self, services: Services) -> None:
            self._services, self.data = services, Flushing()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._services, name)

    async with (
        Simulation().services() as host,
        ServedServices(OpenServices(Slow(host))) as services,  # type: ignore[arg-type]
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(services.data.flush, "B")
            await started.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(1):
            await cancelled.wait()


# --- Sessions that end ------------------------------------------------------------------------------------------------


async def edit_in_turns(cuts: tuple[int, ...]) -> int:
    """Two clients edit, the sessions of one are cut; how many sessions it had."""
    async with host_with_space() as (services, space_id):
        served = ServedServices(OpenServices(services), client_id="alice", cuts=cuts)
        async with (
            Client(services=ServedServices(OpenServices(services), client_id="bob")) as bob,
            Client(services=served) as alice,
        ):
            theirs, ours = await database(bob, space_id), await database(alice, space_id)
            counter = theirs.add({"kind": "counter", "count": 0})
            await theirs.flush()
            seen: list[int] = []
            results: list[list[int]] = []
            (mirror,) = await ours.query(kind="counter").run()
            mirror.subscribe(lambda one: seen.append(one.count))
            ours.query(kind="counter").subscribe(lambda update: results.append([one.count for one in update.objects]))
            entries = ours.add({"kind": "list", "items": []})
            for number in range(1, 9):
                entries.items.append(number)
                counter.count = number
                await theirs.flush()
                await anyio.sleep(0.001)
            await ours.flush()
            await until(lambda: mirror.count == 8 and results[-1:] == [[8]])
            (stored,) = await theirs.query(kind="list").run()
            assert list(stored.to_dict()["items"]) == list(range(1, 9))
            assert list(entries.to_dict()["items"]) == list(range(1, 9))
            assert seen == sorted(set(seen)), "each value once, in order"
            assert all(one != other for one, other in pairwise(results)), "nothing is told twice"
        return served.sessions_count


async def test_a_session_cut_at_any_message_loses_repeats_and_reorders_nothing() -> None:
    every = int(os.environ.get("DXOS_CUTS_EVERY", "3"))
    cut = 0
    while await edit_in_turns((cut,)) > 1:
        cut += every
    assert cut > 20, "the whole life of a session was cut somewhere"


async def test_a_long_update_is_done_once_wherever_its_session_is_cut() -> None:
    text, every = "x" * (2 * SESSION_PIECE_BYTES), int(os.environ.get("DXOS_CUTS_EVERY", "3"))
    sessions_count, cut = 2, 0
    async with host_with_space() as (services, space_id):
        while sessions_count > 1:
            served = ServedServices(OpenServices(services), cuts=(cut,))
            async with Client(services=served) as client:
                db = await database(client, space_id)
                one = db.add({"cut": cut, "items": []})
                await db.flush()
                one.items.append(text)
                await db.flush()
            (stored,) = await services.data.get(space_id, [one.id])
            assert stored.row.data["items"] == [text]
            sessions_count, cut = served.sessions_count, cut + every
    assert cut > 20, "the whole life of a session was cut somewhere"


async def test_sessions_cut_again_and_again_lose_repeat_and_reorder_nothing() -> None:
    for seed in range(int(os.environ.get("DXOS_EXAMPLES", "5"))):
        cuts = tuple(2 + (seed * 5 + number * 3) % 9 for number in range(6))
        assert await edit_in_turns(cuts) >= 3


async def test_an_update_with_a_receipt_is_applied_once_also_by_the_next_host(tmp_path: Path) -> None:
    simulation = Simulation()
    create = Edit(ID, create=ObjectRow(ID, data={"title": "Milk"}))
    receipt = Receipt("alice", 7)
    async with simulation.services(tmp_path) as services:
        await services.identity.create_identity(Profile("alice"))
        space_id = (await services.spaces.create_space({})).id
        (first,) = await services.data.update(space_id, [create], receipt=receipt)
    async with simulation.services(tmp_path) as services:
        (second,) = await services.data.update(space_id, [create], receipt=receipt)
        assert second.row == first.row
        services.data.forget("alice")
        with pytest.raises(InvalidValueError):
            await services.data.update(space_id, [create], receipt=receipt)


async def test_a_host_that_lives_long_forgets_the_receipts_of_clients_that_are_gone(tmp_path: Path) -> None:
    now_ms = 1_760_000_000_000
    async with LocalServices(tmp_path, now_ms=lambda: now_ms) as services:
        await services.identity.create_identity(Profile("alice"))
        space_id = (await services.spaces.create_space({})).id
        await services.data.update(space_id, [Edit(ID, create=ObjectRow(ID, data={}))])
        edit = Edit(ID, mutations=(Put(("count",), 1),))
        for number in range(100):
            await services.data.update(space_id, [edit], receipt=Receipt(f"client {number}", 1))
        now_ms += int(RECEIPT_AGE_S_MAX * 1_000) + 1
        await services.data.update(space_id, [edit], receipt=Receipt("alice", 1))
        with sqlite3.connect(tmp_path / "profile.sqlite") as other:
            assert other.execute("SELECT client FROM receipts").fetchall() == [("alice",)]
        other.close()


async def test_an_update_whose_receipt_may_be_forgotten_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with host_with_space() as (services, space_id):
        served = ServedServices(OpenServices(services))
        async with Client(services=served) as client:
            db = await database(client, space_id)
            monkeypatch.setattr("dxos.services.remote.RECEIPT_AGE_S_MAX", -1.0)  # A day has gone by meanwhile.
            milk = db.add({"title": "Milk"})
            served.cut()
            with pytest.raises(BrokenError, match="whether it was done is unknown"):
                await db.flush()
            assert served.sessions_count == 2
            monkeypatch.undo()
            db.add(milk)
            await db.flush()
            assert await db.query(title="Milk").run() == [milk]


async def test_a_call_that_may_have_been_done_says_so_and_is_not_made_again() -> None:
    served = ServedServices(Simulation().services())
    async with Client(services=served) as client:
        await client.halo.create_identity("alice")
        async with anyio.create_task_group() as tasks:

            async def create() -> None:
                with pytest.raises(BrokenError, match="whether it was done is unknown"):
                    await client.create_space()

            tasks.start_soon(create)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            served.cut()


async def test_sessions_that_end_as_soon_as_they_begin_keep_nobody_busy_and_are_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with host_with_space() as (services, _):
        served = ServedServices(OpenServices(services), cuts=(20, *[0] * 30))
        async with Client(services=served) as client:
            await anyio.sleep(60)
            assert client.status.get() is SystemStatus.ACTIVE
    assert served.sessions_count == 32
    assert len([one for one in caplog.records if "ends as soon as it begins" in one.getMessage()]) == 1


async def test_the_status_is_none_while_there_is_no_host() -> None:
    served = ServedServices(Simulation().services())
    seen: list[SystemStatus | None] = []
    async with Client(services=served) as client:
        client.status.subscribe(seen.append)
        served.cut()
        await until(lambda: client.status.get() is None)
        await until(lambda: client.status.get() is SystemStatus.ACTIVE)
        await anyio.sleep(5 * HOST_SILENCE_S_MAX)
        assert seen == [SystemStatus.ACTIVE, None, SystemStatus.ACTIVE]


async def test_edits_made_while_there_is_no_host_are_sent_to_the_next(tmp_path: Path) -> None:
    async with Hosts(Simulation(), tmp_path) as hosts, Client(services=RemoteServices(hosts.connect)) as client:
        await client.halo.create_identity("alice")
        space = await client.create_space(name="Groceries")
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        states: list[SpaceState] = []
        identities: list[Identity | None] = []
        space.state.subscribe(states.append)
        client.halo.identity.subscribe(identities.append)
        versions: list[int] = []
        for count in range(3):
            await hosts.kill()
            milk.count = count
            await anyio.sleep(1)
            await hosts.start()
            await space.db.flush()
            assert await space.db.query(title="Milk", count=count).run() == [milk]
            (stored,) = await hosts.services.data.get(space.id, [milk.id])
            versions.append(stored.version)
        assert versions == sorted(versions), "a later host's versions are higher"
        assert states == [SpaceState.READY], "the space is usable all the time"
        assert identities == [client.halo.identity.get()], "nothing is told twice"


async def test_a_space_that_a_new_host_opens_is_used_as_it_was_however_long_there_was_no_host() -> None:
    fake, is_there = FakeServices(), anyio.Event()
    streams: list[MemoryStream] = []
    async with fake as services, anyio.create_task_group() as tasks:

        async def connect() -> ByteStream:
            if streams:
                await is_there.wait()
            ours, theirs = memory_links()
            streams.append(ours)
            tasks.start_soon(partial(serve, services, theirs, client_id="alice"))
            return ours

        async with Client(services=RemoteServices(connect)) as client:
            await client.halo.create_identity("alice")
            space = await client.create_space(name="Groceries")
            milk = space.db.add({"title": "Milk"})
            await space.db.flush()
            states: list[SpaceState] = []
            space.state.subscribe(states.append)
            streams[0].reset()
            await anyio.sleep(2 * SPACE_REOPEN_S)
            fake.space_states[space.id] = SpaceState.INITIALIZING
            is_there.set()
            await client.status.wait_for(lambda status: status is SystemStatus.ACTIVE)
            await anyio.sleep(1)
            milk.title = "Oat milk"
            assert space.properties.name == "Groceries"
            del fake.space_states[space.id]
            fake.spaces.stream.refresh()
            await space.db.flush()
            assert states == [SpaceState.READY]


async def test_after_a_reset_by_another_process_nothing_is_left_and_the_client_can_begin_anew(tmp_path: Path) -> None:
    async with Hosts(Simulation(), tmp_path) as hosts, Client(services=RemoteServices(hosts.connect)) as client:
        await client.halo.create_identity("alice")
        space = await client.create_space()
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        ends: list[Exception] = []
        space.state.subscribe(lambda _: None, ends.append)
        await hosts.services.system.reset()
        await hosts.kill()
        milk.title = "Oat milk"
        await hosts.start()
        with pytest.raises(IdentityMissingError):
            await space.db.flush()
        await until(lambda: client.halo.identity.get() is None)
        assert client.spaces.get() == ()
        assert [str(one) for one in ends] == ["The space is gone from this device."]
        with pytest.raises(ClosedError, match="gone from this device"):
            milk.title = "Soy milk"
        await client.halo.create_identity("bob")
        await (await client.create_space()).db.flush()
        assert len(client.spaces) == 1


async def test_what_changed_between_two_hosts_comes_as_ordinary_updates(tmp_path: Path) -> None:
    async with Hosts(Simulation(), tmp_path) as hosts, Client(services=RemoteServices(hosts.connect)) as client:
        await client.halo.create_identity("alice")
        space = await client.create_space()
        milk = space.db.add({"kind": "item", "title": "Milk"})
        eggs = space.db.add({"kind": "item", "title": "Eggs"})
        await space.db.flush()
        updates: list[QueryUpdate[Any]] = []
        space.db.query(kind="item").subscribe(updates.append)
        await until(lambda: len(updates) == 1)
        await hosts.kill()
        async with LocalServices(tmp_path) as between:
            await until(lambda: space.id in [one.id for one in known(between) if one.state is SpaceState.READY])
            new = Edit(ID, create=ObjectRow(ID, data={"kind": "item", "title": "Bread"}))
            gone = Edit(eggs.id, mutations=(SetDeleted(True),))
            changed = Edit(milk.id, mutations=(Put(("title",), "Oat milk"),))
            await between.data.update(space.id, [new, gone, changed])
        await hosts.start()
        await until(lambda: {one.title for one in updates[-1].objects} == {"Bread", "Oat milk"})
        assert milk.title == "Oat milk"
        told = updates[1:]
        assert [one.id for update in told for one in update.added] == [ID]
        assert [one for update in told for one in update.removed] == [eggs]
        assert [one for update in told for one in update.changed] == [milk]


def known(services: Services) -> tuple[SpaceInfo, ...]:
    seen: list[tuple[SpaceInfo, ...]] = []
    services.spaces.query_spaces(seen.append).unsubscribe()
    return seen[-1]


async def test_a_host_can_be_made_inactive_and_active_again(tmp_path: Path) -> None:
    provider = Simulation().services(tmp_path)
    async with Client(services=ServedServices(provider)) as client:
        await client.halo.create_identity("alice")
        space = await client.create_space()
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        await provider.switch.system.update_status(SystemStatus.INACTIVE)
        await until(lambda: client.status.get() is SystemStatus.INACTIVE)
        with pytest.raises(ClosedError, match="resume_host_services"):
            await space.db.query().run()
        async with LocalServices(tmp_path) as other:
            await until(lambda: [one.state for one in known(other)] == [SpaceState.READY])
            await other.data.update(space.id, [Edit(milk.id, mutations=(Put(("title",), "Oat milk"),))])
            with pytest.raises(ProfileLockedError):
                await client.resume_host_services()
        await client.resume_host_services()
        await until(lambda: client.status.get() is SystemStatus.ACTIVE)
        await until(lambda: milk.title == "Oat milk")
        milk.title = "Soy milk"
        await space.db.flush()


async def test_the_log_and_the_storage_of_a_host_can_be_looked_at(tmp_path: Path) -> None:
    async with ServedServices(Simulation().services(tmp_path)) as services:
        entries: list[LogEntry] = []
        swarms: list[tuple[SwarmInfo, ...]] = []
        services.logging.query_logs(LogLevel.WARNING, entries.append)
        services.devtools.subscribe_to_swarm_info(swarms.append)
        assert (await services.devtools.get_storage_info()).file_bytes > 0
        logging.getLogger("dxos.mesh").warning("The line is %s.", "bad")
        await until(lambda: len(entries) == 1)
        assert (entries[0].level, entries[0].message) == (LogLevel.WARNING, "The line is bad.")
        assert swarms == [()]
        assert (await services.system.get_diagnostics())["status"] == "ACTIVE"


async def test_a_host_that_was_replaced_writes_nothing_any_more(tmp_path: Path) -> None:
    services = LocalServices(tmp_path, leadership_id=3)
    async with services as host:
        await host.identity.create_identity(Profile("alice"))
        space = await host.spaces.create_space({})
        with sqlite3.connect(tmp_path / "profile.sqlite") as other:
            other.execute("UPDATE leadership SET id = 4")
        with pytest.raises(FencedError):
            await host.data.update(space.id, [Edit(ID, create=ObjectRow(ID, data={}))])
        services.lead(4)
        await host.data.update(space.id, [Edit(ID, create=ObjectRow(ID, data={}))])
    other.close()
    with pytest.raises(FencedError):
        async with LocalServices(tmp_path, leadership_id=3):
            pass


async def test_what_a_replaced_host_refuses_is_done_by_the_one_that_replaced_it(tmp_path: Path) -> None:
    async with Hosts(Simulation(), tmp_path) as hosts, Client(services=RemoteServices(hosts.connect)) as client:
        await client.halo.create_identity("alice")
        space = await client.create_space()
        milk = space.db.add({"title": "Milk", "sizes": []})
        await space.db.flush()
        with sqlite3.connect(tmp_path / "profile.sqlite") as other:
            other.execute("UPDATE leadership SET id = 2")
        other.close()
        milk.sizes.append(1)
        await hosts.wait_end()
        hosts.leadership_id = 2
        await hosts.start()
        await space.db.flush()
        (stored,) = await hosts.services.data.get(space.id, [milk.id])
        assert stored.row.data["sizes"] == [1]


async def test_who_closes_while_there_is_no_host_waits_only_to_store_what_was_edited(tmp_path: Path) -> None:
    async with Hosts(Simulation(), tmp_path) as hosts:
        client = Client(services=RemoteServices(hosts.connect))
        await client.initialize()
        await client.halo.create_identity("alice")
        space = await client.create_space()
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        await hosts.kill()
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(ClosedError):
                    await space.db.query().run()

            tasks.start_soon(ask)
            await anyio.sleep(1)
            with anyio.fail_after(1):
                await client.destroy()

        await hosts.start()
        await client.initialize()
        db = await database(client, space.id)
        await db.query().run()
        milk = (await db.query(title="Milk").run())[0]
        await hosts.kill()
        milk.title = "Oat milk"
        closed = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def destroy() -> None:
                await client.destroy()
                closed.set()

            tasks.start_soon(destroy)
            await anyio.sleep(60)
            assert not closed.is_set()
            await hosts.start()
            with anyio.fail_after(5):
                await closed.wait()
        (stored,) = await hosts.services.data.get(space.id, [milk.id])
        assert stored.row.data["title"] == "Oat milk"

        await client.initialize()
        db = await database(client, space.id)
        (milk,) = await db.query(title="Oat milk").run()
        await hosts.kill()
        milk.title = "Soy milk"
        with anyio.move_on_after(5) as waiting:
            await client.destroy()
        assert waiting.cancelled_caught
        assert not client.initialized


async def test_a_client_over_a_session_closes_in_a_cancelled_task_too() -> None:
    client = Client(services=ServedServices(Simulation().services()))
    await client.initialize()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await client.destroy()
    assert not client.initialized
    await client.initialize()
    await client.destroy()
