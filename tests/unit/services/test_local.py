"""The host in this process, as its clients see it through the contract."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from dxos.client import Client
from dxos.echo.mutation import Put
from dxos.echo.query import Equals, Query
from dxos.echo.rows import ObjectRow
from dxos.errors import (
    ConfigError,
    IdentityExistsError,
    IdentityMissingError,
    NotAllowedError,
    ObjectNotFoundError,
    ProfileLockedError,
    SpaceNotFoundError,
    SpaceNotReadyError,
)
from dxos.halo.credential import assertion_of
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import make_object_id
from dxos.mesh.signal import Signal
from dxos.services.contract import (
    ConnectionState,
    Contact,
    Device,
    Edit,
    Identity,
    NetworkStatus,
    ObjectState,
    Presence,
    Profile,
    Services,
    SpaceInfo,
    SpaceMessage,
    SpaceState,
    SystemStatus,
)
from dxos.services.local import LocalServices
from dxos.services.spaces import SpacesServiceHost
from dxos.services.switch import Switch
from dxos.spaces.peer import Peer
from dxos.store.profile import Profile as StoredProfile
from dxos.testing.peers import Simulation, until, virtual_ms
from dxos.wire.proto.credentials_pb2 import SpaceMember

pytestmark = pytest.mark.anyio
MILK = make_object_id(1_760_000_000_001, bytes(10))


@asynccontextmanager
async def hosts(*names: str) -> AsyncIterator[tuple[Services, ...]]:
    simulation = Simulation()
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(simulation.services()) for _ in names]
        for services, name in zip(found, names, strict=True):
            await services.identity.create_identity(Profile(name))
        yield tuple(found)


def row(**data: object) -> Edit:
    return Edit(MILK, create=ObjectRow(MILK, data=data))


# --- Life ------------------------------------------------------------------------------------------------------------


async def test_a_host_says_that_it_works_and_when_it_ends() -> None:
    seen: list[SystemStatus | None] = []
    async with Simulation().services() as services:
        services.system.query_status(seen.append)
    assert seen == [SystemStatus.ACTIVE, SystemStatus.INACTIVE]


async def test_a_reset_is_finished_by_the_next_host_if_this_one_is_killed(tmp_path: Path) -> None:
    async with LocalServices(tmp_path / "p") as services:
        await services.identity.create_identity(Profile("alice"))
        await services.system.reset()
        shutil.copytree(tmp_path / "p", tmp_path / "killed")
    async with Client(services=LocalServices(tmp_path / "killed")) as client:
        assert client.halo.identity.get() is None


async def test_a_reset_while_another_process_has_the_profile_fails_and_takes_nothing_from_it(tmp_path: Path) -> None:
    other = Client(services=LocalServices(tmp_path))

    async def reset() -> None:
        async with LocalServices(tmp_path) as services:
            await services.identity.create_identity(Profile("alice"))
            await services.system.update_status(SystemStatus.INACTIVE)
            await other.initialize()
            await services.system.reset()

    with pytest.raises(ProfileLockedError):
        await reset()
    assert other.halo.identity.get() is not None
    await other.destroy()
    async with Client(services=LocalServices(tmp_path)) as client:
        assert client.halo.identity.get() is not None


async def test_a_host_can_be_opened_again_and_again_and_forgets_all_after_a_reset(tmp_path: Path) -> None:
    provider = Simulation().services(tmp_path / "alice")
    async with provider as services:
        created = await services.identity.create_identity(Profile("alice"))
    async with provider as services:
        found: list[Identity | None] = []
        services.identity.query_identity(found.append)
        assert found == [created]
        await services.system.reset()
    async with provider as services:
        found = []
        services.identity.query_identity(found.append)
        assert found == [None]


async def test_two_hosts_do_not_open_one_profile(tmp_path: Path) -> None:
    simulation = Simulation()
    async with simulation.services(tmp_path / "alice"):
        with pytest.raises(ProfileLockedError):
            async with simulation.services(tmp_path / "alice"):
                raise AssertionError("it opened")


async def test_bad_settings_do_not_leave_the_profile_locked(tmp_path: Path) -> None:
    def broken() -> Signal:
        raise ConfigError("no such server")

    provider = LocalServices(tmp_path / "alice", signal=broken, now_ms=virtual_ms)
    with pytest.raises(ConfigError):
        await provider.__aenter__()
    StoredProfile.open(tmp_path / "alice").close()


# --- Identity --------------------------------------------------------------------------------------------------------


async def test_an_identity_is_created_once_and_observed() -> None:
    async with Simulation().services() as services:
        seen: list[Identity | None] = []
        devices: list[tuple[Device, ...]] = []
        services.identity.query_identity(seen.append)
        services.devices.query_devices(devices.append)
        with pytest.raises(IdentityMissingError):
            await services.spaces.create_space({})
        created = await services.identity.create_identity(Profile("alice", data={"color": "red"}))
        assert created.profile.display_name == "alice"
        with pytest.raises(IdentityExistsError):
            await services.identity.create_identity(Profile("again"))
        await until(lambda: len(seen) == 2)
        await services.identity.update_profile(Profile("alicia"))
        await until(lambda: len(seen) == 3)
        assert [None if one is None else one.profile.display_name for one in seen] == [None, "alice", "alicia"]
        assert [len(one) for one in devices][-1] == 1
        credentials = await services.identity.query_credentials()
        assert len(await services.identity.query_credentials(ids=[credentials[0].id])) == 1
        assert await services.identity.sign_presentation([credentials[0].id], b"nonce")


# --- Spaces, data, queries -------------------------------------------------------------------------------------------


async def test_objects_are_written_observed_and_queried() -> None:
    async with hosts("alice") as (services,):
        space = await services.spaces.create_space({"name": "Groceries"})
        seen: list[tuple[ObjectState, ...]] = []
        subscription = services.data.subscribe(space.id, seen.append)
        (created,) = await services.data.update(space.id, [row(title="Milk", done=False)])
        await services.data.flush(space.id)
        (changed,) = await services.data.update(
            space.id, [Edit(MILK, mutations=(Put(("done",), True),), base_heads=created.heads)]
        )
        assert changed.version > created.version
        assert [one.row.data for states in seen for one in states] == [
            {"title": "Milk", "done": False},
            {"title": "Milk", "done": True},
        ]
        query = Query(filter=Equals(("done",), True))
        assert [one.row.object_id for one in await services.query.execute(space.id, query)] == [MILK]
        assert await services.query.count(space.id, query) == 1
        subscription.unsubscribe()
        await services.data.update(space.id, [Edit(MILK, mutations=(Put(("done",), False),))])
        assert len(seen) == 2
        with pytest.raises(ObjectNotFoundError):
            await services.data.update(space.id, [Edit(make_object_id(5, bytes(10)), mutations=(Put(("a",), 1),))])


async def test_a_space_that_is_unknown_or_closed_is_named_in_the_error() -> None:
    async with hosts("alice") as (services,):
        unknown = "B" + "A" * 32
        for call in (
            services.data.update(unknown, []),
            services.data.flush(unknown),
            services.data.get(unknown, [MILK]),
            services.query.execute(unknown, Query()),
            services.query.count(unknown, Query()),
            services.spaces.update_space(unknown, SpaceState.ACTIVE),
            services.spaces.post_message(unknown, "news", {}),
        ):
            with pytest.raises(SpaceNotFoundError):
                await call
        space = await services.spaces.create_space({})
        await services.spaces.update_space(space.id, SpaceState.INACTIVE)
        with pytest.raises(SpaceNotReadyError):
            await services.data.update(space.id, [row()])
        with pytest.raises(NotAllowedError):
            await services.spaces.update_space(space.id, SpaceState.READY)


async def test_a_subscription_to_objects_outlives_the_closing_of_the_space() -> None:
    async with hosts("alice") as (services,):
        space = await services.spaces.create_space({})
        seen: list[tuple[ObjectState, ...]] = []
        infos: list[tuple[SpaceInfo, ...]] = []
        services.data.subscribe(space.id, seen.append)
        services.spaces.query_spaces(infos.append)
        await services.spaces.update_space(space.id, SpaceState.INACTIVE)
        await until(lambda: infos[-1][0].state is SpaceState.INACTIVE)
        await services.spaces.update_space(space.id, SpaceState.ACTIVE)
        await until(lambda: infos[-1][0].state is SpaceState.READY)
        await services.data.update(space.id, [row(title="Milk")])
        assert [one.row.data for states in seen for one in states] == [{"title": "Milk"}]


def _peer(services: Services) -> Peer:
    assert isinstance(services, Switch)
    assert isinstance(services.inner.spaces, SpacesServiceHost)
    return services.inner.spaces._peer


async def _join(host: Services, guest: Services, space: SpaceInfo, role: SpaceRole = SpaceRole.EDITOR) -> None:
    """Without an invitation, which other tests look at."""
    host_peer, guest_peer = _peer(host), _peer(guest)
    identity = guest_peer.identity.required
    credential = host_peer.spaces.get(space.id).admit(identity.identity_key, role, identity.profile)
    membership = assertion_of(credential)
    assert isinstance(membership, SpaceMember)
    guest_peer.spaces.accept(membership)
    infos: list[tuple[SpaceInfo, ...]] = []
    guest.spaces.query_spaces(infos.append)
    await until(lambda: bool(infos[-1]) and infos[-1][0].state is SpaceState.READY)


async def test_members_see_each_other_write_to_each_other_and_are_told_what_they_may_not() -> None:
    async with hosts("alice", "bob") as (alice, bob):
        space = await alice.spaces.create_space({"name": "Groceries"})
        await _join(alice, bob, space)
        infos: list[tuple[SpaceInfo, ...]] = []
        contacts: list[tuple[Contact, ...]] = []
        alice.spaces.query_spaces(infos.append)
        alice.contacts.query_contacts(contacts.append)
        await until(lambda: {one.presence for one in infos[-1][0].members} == {Presence.ONLINE})
        assert [one.profile.display_name for one in infos[-1][0].members] == ["alice", "bob"]
        assert [one.profile.display_name for one in contacts[-1]] == ["bob"]
        heard: list[SpaceMessage] = []
        bob.spaces.subscribe_messages(space.id, "news", heard.append)
        await alice.spaces.post_message(space.id, "news", {"text": "hello"})
        await alice.spaces.post_message(space.id, "other", {"text": "unheard"})
        await until(lambda: bool(heard))
        assert [one.payload for one in heard] == [{"text": "hello"}]
        theirs = infos[-1][0].members[1].identity_key
        await alice.spaces.update_member_role(space.id, theirs, SpaceRole.READER)
        bobs: list[tuple[SpaceInfo, ...]] = []
        bob.spaces.query_spaces(bobs.append)
        await until(lambda: bobs[-1][0].role is SpaceRole.READER)
        with pytest.raises(NotAllowedError):
            await bob.data.update(space.id, [row(title="Milk")])
        with pytest.raises(NotAllowedError):
            await bob.spaces.update_member_role(space.id, theirs, SpaceRole.ADMIN)
        with pytest.raises(ObjectNotFoundError):
            await alice.spaces.update_member_role(space.id, PublicKey(b"\4" + bytes(64)), SpaceRole.ADMIN)
        await alice.spaces.update_member_role(space.id, theirs, SpaceRole.REMOVED)
        await until(lambda: infos[-1][0].members[1].presence is Presence.REMOVED)
        assert await alice.spaces.query_credentials(space.id)


async def test_the_network_can_be_switched_off_and_on() -> None:
    async with hosts("alice", "bob") as (alice, bob):
        space = await alice.spaces.create_space({})
        await _join(alice, bob, space)
        seen: list[NetworkStatus] = []
        subscription = alice.network.query_status(seen.append)
        await until(lambda: seen[-1].connections > 0)
        await alice.network.update_config(ConnectionState.OFFLINE)
        assert seen[-1].swarm is ConnectionState.OFFLINE
        await until(lambda: seen[-1].connections == 0)
        await alice.network.update_config(ConnectionState.ONLINE)
        await until(lambda: seen[-1].connections > 0)
        subscription.unsubscribe()
        count = len(seen)
        await alice.network.update_config(ConnectionState.OFFLINE)
        assert len(seen) == count


async def test_no_change_is_missed_between_subscribing_and_the_first_turn() -> None:
    async with Simulation().services() as services:
        seen: list[Identity | None] = []
        services.identity.query_identity(seen.append)
        await services.identity.create_identity(Profile("alice"))  # Before the watching task ever ran.
        await anyio.sleep(1)
        assert [one is not None for one in seen] == [False, True]
