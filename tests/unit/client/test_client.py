from collections.abc import Callable
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

import dxos
from dxos.aio import Subscription
from dxos.client import Client
from dxos.client.config import Config
from dxos.errors import (
    ClosedError,
    DeadlineError,
    IdentityExistsError,
    IdentityMissingError,
    ProfileLockedError,
    StorageAccessError,
)
from dxos.services.contract import ConnectionState, SystemStatus
from dxos.testing.services import FakeServices

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param, {"clock": MockClock(autojump_threshold=0)} if request.param == "trio" else {}


async def test_initialize_and_destroy_may_be_called_again() -> None:
    client = Client(services=FakeServices())
    for _ in range(2):
        await client.initialize()
        await client.initialize()
        assert client.initialized
        await client.destroy()
        await client.destroy()
        assert not client.initialized


async def test_concurrent_calls_open_the_host_once() -> None:
    fake = FakeServices()
    client = Client(services=fake)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(client.initialize)
    assert fake.opened == 1
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(client.destroy)
    assert not client.initialized


async def test_data_survives_closing_and_reopening() -> None:
    client = Client(services=FakeServices())
    async with client:
        identity = await client.halo.create_identity(display_name="Alice")
        space = await client.create_space(name="Groceries")
        milk = space.db.add({"title": "Milk"})
        # Not flushed: closing stores it.
    async with client:
        assert client.halo.identity.get() == identity
        again = client.get_space(space.key)
        assert again is not None
        await again.wait_until_ready()
        assert again.properties.name == "Groceries"
        assert (await again.db.get(milk.id)).title == "Milk"


async def test_what_needs_the_host_says_so_before_initialize_and_after_destroy() -> None:
    client = Client({"runtime": {"client": {"log": {"prefix": "x"}}}}, services=FakeServices())
    uses: list[Callable[[], object]] = [
        lambda: client.halo,
        lambda: client.mesh,
        lambda: client.spaces,
        lambda: client.echo,
        lambda: client.get_space("B"),
        lambda: client.accept_invitation("x"),
    ]
    for _ in range(2):
        assert client.config.get("runtime.client.log.prefix") == "x"
        assert isinstance(client.services, FakeServices)
        assert client.status.get() is None
        for use in uses:
            with pytest.raises(ClosedError, match="initialize"):
                use()
        with pytest.raises(ClosedError):
            await client.create_space()
        with pytest.raises(ClosedError):
            await client.reset()
        await client.initialize()
        await client.destroy()


async def test_an_error_of_opening_is_raised_and_another_try_is_possible() -> None:
    fake = FakeServices()
    client = Client(services=fake)
    fake.open_error = ProfileLockedError("Another process has this profile open.")
    with pytest.raises(ProfileLockedError):
        await client.initialize()
    assert not client.initialized
    fake.open_error = None
    await client.initialize()
    await client.destroy()


