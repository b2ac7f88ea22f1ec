"""Spaces of several hosts on the jumping clock: they converge, whatever the network and the hosts do meanwhile."""

import random as randomness
from pathlib import Path

import anyio
import pytest

from dxos.echo.mutation import Insert, Put, SetDeleted, Splice
from dxos.errors import AlreadyJoinedError, NotAllowedError, ObjectNotFoundError
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import swarm_topic
from dxos.spaces.doctor import examine_folder
from dxos.spaces.space import Space, State
from dxos.testing.peers import Host, agreed, simulated_hosts, until
from dxos.wire import to_key
from dxos.wire.proto.credentials_pb2 import ProfileDocument, SpaceMember

pytestmark = pytest.mark.anyio
slow = pytest.mark.slow


# --- Convergence ----------------------------------------------------------------


async def test_a_guest_sees_what_the_host_has_and_the_host_what_the_guest_writes() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space(name="Groceries")
        milk = alice.add(space, title="Milk", tags=["dairy"])
        await bob.join(alice, space)
        await until(lambda: bob.data(space, milk) is not None)
        bob.edit(space, milk, Put(("title",), "Oat milk"))
        bread = bob.add(space, title="Bread")
        replica = await agreed(space, alice, bob)
        assert replica[milk][0].data == {"title": "Oat milk", "tags": ["dairy"]}
        assert replica[bread][0].data == {"title": "Bread"}


async def test_a_late_joiner_gets_everything_from_a_guest_while_the_owner_is_away(tmp_path: Path) -> None:
    async with simulated_hosts("alice", "bob", "carol", folder=tmp_path) as (alice, bob, carol):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        carol.accept(alice, space)
        await until(lambda: bob.space(space.id).is_member(carol.identity_key))
        await alice.stop()
        with anyio.fail_after(120):
            await carol.space(space.id).wait_until_ready()
        await until(lambda: carol.data(space, milk) == {"title": "Milk"})


async def test_a_space_that_lost_rows_says_so_when_it_is_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with simulated_hosts("alice", folder=tmp_path) as (alice,):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        await alice.stop()
        await alice.start()
        await alice.space(space.id).wait_until_ready()
        assert "dx doctor" not in caplog.text
        alice.peer.profile.objects.remove(space.id, [milk])
        await alice.stop()
        await alice.start()
        await alice.space(space.id).wait_until_ready()
        assert f"queries of space {space.id} miss objects that are here; mend it: dx doctor --repair" in caplog.text
        await alice.stop()
        assert [one.code for one in (await examine_folder(tmp_path / "alice", repair=True)).findings] == ["row.missing"]
        await alice.start()
        await alice.space(space.id).wait_until_ready()
        assert alice.data(alice.space(space.id), milk) == {"title": "Milk"}


@slow
async def test_eight_hosts_agree() -> None:
    names = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
    async with simulated_hosts(*names) as hosts:
        alice, *guests = hosts
        space = await alice.create_space()
        for guest in guests:
            guest.accept(alice, space)
        with anyio.fail_after(300):
            for guest in guests:
                await guest.space(space.id).wait_until_ready()
        for host in hosts:
            host.add(space, by=host.name)
        replica = await agreed(space, *hosts, timeout_s=300)
        assert {row.data.get("by") for row, _ in replica.values()} >= set(names)


@slow
async def test_edits_on_both_sides_of_a_partition_meet_when_it_heals() -> None:
    async with simulated_hosts("alice", "bob", "carol") as (alice, bob, carol):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk", count=1)
        for guest in (bob, carol):
            await guest.join(alice, space)
        await agreed(space, alice, bob, carol)
        carol.sever(alice, bob)
        alice.edit(space, milk, Put(("count",), 2))
        carol.edit(space, milk, Put(("title",), "Oat milk"))
        bread = carol.add(space, title="Bread")
        await agreed(space, alice, bob)
        assert bob.data(space, bread) is None
        carol.mend(alice, bob)
        replica = await agreed(space, alice, bob, carol)
        assert replica[milk][0].data == {"title": "Oat milk", "count": 2}
        assert replica[bread][0].data == {"title": "Bread"}


