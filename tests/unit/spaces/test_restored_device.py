"""A device restored from an older backup takes up again what it has written since."""

import shutil
from pathlib import Path

import pytest

from dxos.store.backup import restore_backup, write_backup
from dxos.testing.peers import agreed, simulated_hosts

pytestmark = pytest.mark.anyio
SECRET = "correct horse"


def quiet(done: int, total: int) -> None:
    """Nobody wants to know."""


async def test_a_device_restored_from_an_older_backup_learns_from_members_what_it_wrote_since(tmp_path: Path) -> None:
    async with simulated_hosts("alice", "bob", "carol", folder=tmp_path) as (alice, bob, carol):
        space = await alice.create_space()
        alice.add(space, title="Milk")
        write_backup(tmp_path / "alice", tmp_path / "file", SECRET, quiet, now_ms=5, cost_log2=4)
        await bob.join(alice, space)
        late = alice.add(space, title="late")
        written = len(space.pipeline.state.members)
        await agreed(space, alice, bob)
        await alice.stop()
        shutil.rmtree(tmp_path / "alice")
        restore_backup(tmp_path / "file", tmp_path / "alice", SECRET, quiet)
        await alice.start()
        space = alice.peer.spaces.get(space.id)
        await space.wait_until_ready()
        assert len(space.pipeline.state.members) < written
        await agreed(space, alice, bob)
        assert alice.data(space, late) == {"title": "late"}
        assert len(space.pipeline.state.members) == written
        # It goes on where it was, in the same feed, and the others follow.
        await carol.join(alice, space)
        await agreed(space, alice, bob, carol)
        assert len(bob.peer.spaces.get(space.id).pipeline.state.members) == written + 1
