"""A host that is asked to yield and made to work again: what its clients see, also those that come meanwhile."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from dxos.client import Client
from dxos.errors import ClosedError, DeadlineError, FencedError
from dxos.services.contract import Profile, SpaceInfo, SystemStatus
from dxos.services.local import LocalServices
from dxos.store.database import Database
from dxos.testing.peers import Simulation, until
from dxos.testing.remote import OpenServices, ServedServices

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def yielding_host(path: Path) -> AsyncIterator[tuple[LocalServices, ServedServices, Client]]:
    """A host that was made inactive while a client was there."""
    provider = Simulation().services(path)
    async with provider as services:
        served = ServedServices(OpenServices(services), client_id="alice")
        async with Client(services=served) as client:
            await client.halo.create_identity("alice")
            await client.create_space(name="Groceries")
            await services.system.update_status(SystemStatus.INACTIVE)
            await until(lambda: client.status.get() is SystemStatus.INACTIVE)
            yield provider, served, client


async def test_streams_of_a_session_that_began_while_the_host_was_inactive_begin_with_the_host(tmp_path: Path) -> None:
    async with yielding_host(tmp_path) as (provider, served, alice):
        served.cut()
        await until(lambda: served.sessions_count == 2 and alice.status.get() is SystemStatus.INACTIVE)
        await alice.resume_host_services()
        await until(lambda: alice.status.get() is SystemStatus.ACTIVE)
        async with Client(services=ServedServices(OpenServices(provider.switch), client_id="bob")) as bob:
            await bob.halo.update_profile("Alice")
            await bob.create_space(name="Books")
            (groceries,) = (one for one in bob.spaces if one.name == "Groceries")
            found = groceries.db.add({"title": "Milk"})
            await groceries.db.flush()
            await until(lambda: len(alice.spaces) == 2)
            assert alice.halo.profile is not None
            assert alice.halo.profile.display_name == "Alice"
            ours = alice.get_space(groceries.id)
            assert ours is not None
            (milk,) = await ours.db.query(title="Milk").run()
            found.title = "Oat milk"
            await until(lambda: milk.title == "Oat milk")


@pytest.mark.parametrize("is_remote", [False, True])
async def test_what_is_followed_while_the_host_is_inactive_begins_with_the_host(
    tmp_path: Path, is_remote: bool
) -> None:
    async with yielding_host(tmp_path) as (provider, _, alice):
        services = provider.switch
        seen: list[tuple[SpaceInfo, ...]] = []
        async with ServedServices(OpenServices(services), client_id="bob") as remote:
            stream = (remote if is_remote else services).spaces.query_spaces(seen.append)
            with pytest.raises(ClosedError, match="resume_host_services"):
                await remote.spaces.query_stats("B")
            assert seen == []
            await alice.resume_host_services()
            await until(lambda: [len(one) for one in seen[:1]] == [1])
            stream.unsubscribe()


async def test_who_comes_while_the_host_is_inactive_waits_for_it_or_is_told_what_to_do(tmp_path: Path) -> None:
    async with yielding_host(tmp_path) as (provider, _, alice):
        bob = Client(services=ServedServices(OpenServices(provider.switch), client_id="bob"))
        with pytest.raises(DeadlineError, match="asked its host to yield"):
            await bob.initialize()
        await alice.resume_host_services()
        async with bob:
            assert len(bob.spaces) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_host_that_yields_while_the_disk_is_waited_for_closes_its_files_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    waiting, is_written = threading.Event(), threading.Event()
    sync, close = Database.sync_wal, Database.close

    def sync_slowly(database: Database) -> None:
        waiting.set()
        is_written.wait(10)
        sync(database)
        order.append("synced")

    def note_close(database: Database) -> None:
        order.append("closed")
        close(database)

    async with LocalServices(tmp_path) as services:
        await services.identity.create_identity(Profile("alice"))
        space = await services.spaces.create_space({})
        monkeypatch.setattr(Database, "sync_wal", sync_slowly)
        monkeypatch.setattr(Database, "close", note_close)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(services.data.flush, space.id)
            await until(waiting.is_set)
            tasks.start_soon(services.system.update_status, SystemStatus.INACTIVE)
            await anyio.sleep(0.02)
            is_written.set()
        assert order == ["synced", "closed"]


async def test_a_host_that_yielded_goes_on_under_its_number_and_no_other_host_does(tmp_path: Path) -> None:
    async with LocalServices(tmp_path, leadership_id=3) as services:
        await services.identity.create_identity(Profile("alice"))
        await services.system.update_status(SystemStatus.INACTIVE)
        await services.system.update_status(SystemStatus.ACTIVE)
        await services.spaces.create_space({})
    with pytest.raises(FencedError):
        await LocalServices(tmp_path, leadership_id=3).__aenter__()
    async with LocalServices(tmp_path, leadership_id=4) as services:
        await services.spaces.create_space({})