async def test_what_is_written_while_offline_arrives_afterwards() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        await bob.peer.network.set_online(False)
        bob.edit(space, milk, Put(("title",), "Oat milk"))
        alice.edit(space, milk, Put(("done",), True))
        await anyio.sleep(60)
        assert alice.data(space, milk) == {"title": "Milk", "done": True}
        await bob.peer.network.set_online(True)
        assert (await agreed(space, alice, bob))[milk][0].data == {"title": "Oat milk", "done": True}


async def test_concurrent_edits_of_one_field_end_in_one_value_and_of_one_list_in_both() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk", tags=["dairy"])
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        bob.sever(alice)
        for host in (alice, bob):
            host.edit(space, milk, Put(("owner",), host.name), Insert(("tags",), 1, (host.name,)))
        bob.mend(alice)
        data = (await agreed(space, alice, bob))[milk][0].data
        assert data["owner"] in ("alice", "bob")
        assert sorted(data["tags"]) == ["alice", "bob", "dairy"]


async def test_a_deletion_on_one_side_and_an_edit_on_the_other_are_both_kept() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        bob.sever(alice)
        alice.edit(space, milk, SetDeleted(True))
        bob.edit(space, milk, Put(("title",), "Oat milk"))
        bob.mend(alice)
        row, _ = (await agreed(space, alice, bob))[milk]
        assert row.deleted
        assert row.data == {"title": "Oat milk"}
        assert bob.data(space, milk) is None


@slow
async def test_two_hundred_objects_and_a_long_text_arrive() -> None:
    text = "".join(randomness.Random(1).choices("abcdefgh \nß€", k=250_000))
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        for number in range(200):
            alice.add(space, number=number)
        book = alice.add(space, text=text)
        await bob.join(alice, space)
        assert len(await agreed(space, alice, bob)) == 202
        assert bob.data(space, book) == {"text": text}
        bob.edit(space, book, Splice(("text",), 10, 5, "Hello"))
        replica = await agreed(space, alice, bob)
        assert replica[book][0].data == {"text": text[:10] + "Hello" + text[15:]}


async def test_both_restart_from_disk_and_still_agree(tmp_path: Path) -> None:
    async with simulated_hosts("alice", "bob", folder=tmp_path) as (alice, bob):
        space = await alice.create_space(name="Groceries")
        milk = alice.add(space, title="Milk")
        await bob.join(alice, space)
        before = await agreed(space, alice, bob)
        await alice.stop()
        await bob.stop()
        await bob.start()
        with anyio.fail_after(1):
            await bob.space(space.id).wait_until_ready()  # From its own disk, alone.
        assert bob.replica(space) == before
        bob.edit(space, milk, Put(("title",), "Oat milk"))
        await alice.start()
        assert (await agreed(space, alice, bob))[milk][0].data == {"title": "Oat milk"}


@slow
@pytest.mark.parametrize("moment_s", [0.0, 0.002, 0.005, 0.01, 0.03, 0.1])
async def test_a_guest_killed_while_it_synchronizes_goes_on_from_where_it_was(tmp_path: Path, moment_s: float) -> None:
    async with simulated_hosts("alice", "bob", folder=tmp_path) as (alice, bob):
        space = await alice.create_space()
        for number in range(60):
            alice.add(space, number=number)
        bob.accept(alice, space)
        await anyio.sleep(moment_s)
        await bob.kill()
        await bob.start()
        with anyio.fail_after(120):
            await bob.space(space.id).wait_until_ready()
        assert len(await agreed(space, alice, bob)) == 61
        assert bob.rows_of_documents(space) == {key: row for key, (row, _) in bob.replica(space).items()}


async def test_peers_meet_again_after_the_signalling_server_was_gone() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        network = alice._world.network
        network.is_up = False
        alice.sever(bob)
        milk = alice.add(space, title="Milk")
        alice.mend(bob)
        await anyio.sleep(120)
        assert bob.data(space, milk) is None
        network.is_up = True
        await until(lambda: bob.data(space, milk) is not None, timeout_s=300)


