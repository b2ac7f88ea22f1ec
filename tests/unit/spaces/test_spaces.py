"""Spaces of one profile: created, closed, opened, and what is left when any of that fails half-way."""

from pathlib import Path

import anyio
import pytest

from dxos.errors import CorruptionError, SpaceNotFoundError, SpaceNotReadyError, StorageFullError
from dxos.spaces.space import Space, State
from dxos.store.database import Database
from dxos.store.keyring import Keyring
from dxos.testing.peers import Host, agreed, simulated_hosts, until

pytestmark = pytest.mark.anyio


def fail_commits(patched: pytest.MonkeyPatch, *, after: int = 0) -> None:
    """Have the disk be full at every commit but the first few."""
    run = Database.run
    left = [after]

    def refuse(database: Database, statement: str, parameters: tuple[object, ...] = ()) -> int:
        if statement == "COMMIT":
            left[0] -= 1
            if left[0] < 0:
                raise StorageFullError("the disk is full")
        return run(database, statement, parameters)  # type: ignore[arg-type]

    patched.setattr(Database, "run", refuse)


async def test_a_space_can_be_closed_and_opened_any_number_of_times() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        for _ in range(3):
            await alice.peer.spaces.set_active(space.id, False)
            assert space.state is State.CLOSED
            assert not space.is_active
            with pytest.raises(SpaceNotReadyError):
                alice.peer.spaces.ready(space.id)
            await alice.peer.spaces.set_active(space.id, True)
            await space.wait_until_ready()
            assert alice.data(space, milk) == {"title": "Milk"}


async def test_closing_before_it_opened_and_opening_twice_do_what_they_say() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space()
        spaces = alice.peer.spaces
        await spaces.set_active(space.id, False)
        async with anyio.create_task_group() as tasks:
            for active in (True, True, False, True, False):
                tasks.start_soon(spaces.set_active, space.id, active)
        assert not space.is_running or space.is_active
        await spaces.set_active(space.id, True)
        await spaces.set_active(space.id, True)
        await spaces.set_active(space.id, False)  # Its task has not begun.
        assert space.state is State.CLOSED
        await anyio.sleep(1)
        assert space.state is State.CLOSED


async def test_a_closed_space_stays_closed_over_a_restart(tmp_path: Path) -> None:
    async with simulated_hosts("alice", folder=tmp_path) as (alice,):
        space = await alice.create_space()
        await alice.peer.spaces.set_active(space.id, False)
        await alice.stop()
        await alice.start()
        await anyio.sleep(1)
        assert alice.space(space.id).state is State.CLOSED
        await alice.peer.spaces.set_active(space.id, True)
        await alice.space(space.id).wait_until_ready()


async def test_whoever_waits_for_a_space_that_is_closed_is_told() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        bob.sever(alice)
        theirs = bob.accept(alice, space)

        async def wait() -> None:
            with pytest.raises(SpaceNotReadyError):
                await theirs.wait_until_ready()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(1)
            await bob.peer.spaces.set_active(space.id, False)


async def test_a_full_disk_leaves_no_half_of_a_new_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated_hosts("alice", folder=tmp_path) as (alice,):
        first = await alice.create_space()
        identity = alice.peer.identity.required
        records = len(identity.pipeline.state.credentials)
        with monkeypatch.context() as patched:
            fail_commits(patched)
            with pytest.raises(StorageFullError):
                await alice.create_space()
        assert list(alice.peer.spaces.all) == [first.id]
        assert len(identity.pipeline.state.credentials) == records
        second = await alice.create_space()  # The feed of the identity goes on where it was.
        await alice.stop()
        await alice.start()
        assert set(alice.peer.spaces.all) == {first.id, second.id}
        assert len(alice.peer.identity.required.pipeline.state.credentials) == records + 1


async def test_a_full_disk_leaves_no_half_of_a_joined_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated_hosts("alice", "bob", folder=tmp_path) as (alice, bob):
        space, other = await alice.create_space(), await alice.create_space()
        records = len(bob.peer.identity.required.pipeline.state.credentials)
        with monkeypatch.context() as patched:
            fail_commits(patched, after=1)  # The host's commit is the first.
            with pytest.raises(StorageFullError):
                bob.accept(alice, space)
        assert bob.peer.spaces.all == {}
        assert len(bob.peer.identity.required.pipeline.state.credentials) == records
        await bob.join(alice, other)
        await bob.stop()
        await bob.start()
        await bob.space(other.id).wait_until_ready()
        assert set(bob.peer.spaces.all) == {other.id}


