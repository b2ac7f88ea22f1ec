"""Notarization: a new device's feeds are admitted by whoever is there, and nothing else is written for anybody."""

import anyio
import pytest

from dxos.errors import LimitError, NotAllowedError, PeerError, ProofError
from dxos.halo.genesis import feed_admission
from dxos.halo.issuer import Issuer
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.limits import NOTARIZE_CREDENTIALS_MAX
from dxos.spaces.space import Space
from dxos.testing.peers import Host, simulated_hosts, until, virtual_ms
from dxos.wire.proto.credentials_pb2 import Credential

pytestmark = pytest.mark.anyio


def _feeds(host: Host, space_key: PublicKey) -> list[Credential]:
    """Credentials by which a host admits two new feeds of its own."""
    identity, keyring = host.peer.identity.required, host.peer.profile.keyring
    return list(
        feed_admission(
            Issuer.by_device(keyring, identity.chain),
            space_key=space_key,
            device_key=identity.device_key,
            control_feed_key=keyring.create(),
            data_feed_key=keyring.create(),
            now_ms=virtual_ms(),
        )
    )


async def test_a_guests_feeds_are_admitted_while_any_member_that_can_write_is_there() -> None:
    async with simulated_hosts("alice", "bob", "carol") as (alice, bob, carol):
        space = await alice.create_space()
        await bob.join(alice, space)
        await until(lambda: bob.space(space.id).pipeline.can_write)
        carol.sever(alice)
        theirs = carol.accept(alice, space)
        with anyio.fail_after(120):
            await theirs.wait_until_ready()
        await until(lambda: theirs.pipeline.can_write)
        await until(lambda: len(space.pipeline.control_feeds) == 3)


async def test_a_guest_that_finds_nobody_waits_and_is_admitted_later() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        bob.sever(alice)
        theirs = bob.accept(alice, space)
        await anyio.sleep(600)
        assert not theirs.pipeline.can_write
        with pytest.raises(NotAllowedError):
            theirs.check_may_admit()
        bob.mend(alice)
        await until(lambda: theirs.pipeline.can_write, timeout_s=300)


async def test_only_a_members_own_feeds_of_this_space_are_written_for_it() -> None:
    async with simulated_hosts("alice", "bob", "mallory") as (alice, bob, mallory):
        space, other = await alice.create_space(), await alice.create_space()
        space.admit(bob.identity_key, SpaceRole.READER)
        blocks = space.pipeline.timeframe
        membership = space.pipeline.state.members[bob.identity_key].credential
        tampered = _feeds(bob, space.key)[0]
        tampered.issuer.data = bytes(space.key)
        refused: list[tuple[list[Credential], type[Exception]]] = [
            (_feeds(mallory, space.key), ProofError),
            (_feeds(bob, other.key), NotAllowedError),
            ([_admission(bob, mallory, space)], NotAllowedError),
            ([tampered], PeerError),
            ([Credential()], PeerError),
            ([membership] * (NOTARIZE_CREDENTIALS_MAX + 1), LimitError),
        ]
        for credentials, error in refused:
            with pytest.raises(error):
                space.notarization.write(credentials)
        space.notarization.write([membership])  # Known already.
        assert space.pipeline.timeframe == blocks
        space.notarization.write(_feeds(bob, space.key))
        assert len(space.pipeline.control_feeds) == 2


def _admission(issuer: Host, subject: Host, space: Space) -> Credential:
    identity = issuer.peer.identity.required
    return Issuer.by_device(issuer.peer.profile.keyring, identity.chain).space_member(
        subject.identity_key,
        SpaceRole.ADMIN,
        space_key=space.key,
        genesis_feed_key=space.record.genesis_feed_key,
        now_ms=virtual_ms(),
        parents=space.pipeline.state.member_heads,
    )


async def test_one_member_cannot_fill_the_space_with_feeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dxos.spaces.notarization.NOTARIZE_FEEDS_MAX", 6)
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        space.admit(bob.identity_key, SpaceRole.READER)
        for _ in range(3):
            space.notarization.write(_feeds(bob, space.key))
        with pytest.raises(LimitError):
            space.notarization.write(_feeds(bob, space.key))