async def test_all_know_when_nothing_is_left_to_send() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        await bob.join(alice, space)
        alice.add(space, title="Milk")
        await agreed(space, alice, bob)
        await until(lambda: alice.space(space.id).synced and bob.space(space.id).synced)


# --- Members ----------------------------------------------------------------


async def _three(alice: Host, bob: Host, carol: Host) -> str:
    """All three in one space, and each able to write credentials."""
    space = await alice.create_space()
    for guest in (bob, carol):
        await guest.join(alice, space)
    await agreed(space, alice, bob, carol)
    await until(lambda: all(host.space(space.id).pipeline.can_write for host in (alice, bob, carol)))
    return space.id


@slow
async def test_a_removed_member_loses_its_connections_everywhere_and_gets_no_new_ones() -> None:
    async with simulated_hosts("alice", "bob", "carol") as (alice, bob, carol):
        space = alice.space(await _three(alice, bob, carol))
        await until(lambda: len(carol.space(space.id).connections) == 2)
        space.change_role(carol.identity_key, SpaceRole.REMOVED)
        await until(lambda: carol.device_key not in space.connections)
        await until(lambda: carol.device_key not in bob.space(space.id).connections)
        milk = alice.add(space, title="secret")
        carol.add(space, title="from outside")
        await anyio.sleep(300)
        assert carol.data(space, milk) is None
        for host in (alice, bob):
            assert carol.device_key not in host.space(space.id).connections
            assert all(row.data.get("title") != "from outside" for row, _ in host.replica(space).values())


async def test_a_removed_member_that_restarts_is_refused_by_hosts_that_restarted_too(tmp_path: Path) -> None:
    async with simulated_hosts("alice", "bob", folder=tmp_path) as (alice, bob):
        space = await alice.create_space()
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        space.change_role(bob.identity_key, SpaceRole.REMOVED)
        await alice.stop()
        await bob.stop()
        await alice.start()
        await alice.space(space.id).wait_until_ready()
        milk = alice.add(space, title="secret")
        await bob.start()
        await anyio.sleep(200)
        assert bob.data(space, milk) is None
        assert alice.space(space.id).connections == {}


async def test_a_removed_member_that_is_admitted_again_takes_part_again() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        await bob.join(alice, space)
        bob_key = bob.identity_key
        await agreed(space, alice, bob)
        space.change_role(bob_key, SpaceRole.REMOVED)
        await until(lambda: not space.connections)
        milk = alice.add(space, title="Milk")
        await anyio.sleep(60)
        assert bob.data(space, milk) is None
        space.change_role(bob_key, SpaceRole.EDITOR)
        await until(lambda: bob.data(space, milk) == {"title": "Milk"}, timeout_s=300)


async def test_a_reader_reads_and_its_changes_are_dropped_and_counted() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        await bob.join(alice, space, role=SpaceRole.READER)
        await until(lambda: bob.data(space, milk) is not None)
        # As a peer of another make would, which does not ask for the role before it writes.
        bob.edit(space, milk, Put(("title",), "Vandalised"))
        bob.add(space, title="Spam")
        await until(lambda: space.refused_changes >= 1)
        alice.edit(space, milk, Put(("count",), 2))
        await until(lambda: (bob.data(space, milk) or {}).get("count") == 2)
        await anyio.sleep(60)
        assert alice.data(space, milk) == {"title": "Milk", "count": 2}
        assert len(alice.replica(space)) == 2


async def test_a_member_made_a_reader_cannot_write_from_then_on() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        space.change_role(bob.identity_key, SpaceRole.READER)
        bob.edit(space, milk, Put(("title",), "Too late"))
        await until(lambda: space.refused_changes == 1)
        assert alice.data(space, milk) == {"title": "Milk"}
        await until(lambda: bob.space(space.id).role is SpaceRole.READER)


