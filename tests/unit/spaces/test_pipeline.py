"""The control pipeline: order, what is refused, and what a rolled back transaction leaves."""

from contextlib import suppress

import pytest

from dxos.errors import DeadlineError, NotAllowedError
from dxos.feed.log import Log
from dxos.halo.feed_message import encode_feed_message
from dxos.halo.issuer import Issuer
from dxos.halo.roles import FeedDesignation, SpaceRole
from dxos.keys import PublicKey
from dxos.spaces.pipeline import ControlPipeline
from dxos.spaces.space import Space
from dxos.testing.peers import Host, agreed, simulated_hosts, until, virtual_ms
from dxos.wire.proto.credentials_pb2 import Credential

pytestmark = pytest.mark.anyio


def _read_again(host: Host, space: Space) -> ControlPipeline:
    """Another reading of what a host has on its disk."""
    again = ControlPipeline(
        space.key,
        space.record.genesis_feed_key,
        open_storage=host.peer.profile.feeds.open_in,
        signer=host.peer.profile.keyring,
    )
    again.advance()
    return again


def _own_log(host: Host, space: Space) -> Log:
    """The feed of a host as a host would write it that asks nobody."""
    key = host.space(space.id).record.control_feed_key
    return host.space(space.id).pipeline.feeds[key]


async def test_all_members_read_one_state_from_all_feeds_and_so_does_who_reads_the_disk_again() -> None:
    async with simulated_hosts("alice", "bob", "carol") as (alice, bob, carol):
        space = await alice.create_space()
        await bob.join(alice, space, role=SpaceRole.ADMIN)
        theirs = bob.space(space.id)
        await until(lambda: theirs.pipeline.can_write)
        await carol.join(bob, theirs)
        await until(lambda: carol.space(space.id).pipeline.can_write)
        await agreed(space, alice, bob, carol)
        spaces = [host.space(space.id) for host in (alice, bob, carol)]
        await until(lambda: len({repr(sorted(one.pipeline.timeframe.items())) for one in spaces}) == 1)
        for host in (alice, bob, carol):
            again = _read_again(host, space)
            assert again.state.members == host.space(space.id).pipeline.state.members == space.pipeline.state.members
            assert again.control_feeds == host.space(space.id).pipeline.control_feeds
            assert again.timeframe == space.pipeline.timeframe


async def test_blocks_that_mean_nothing_are_skipped_and_forged_credentials_change_nothing() -> None:
    async with simulated_hosts("alice", "bob", "mallory") as (alice, bob, mallory):
        space = await alice.create_space()
        await bob.join(alice, space)
        theirs = bob.space(space.id)
        await until(lambda: theirs.pipeline.can_write)
        members = dict(space.pipeline.state.members)
        log, keyring = _own_log(bob, space), bob.peer.profile.keyring
        seen = tuple(theirs.pipeline.timeframe.items())

        def member(subject: PublicKey, role: SpaceRole) -> Credential:
            return Issuer.by_device(keyring, bob.peer.identity.required.chain).space_member(
                subject,
                role,
                space_key=space.key,
                genesis_feed_key=space.record.genesis_feed_key,
                now_ms=virtual_ms(),
                parents=space.pipeline.state.member_heads,
            )

        tampered = member(mallory.identity_key, SpaceRole.ADMIN)
        tampered.issuer.CopyFrom(space.pipeline.state.credentials[0].issuer)
        for block in (
            b"",
            b"\xff" * 100,
            encode_feed_message(member(bob.identity_key, SpaceRole.ADMIN), seen),  # Promotes itself.
            encode_feed_message(member(mallory.identity_key, SpaceRole.EDITOR), seen),  # An editor admits nobody.
            encode_feed_message(member(alice.identity_key, SpaceRole.REMOVED), seen),
            encode_feed_message(tampered, seen),
            encode_feed_message(space.pipeline.state.credentials[0], seen),  # The genesis once more.
        ):
            log.append(block, keyring)
            theirs.pipeline.appended.emit((log, log.length - 1))
        await until(lambda: space.pipeline.timeframe.get(log.key, -1) == log.length - 1)
        assert {key: one.role for key, one in space.pipeline.state.members.items()} == {
            key: one.role for key, one in members.items()
        }
        bob.add(space, title="The space goes on")
        await agreed(space, alice, bob)


async def test_a_block_that_waits_for_a_feed_of_nobody_stalls_its_own_feed_only() -> None:
    async with simulated_hosts("alice", "bob", "carol") as (alice, bob, carol):
        space = await alice.create_space()
        await bob.join(alice, space)
        await until(lambda: bob.space(space.id).pipeline.can_write)
        log = _own_log(bob, space)
        credential = space.pipeline.state.credentials[0]
        unknown = PublicKey(b"\4" + bytes(64))
        log.append(encode_feed_message(credential, ((unknown, 7),)), bob.peer.profile.keyring)
        bob.space(space.id).pipeline.appended.emit((log, log.length - 1))
        await carol.join(alice, space)
        await until(lambda: carol.space(space.id).pipeline.can_write)


async def test_nothing_is_written_before_the_feed_is_there() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space()
        again = _read_again(alice, space)
        assert not again.can_write
        with pytest.raises(NotAllowedError):
            again.write(space.pipeline.state.credentials[0])
        with pytest.raises(DeadlineError):
            await again.wait_for_timeframe(again.timeframe.replace(space.record.genesis_feed_key, 1_000), timeout_s=1.0)


async def test_after_a_transaction_was_undone_reading_again_forgets_what_it_held() -> None:
    async with simulated_hosts("alice") as (alice,):
        identity = alice.peer.identity.required
        pipeline = identity.pipeline
        before, blocks = len(pipeline.state.credentials), pipeline.timeframe
        with suppress(RuntimeError), alice.peer.profile.database.transaction():
            alice.peer.identity.update_profile(identity.profile)
            raise RuntimeError("something else failed")
        pipeline.reload()
        assert (len(pipeline.state.credentials), pipeline.timeframe) == (before, blocks)
        alice.peer.identity.update_profile(identity.profile)
        assert len(pipeline.state.credentials) == before + 1
        (log,) = pipeline.feeds.values()
        assert log.length == log.contiguous == before + 1


async def test_a_space_that_admits_a_feed_of_another_space_is_not_given_what_is_in_it() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        private, shared = await alice.create_space(), await bob.create_space()
        await alice.join(bob, shared)
        await until(lambda: alice.space(shared.id).pipeline.can_write)
        # Bob was in the private space once, knows its feed's key, and names it as one of his own in the shared one.
        feed_key = private.record.genesis_feed_key
        identity = bob.peer.identity.required
        credential = Issuer.by_device(bob.peer.profile.keyring, identity.chain).admitted_feed(
            feed_key,
            FeedDesignation.CONTROL,
            space_key=shared.key,
            identity_key=identity.identity_key,
            device_key=identity.device_key,
            now_ms=virtual_ms(),
        )
        shared.pipeline.write(credential)
        await until(lambda: feed_key in alice.space(shared.id).pipeline.feeds)
        assert private.pipeline.feeds[feed_key].length > 0
        assert alice.space(shared.id).pipeline.feeds[feed_key].length == 0
        alice.add(shared, title="The shared space goes on")
        await agreed(shared, alice, bob)
        assert shared.pipeline.feeds[feed_key].length == 0
