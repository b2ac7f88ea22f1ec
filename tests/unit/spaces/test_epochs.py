"""New epochs: who follows them, what peers that were away bring along, and what is given up."""

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from dxos.echo import layout
from dxos.echo.mutation import Put, SetDeleted
from dxos.errors import NotAllowedError, StorageFullError
from dxos.halo.roles import SpaceRole
from dxos.spaces.space import Space
from dxos.testing.peers import Host, agreed, simulated_hosts, until

pytestmark = pytest.mark.anyio


async def following(space: Space, *hosts: Host) -> None:
    """Wait until all hosts have the space's present root and nothing to take over."""
    await until(
        lambda: all(
            host.peer.documents.has_root(space.id)
            and host.space(space.id).root_id == space.root_id
            and not host.space(space.id).epochs.is_due
            for host in hosts
        )
    )
    await agreed(space, *hosts)


def root_bytes(host: Host, space: Space) -> int:
    assert space.root_id is not None
    size = host.peer.profile.documents.size(space.root_id)
    assert size is not None
    return size.snapshot_bytes + size.chunk_bytes


async def test_a_new_epoch_keeps_the_objects_and_drops_the_history_of_the_root() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space(name="Groceries")
        await bob.join(alice, space)
        milk, *_ = [alice.add(space, title=f"Milk {number}") for number in range(20)]
        name = alice.peer.documents.properties_id(space.id)
        assert name is not None
        for number in range(50):
            alice.edit(space, name, Put(("name",), f"Groceries {number}"))
        await agreed(space, alice, bob)
        old_root, old_bytes = space.root_id, root_bytes(alice, space)
        await space.create_epoch()
        assert space.root_id != old_root
        assert space.pipeline.state.current_epoch is not None
        assert space.pipeline.state.current_epoch.number == 1
        assert root_bytes(alice, space) < old_bytes
        await following(space, alice, bob)
        assert bob.data(space, milk) == {"title": "Milk 0"}
        assert bob.peer.documents.stored_name(space.id) == "Groceries 49"
        # Both write to the new root.
        bread, cheese = alice.add(space, title="Bread"), bob.add(space, title="Cheese")
        bob.edit(space, name, Put(("name",), "Food"))
        await agreed(space, alice, bob)
        assert alice.data(space, cheese) == {"title": "Cheese"}
        assert bob.data(space, bread) == {"title": "Bread"}
        assert alice.peer.documents.properties_id(space.id) == name
        assert alice.peer.documents.stored_name(space.id) == "Food"


async def test_a_peer_that_was_away_loses_nothing_that_it_added_edited_or_renamed(tmp_path: Path) -> None:
    async with simulated_hosts("alice", "bob", "carol", folder=tmp_path) as (alice, bob, carol):
        space = await alice.create_space(name="Groceries")
        milk = alice.add(space, title="Milk")
        for guest in (bob, carol):
            await guest.join(alice, space)
        await agreed(space, alice, bob, carol)
        bob.sever(alice, carol)
        bread = bob.add(space, title="Bread")
        bob.edit(space, milk, Put(("title",), "Oat milk"))
        name = bob.peer.documents.properties_id(space.id)
        assert name is not None
        bob.edit(space, name, Put(("name",), "Groceries and more"))
        alice.edit(space, name, Put(("icon",), "cart"))
        await space.create_epoch()
        eggs = alice.add(space, title="Eggs")
        await following(space, alice, carol)
        bob.mend(alice, carol)
        await following(space, alice, bob, carol)
        for host in (alice, bob, carol):
            assert host.data(space, bread) == {"title": "Bread"}
            assert host.data(space, milk) == {"title": "Oat milk"}
            assert host.data(space, eggs) == {"title": "Eggs"}
            # Each of the three took the new name over, and it is there once.
            assert host.data(space, name) == {"name": "Groceries and more", "icon": "cart"}
            root = host.peer.documents.load(space.root_id or "")
            assert {milk, bread, eggs} <= layout.links(root).keys()
        # A restart does not take anything over again.
        alice.edit(space, name, Put(("name",), "Food"))
        await agreed(space, alice, bob, carol)
        await bob.stop()
        await bob.start()
        await bob.space(space.id).wait_until_ready()
        await following(space, alice, bob, carol)
        assert bob.peer.documents.stored_name(space.id) == "Food"


async def test_deleted_objects_are_given_up_everywhere_and_do_not_come_back() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        await bob.join(alice, space)
        milk, bread = alice.add(space, title="Milk"), alice.add(space, title="Bread")
        alice.edit(space, milk, SetDeleted(True))
        await agreed(space, alice, bob)
        assert alice.space(space.id).epochs.sizes().deleted_count == 1
        await space.create_epoch()
        await following(space, alice, bob)
        await anyio.sleep(120)
        for host in (alice, bob):
            sizes = host.space(space.id).epochs.sizes()
            assert (sizes.deleted_count, sizes.reclaimed_count) == (0, 1)
            assert host.peer.documents.get(space.id, [milk]) == []
            assert host.data(space, bread) == {"title": "Bread"}
        assert space.synced
        assert bob.space(space.id).synced