async def test_only_admins_change_roles_nobody_the_own_and_nobody_the_owners() -> None:
    async with simulated_hosts("alice", "bob", "carol") as (alice, bob, carol):
        space = alice.space(await _three(alice, bob, carol))
        theirs = bob.space(space.id)
        with pytest.raises(NotAllowedError):
            theirs.change_role(carol.identity_key, SpaceRole.REMOVED)
        space.change_role(bob.identity_key, SpaceRole.ADMIN)
        await until(lambda: theirs.role is SpaceRole.ADMIN)
        blocks = theirs.pipeline.timeframe
        with pytest.raises(NotAllowedError):
            theirs.change_role(alice.identity_key, SpaceRole.EDITOR)
        with pytest.raises(NotAllowedError):
            theirs.change_role(bob.identity_key, SpaceRole.OWNER)
        with pytest.raises(NotAllowedError):
            theirs.change_role(carol.identity_key, SpaceRole.OWNER)
        with pytest.raises(ObjectNotFoundError):
            theirs.change_role(PublicKey(b"\4" + bytes(64)), SpaceRole.READER)
        assert theirs.pipeline.timeframe == blocks, "what is refused is not written"
        theirs.change_role(carol.identity_key, SpaceRole.READER)
        await until(lambda: carol.space(space.id).role is SpaceRole.READER)


# --- Strangers ----------------------------------------------------------------


def name_of(member: Host, seen_by: Host, space: Space) -> str:
    found = seen_by.space(space.id).pipeline.state.member(member.identity_key)
    assert found is not None
    assert found.profile is not None
    return found.profile.display_name


async def test_a_new_name_is_seen_in_every_space_and_written_once() -> None:
    async with simulated_hosts("alice", "bob", "carol") as (alice, bob, carol):
        one, two = await alice.create_space(name="One"), await alice.create_space(name="Two")
        await bob.join(alice, one)
        await bob.join(alice, two)
        await carol.join(alice, one)
        await agreed(one, alice, bob, carol)
        await bob.peer.update_profile(ProfileDocument(display_name="Robert"))
        for host, space in ((alice, one), (carol, one), (alice, two)):
            await until(lambda host=host, space=space: name_of(bob, host, space) == "Robert")  # type: ignore[misc]
        written = len(bob.space(one.id).pipeline.state.credentials)
        bob.space(one.id).publish_profile()
        assert len(bob.space(one.id).pipeline.state.credentials) == written
        assert name_of(alice, bob, one) == name_of(alice, alice, one)


async def test_a_name_that_changed_while_the_space_was_closed_is_told_when_it_opens(tmp_path: Path) -> None:
    async with simulated_hosts("alice", "bob", folder=tmp_path) as (alice, bob):
        space = await alice.create_space(name="Groceries")
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        await bob.peer.spaces.set_active(space.id, False)
        await bob.peer.update_profile(ProfileDocument(display_name="Robert"))
        await bob.stop()
        await bob.start()
        assert name_of(bob, alice, space) != "Robert"
        await bob.peer.spaces.set_active(space.id, True)
        await until(lambda: name_of(bob, alice, space) == "Robert")


async def test_a_guest_renamed_before_its_feed_was_admitted_is_renamed_later() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space(name="Groceries")
        alice.sever(bob)
        joined = bob.accept(alice, space)
        await bob.peer.update_profile(ProfileDocument(display_name="Robert"))
        assert not joined.pipeline.can_write
        alice.mend(bob)
        await until(lambda: joined.pipeline.can_write and name_of(bob, alice, space) == "Robert")


async def test_a_stranger_who_knows_topic_and_keys_gets_nothing() -> None:
    async with simulated_hosts("alice", "mallory") as (alice, mallory):
        space = await alice.create_space()
        alice.add(space, title="secret")
        # An admission that nobody of the space signed: only Mallory's own host believes it.
        theirs = mallory.peer.spaces.accept(
            SpaceMember(
                space_key=to_key(space.key), role="ADMIN", genesis_feed_key=to_key(space.record.genesis_feed_key)
            )
        )
        await anyio.sleep(200)
        assert swarm_topic(space.key) in alice.peer.network.swarms
        assert theirs.state is not State.READY
        assert all(log.length == 0 for log in theirs.pipeline.feeds.values())
        assert mallory.replica(space) == {}
        assert space.connections == {}


async def test_nobody_joins_a_space_twice() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        bob.accept(alice, space)
        with pytest.raises(AlreadyJoinedError):
            bob.accept(alice, space)