async def test_a_host_that_dies_right_after_joining_finds_the_space_again(tmp_path: Path) -> None:
    async with simulated_hosts("alice", "bob", folder=tmp_path) as (alice, bob):
        space = await alice.create_space(name="Groceries")
        bob.accept(alice, space)  # A record without a genesis is all there is.
        await bob.kill()
        await bob.start()
        assert bob.space(space.id).state is not State.READY
        with anyio.fail_after(60):
            await bob.space(space.id).wait_until_ready()


def _damage_feed(host: Host, space: Space) -> None:
    database = host.peer.profile.database
    key = bytes(space.key) + bytes(space.record.genesis_feed_key)
    changed = database.run(
        "UPDATE blocks SET bytes = zeroblob(length(bytes))"
        " WHERE position >> 24 = (SELECT number FROM feeds WHERE key = ?)",
        (key,),
    )
    assert changed > 0


async def test_a_damaged_control_feed_closes_its_space_and_no_other(tmp_path: Path) -> None:
    async with simulated_hosts("alice", folder=tmp_path) as (alice,):
        good, bad = await alice.create_space(), await alice.create_space()
        _damage_feed(alice, bad)
        await alice.stop()
        await alice.start()
        await alice.space(good.id).wait_until_ready()
        with pytest.raises(CorruptionError):
            await alice.space(bad.id).wait_until_ready()
        assert alice.space(bad.id).state is State.ERROR
        with anyio.fail_after(1):
            await alice.peer.spaces.set_active(bad.id, False)
            assert alice.space(bad.id).state is State.CLOSED
            await alice.peer.spaces.set_active(bad.id, True)
        with pytest.raises(CorruptionError):
            await alice.space(bad.id).wait_until_ready()
        alice.add(alice.space(good.id), title="Milk")


async def test_closing_a_space_while_documents_arrive_harms_nobody() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        for number in range(100):
            alice.add(space, number=number)
        theirs = bob.accept(alice, space)
        for pause_s in (0.004, 0.006, 0.01, 0.03):
            await anyio.sleep(pause_s)
            await bob.peer.spaces.set_active(space.id, False)
            await bob.peer.spaces.set_active(space.id, True)
        with anyio.fail_after(60):
            await theirs.wait_until_ready()
        assert len(await agreed(space, alice, bob)) == 101


async def test_an_unknown_space_is_an_error() -> None:
    async with simulated_hosts("alice") as (alice,):
        with pytest.raises(SpaceNotFoundError):
            alice.peer.spaces.get("B" + "A" * 32)
        with pytest.raises(SpaceNotFoundError):
            await alice.peer.spaces.set_active("B" + "A" * 32, True)


async def test_a_full_disk_at_a_guest_ends_the_connection_and_later_all_arrives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        received = type(bob.peer.documents).received

        def full(*arguments: object) -> None:
            raise StorageFullError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(type(bob.peer.documents), "received", full)
            milk = alice.add(space, title="Milk")
            await anyio.sleep(20)
            assert bob.data(space, milk) is None
            assert bob.space(space.id).state is State.READY, "reading goes on"
        assert type(bob.peer.documents).received is received
        await until(lambda: bob.data(space, milk) == {"title": "Milk"})


async def test_the_key_of_a_space_is_forgotten_even_if_its_maker_died_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with simulated_hosts("alice", folder=tmp_path) as (alice,):
        with monkeypatch.context() as patched:
            patched.setattr(Keyring, "delete", lambda *_: False)  # As if it had come no further.
            space = await alice.create_space()
        assert alice.peer.profile.keyring.has(space.key)
        await alice.kill()
        await alice.start()
        assert not alice.peer.profile.keyring.has(space.key)
        await alice.space(space.id).wait_until_ready()
        assert not alice.peer.profile.keyring.has((await alice.create_space()).key)