async def test_an_edit_of_an_object_that_others_deleted_meanwhile_is_kept_and_it_stays_deleted() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        await bob.join(alice, space)
        milk = alice.add(space, title="Milk")
        await agreed(space, alice, bob)
        bob.sever(alice)
        bob.edit(space, milk, Put(("title",), "Oat milk"))
        alice.edit(space, milk, SetDeleted(True))
        await space.create_epoch()
        assert alice.peer.documents.get(space.id, [milk]) == []
        bob.mend(alice)
        await until(lambda: bool(alice.peer.documents.get(space.id, [milk])))
        await until(lambda: bob.space(space.id).root_id == space.root_id)
        await anyio.sleep(120)
        (found,) = alice.peer.documents.get(space.id, [milk])
        assert found.row.deleted
        assert found.row.data == {"title": "Oat milk"}
        assert bob.data(space, milk) is None


async def test_what_changes_while_an_epoch_is_being_made_is_in_it() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space(name="Groceries")
        milk, bread, eggs = [alice.add(space, title=one) for one in ("Milk", "Bread", "Eggs")]
        for one in (milk, bread):
            alice.edit(space, one, SetDeleted(True))
        name = alice.peer.documents.properties_id(space.id)
        assert name is not None
        old_root = space.root_id
        added: list[str] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(space.create_epoch)
            while True:
                await anyio.lowlevel.checkpoint()
                if space.root_id != old_root:
                    break
                added.append(alice.add(space, title=f"Cheese {len(added)}"))
                if len(added) == 3:
                    alice.edit(space, bread, SetDeleted(False))
                    alice.edit(space, name, Put(("name",), "Food"))
        assert len(added) > 3, "the epoch was made in one turn"
        await following(space, alice)
        root = alice.peer.documents.load(space.root_id or "")
        assert layout.links(root).keys() == {bread, eggs, *added}
        assert alice.data(space, bread) == {"title": "Bread"}
        assert alice.peer.documents.get(space.id, [milk]) == []
        assert alice.peer.documents.stored_name(space.id) == "Food"


async def test_two_epochs_of_one_host_begun_at_once_follow_each_other() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(space.create_epoch)
            tasks.start_soon(space.create_epoch)
        assert space.pipeline.state.current_epoch is not None
        assert space.pipeline.state.current_epoch.number == 2
        assert layout.links(alice.peer.documents.load(space.root_id or "")).keys() == {milk}


async def test_two_epochs_begun_at_once_end_in_one_with_everything() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space(name="Groceries")
        theirs = await bob.join(alice, space)
        await agreed(space, alice, bob)
        await until(lambda: theirs.pipeline.can_write)
        alice.sever(bob)
        await space.create_epoch()
        await theirs.create_epoch()
        milk, bread = alice.add(space, title="Milk"), bob.add(space, title="Bread")
        alice.mend(bob)
        await following(space, alice, bob)
        assert space.root_id == theirs.root_id
        for host in (alice, bob):
            assert host.data(space, milk) == {"title": "Milk"}
            assert host.data(space, bread) == {"title": "Bread"}
            root = host.peer.documents.load(space.root_id or "")
            assert {milk, bread} <= layout.links(root).keys()


async def test_roots_that_no_epoch_needs_are_given_up() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space(name="Groceries")
        roots = [space.root_id]
        for _ in range(4):
            await space.create_epoch()
            roots.append(space.root_id)
        kept = alice.peer.documents.documents(space.id)
        assert [root in kept for root in roots] == [False, False, True, True, True]
        assert alice.peer.documents.stored_name(space.id) == "Groceries"


async def test_an_epoch_for_which_there_is_no_room_leaves_nothing(tmp_path: Path) -> None:
    async with simulated_hosts("alice", folder=tmp_path) as (alice,):
        space = await alice.create_space()
        objects = [alice.add(space, title=f"Item {number}") for number in range(300)]
        before = space.root_id, alice.peer.documents.documents(space.id)
        database = alice.peer.profile.database
        database.rows("PRAGMA max_page_count = 1")  # As many as there are.
        with pytest.raises(StorageFullError):
            await space.create_epoch()
        assert (space.root_id, alice.peer.documents.documents(space.id)) == before
        database.rows("PRAGMA max_page_count = 1000000")
        bread = alice.add(space, title="Bread")
        await space.create_epoch()
        assert layout.links(alice.peer.documents.load(space.root_id or "")).keys() == {*objects, bread}


async def test_a_reader_begins_no_epoch() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        theirs = await bob.join(alice, space, role=SpaceRole.READER)
        await until(lambda: theirs.pipeline.can_write)
        with pytest.raises(NotAllowedError):
            await theirs.create_epoch()


async def test_compaction_leaves_one_snapshot_of_each_document_and_a_smaller_file(tmp_path: Path) -> None:
    async with simulated_hosts("alice", folder=tmp_path) as (alice,):
        space = await alice.create_space()
        objects = [alice.add(space, title=f"Item {number}", note="x" * 200) for number in range(200)]
        for one in objects:
            alice.edit(space, one, Put(("done",), True))
        for one in objects[:100]:
            alice.edit(space, one, SetDeleted(True))
        database = alice.peer.profile.database
        before_bytes = database.file_bytes
        await space.create_epoch()
        told: list[tuple[int, int]] = []
        await space.compact(lambda done, total: told.append((done, total)))
        assert told == sorted(told)
        assert told[-1] == (100, 100)  # The root of the epoch was compact already.
        sizes = space.epochs.sizes()
        assert sizes.chunks_count == 0
        assert sizes.reclaimed_count == 100
        assert database.free_bytes == 0
        assert database.file_bytes < before_bytes
        assert alice.data(space, objects[150]) == {"title": "Item 150", "note": "x" * 200, "done": True}