async def test_a_host_that_fails_is_seen_by_status_and_by_what_waits() -> None:
    fake = FakeServices()
    client = Client(services=fake)
    await client.initialize()
    await client.halo.create_identity()
    space = await client.create_space()
    waiting: list[type[Exception]] = []

    async def wait_for_a_name() -> None:
        try:
            await space.members.wait_for(lambda members: len(members) == 2)
        except StorageAccessError as error:
            waiting.append(type(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_for_a_name)
        await anyio.wait_all_tasks_blocked()
        fake.crash(StorageAccessError("The disk is gone."))
        await client.status.wait_for(lambda status: status is None)
    assert waiting == [StorageAccessError]
    assert isinstance(client.error, StorageAccessError)
    assert not client.initialized
    with pytest.raises(ClosedError, match="disk is gone"):
        _ = client.halo
    await client.initialize()
    assert client.error is None
    await client.destroy()


async def test_a_block_raises_the_error_of_a_host_that_failed() -> None:
    fake = FakeServices()

    async def use() -> None:
        async with Client(services=fake) as client:
            fake.crash(StorageAccessError("The disk is gone."))
            await client.status.wait_for(lambda status: status is None)

    with pytest.raises(StorageAccessError):
        await use()


async def test_a_cancelled_initialize_leaves_nothing_open() -> None:
    class Slow:
        entered = closed = 0

        async def __aenter__(self) -> Any:
            Slow.entered += 1
            try:
                await anyio.sleep_forever()
            finally:
                Slow.closed += 1

        async def __aexit__(self, *_: object) -> None:
            raise AssertionError("never entered")

    client = Client(services=Slow())
    with anyio.move_on_after(0.01):
        await client.initialize()
    assert (Slow.entered, Slow.closed) == (1, 1)
    assert not client.initialized


async def test_a_host_that_never_works_ends_initialize(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dxos.client.client.STATUS_TIMEOUT_S", 0.05)
    fake, ended = FakeServices(), []
    works = fake.system.query_status
    monkeypatch.setattr(fake.system, "query_status", lambda _: Subscription(lambda: ended.append(True)))
    client = Client(services=fake)
    with pytest.raises(DeadlineError, match=r"within 0\.05 s"):
        await client.initialize()
    assert not client.initialized
    assert ended == [True]
    monkeypatch.setattr(fake.system, "query_status", works)
    await client.initialize()
    await client.destroy()


async def test_a_cancelled_block_stores_what_it_has_and_closes() -> None:
    fake = FakeServices()
    client = Client(services=fake)
    with anyio.CancelScope() as scope:
        async with client:
            await client.halo.create_identity()
            space = await client.create_space()
            milk = space.db.add({"title": "Milk"})
            await space.db.flush()
            milk.done = True
            scope.cancel()
            await anyio.sleep_forever()
    assert not client.initialized
    assert fake.network.spaces[space.id].objects[milk.id].row.data["done"] is True


async def test_destroying_in_a_cancelled_task_closes() -> None:
    client = Client(services=FakeServices())
    await client.initialize()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await client.destroy()
    assert not client.initialized
    await client.initialize()
    await client.destroy()


async def test_clients_close_in_any_order_and_from_any_task() -> None:
    one, two = Client(services=FakeServices()), Client(services=FakeServices())
    await one.initialize()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(two.initialize)
    await one.destroy()
    assert two.initialized
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(two.destroy)
    assert not two.initialized


async def test_a_space_needs_an_identity() -> None:
    async with Client(services=FakeServices()) as client:
        with pytest.raises(IdentityMissingError):
            await client.create_space()
        with pytest.raises(IdentityMissingError):
            await client.halo.update_profile("x")
        with pytest.raises(IdentityMissingError):
            await client.halo.query_credentials()
        assert client.get_space() is None


async def test_the_identity_is_created_once_and_its_profile_changed() -> None:
    async with Client(services=FakeServices()) as client:
        seen: list[object] = []
        client.halo.identity.subscribe(seen.append)
        created = await client.halo.create_identity(display_name="Alice")
        assert seen == [None, created]
        with pytest.raises(IdentityExistsError):
            await client.halo.create_identity()
        changed = await client.halo.update_profile("Bob")
        assert client.halo.identity.get() == changed
        assert client.halo.profile is not None
        assert client.halo.profile.display_name == "Bob"
        assert client.halo.device is not None
        (credential,) = await client.halo.query_credentials(type="dxos.halo.credentials.AuthorizedDevice")
        assert await client.halo.present_credentials([credential.id], b"nonce")
        assert await client.halo.credentials.wait_for(lambda all_: len(all_) == 1) == (credential,)


async def test_reset_forgets_and_closes() -> None:
    client = Client(services=FakeServices())
    await client.initialize()
    await client.halo.create_identity()
    await client.create_space()
    await client.reset()
    assert not client.initialized
    async with client:
        assert client.halo.identity.get() is None
        assert client.spaces.get() == ()
        await client.halo.create_identity()


async def test_the_older_faces_show_the_same() -> None:
    async with Client(services=FakeServices()) as client:
        assert client.halo.profile is None
        assert (await client.halo.create_profile("Alice")).display_name == "Alice"
        space = await client.echo.create_space()
        assert client.echo.query_spaces().value == (space,)
        assert client.echo.get_space(space.key) is space
        assert client.spaces.get(space.id) is client.get_space(space.key.hex) is space
        assert client.spaces.get("nothing") is None
        assert await client.get_status() is SystemStatus.ACTIVE
        other = await client.spaces.create(name="B")
        assert list(client.spaces) == [space, other]


async def test_the_network_can_be_left_and_joined() -> None:
    async with Client(services=FakeServices()) as client:
        assert client.mesh.network_status.get().swarm is ConnectionState.ONLINE
        await client.mesh.update_config(ConnectionState.OFFLINE)
        assert client.mesh.network_status.get().swarm is ConnectionState.OFFLINE


async def test_the_client_describes_itself() -> None:
    client = Client(Config(), services=FakeServices())
    assert repr(client) == "<Client closed>"
    assert client.to_json() == {"initialized": False}
    async with client:
        await client.halo.create_identity()
        shown = client.to_json()
        assert shown["initialized"] is True
        assert shown["spaces"] == 0
        assert set(shown["halo"]) == {"identityKey", "deviceKey"}
        assert "\n" not in repr(client)
        assert len(repr(client)) < 120
        assert client.version == dxos.__version__


def test_a_client_works_in_one_event_loop_after_another() -> None:
    client = Client(services=FakeServices())

    async def use() -> None:
        async with client:
            assert client.initialized

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(use, backend=backend)


def test_a_client_that_is_never_destroyed_ends_with_its_event_loop() -> None:
    async def use() -> None:
        await Client(services=FakeServices()).initialize()

    for backend in ("asyncio", "trio"):
        anyio.run(use, backend=backend)


@pytest.mark.parametrize(
    ("value", "shown", "number"),
    [
        (dxos.SpaceState.READY, "SpaceState.READY", 3),
        (dxos.SpaceRole.OWNER, "SpaceRole.OWNER", 4),
        (dxos.InvitationState.SUCCESS, "InvitationState.SUCCESS", 5),
        (dxos.InvitationKind.SPACE, "InvitationKind.SPACE", 1),
        (dxos.AuthMethod.NONE, "AuthMethod.NONE", 0),
        (dxos.ConnectionState.ONLINE, "ConnectionState.ONLINE", 1),
        (dxos.SystemStatus.ACTIVE, "SystemStatus.ACTIVE", 1),
    ],
)
def test_enums_print_by_name_and_keep_their_numbers(value: Any, shown: str, number: int) -> None:
    assert (str(value), f"{value}") == (shown, shown)
    assert value == int(value) == number
