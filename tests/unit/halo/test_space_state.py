"""Signed credentials of a data space and of a HALO space, as control feeds bring them."""

from itertools import permutations

import pytest
from halo_people import Ring

from dxos.errors import DecodeError, ProofError
from dxos.halo.devices import DeviceState
from dxos.halo.genesis import data_space_genesis, device_admission, feed_admission, halo_space_genesis
from dxos.halo.invitation import AuthMethod
from dxos.halo.issuer import Issuer
from dxos.halo.profile import ProfileState
from dxos.halo.roles import FeedDesignation, SpaceRole
from dxos.halo.space_state import Change, SpaceState
from dxos.keys import PublicKey
from dxos.wire.proto.credentials_pb2 import Credential, DeviceProfileDocument, ProfileDocument, SpaceGenesis

NOW = 1_740_000_000_000
ROOT = "automerge:2g49J9RqXBZTqs3mUJUGmCrBvm7n"


class Person:
    """An identity with one device."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.identity_key, self.device_key = ring.create(), ring.create()
        self.chain = Issuer(ring, self.identity_key).authorized_device(self.device_key, now_ms=NOW)
        self.issuer = Issuer.by_device(ring, self.chain)


class World:
    """Alice's space, and bob."""

    def __init__(self) -> None:
        self.ring = Ring()
        self.alice, self.bob = Person(self.ring), Person(self.ring)
        self.space_key, self.control, self.data = (self.ring.create() for _ in range(3))
        self.genesis = data_space_genesis(
            self.ring,
            space_key=self.space_key,
            chain=self.alice.chain,
            control_feed_key=self.control,
            data_feed_key=self.data,
            automerge_root=ROOT,
            now_ms=NOW,
            profile=ProfileDocument(display_name="alice"),
        )
        self.state = SpaceState(self.space_key)

    def process(self, *credentials: Credential) -> list[Change]:
        return [event.change for credential in credentials for event in self.state.process(credential, self.control)]

    def admit(self, guest: Person, role: SpaceRole = SpaceRole.ADMIN, *, by: Person | None = None) -> Credential:
        return (by or self.alice).issuer.space_member(
            guest.identity_key,
            role,
            space_key=self.space_key,
            genesis_feed_key=self.control,
            now_ms=NOW + len(self.state.credentials),
            parents=self.state.member_heads,
        )

    def delegate(
        self, *, multi_use: bool = False, expires_ms: int | None = None, by: Person | None = None
    ) -> Credential:
        return (by or self.alice).issuer.delegated_invitation(
            self.space_key,
            invitation_id="ab" * 32,
            auth_method=AuthMethod.KNOWN_PUBLIC_KEY,
            swarm_key=PublicKey(bytes(32)),
            role=SpaceRole.EDITOR,
            now_ms=NOW,
            guest_key=PublicKey(b"g" * 32),
            expires_ms=expires_ms,
            multi_use=multi_use,
        )

    def redeem(self, guest: Person, invitation: Credential) -> Credential:
        return self.alice.issuer.space_member(
            guest.identity_key,
            SpaceRole.EDITOR,
            space_key=self.space_key,
            genesis_feed_key=self.control,
            now_ms=NOW,
            parents=self.state.member_heads,
            invitation_credential_id=PublicKey(invitation.id.data),
        )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def space(world: World) -> World:
    world.process(*world.genesis)
    return world


def test_a_space_begins_with_its_genesis(world: World) -> None:
    assert world.process(*world.genesis) == [
        Change.GENESIS,
        Change.MEMBERS,
        Change.FEED,
        Change.FEED,
        Change.EPOCH,
    ]
    state = world.state
    alice = state.members[world.alice.identity_key]
    assert (alice.role, alice.profile and alice.profile.display_name) == (SpaceRole.OWNER, "alice")
    assert state.creator == world.alice.identity_key
    assert state.feeds_of(FeedDesignation.CONTROL) == (world.control,)
    assert state.feeds_of(FeedDesignation.DATA) == (world.data,)
    assert state.feeds[world.data].device_key == world.alice.device_key
    assert state.current_epoch is not None
    assert (state.current_epoch.number, state.current_epoch.automerge_root) == (0, ROOT)
    assert list(state.credentials) == world.genesis
    assert state.genesis == world.genesis[0]


def test_the_order_of_arrival_does_not_matter(world: World) -> None:
    for order in permutations(world.genesis):
        world.state = SpaceState(world.space_key)
        assert len(world.process(*order)) == len(world.genesis)
        assert world.state.role(world.alice.identity_key) is SpaceRole.OWNER
        assert set(world.state.feeds) == {world.control, world.data}
        assert world.state.current_epoch


def test_a_credential_counts_once(space: World) -> None:
    assert space.process(*space.genesis) == []
    assert len(space.state.credentials) == 5


def test_a_member_is_admitted_with_its_feeds(space: World) -> None:
    feed, data = space.ring.create(), space.ring.create()
    feeds = feed_admission(
        space.bob.issuer,
        space_key=space.space_key,
        device_key=space.bob.device_key,
        control_feed_key=feed,
        data_feed_key=data,
        now_ms=NOW,
    )
    space.process(*feeds)
    assert feed not in space.state.feeds
    space.process(space.admit(space.bob, SpaceRole.EDITOR))
    assert space.state.role(space.bob.identity_key) is SpaceRole.EDITOR
    assert {feed, data} <= set(space.state.feeds)


def test_the_feeds_of_a_removed_member_stay(space: World) -> None:
    space.process(space.admit(space.bob))
    feed = space.ring.create()
    space.process(
        space.bob.issuer.admitted_feed(
            feed,
            FeedDesignation.CONTROL,
            space_key=space.space_key,
            identity_key=space.bob.identity_key,
            device_key=space.bob.device_key,
            now_ms=NOW,
        )
    )
    space.process(space.admit(space.bob, SpaceRole.REMOVED))
    assert not space.state.is_member(space.bob.identity_key)
    assert feed in space.state.feeds


def test_a_stranger_cannot_admit_itself(space: World) -> None:
    space.process(space.admit(space.bob, by=space.bob))
    other = Person(space.ring)
    space.process(space.admit(other, by=space.bob))
    assert not space.state.is_member(space.bob.identity_key)
    assert not space.state.is_member(other.identity_key)


def test_a_second_genesis_is_refused(space: World) -> None:
    with pytest.raises(ProofError):
        space.process(Issuer(space.ring, space.space_key).space_genesis(now_ms=NOW + 1))


def test_a_genesis_of_another_key_is_refused(world: World) -> None:
    with pytest.raises(ProofError):
        world.process(Issuer(world.ring, world.alice.identity_key).space_genesis(now_ms=NOW))
    forged = world.alice.issuer.issue(world.space_key, SpaceGenesis(), now_ms=NOW)
    with pytest.raises(ProofError):
        world.process(forged)
    assert world.state.genesis is None


def test_an_altered_credential_is_refused(space: World) -> None:
    credential = space.admit(space.bob, SpaceRole.READER)
    credential.issuance_date.seconds += 1
    with pytest.raises(ProofError):
        space.process(credential)
    credential.ClearField("proof")
    with pytest.raises(DecodeError):
        space.process(credential)


def test_a_member_changes_its_own_profile_and_nobody_elses(space: World) -> None:
    space.process(space.admit(space.bob))
    space.process(space.bob.issuer.member_profile(ProfileDocument(display_name="bob"), now_ms=NOW + 9))
    member = space.state.member(space.bob.identity_key)
    assert member is not None
    assert member.profile is not None
    assert member.profile.display_name == "bob"
    space.process(space.bob.issuer.member_profile(ProfileDocument(display_name="old"), now_ms=NOW + 8))
    assert space.state.members[space.bob.identity_key].profile == member.profile


def test_the_epoch_with_the_highest_number_is_current(space: World) -> None:
    first = space.state.current_epoch
    assert first is not None
    space.process(
        space.alice.issuer.epoch(
            space.space_key,
            number=1,
            automerge_root="automerge:next",
            now_ms=NOW,
            previous_id=first.id,
            timeframe=[(space.control, 4)],
        )
    )
    epoch = space.state.current_epoch
    assert epoch is not None
    assert (epoch.number, epoch.previous_id, epoch.timeframe) == (1, first.id, ((space.control, 4),))
    space.process(space.bob.issuer.epoch(space.space_key, number=2, automerge_root="automerge:evil", now_ms=NOW))
    assert space.state.current_epoch == epoch


def test_an_invitation_is_delegated_and_redeemed_once(space: World) -> None:
    invitation = space.delegate()
    space.process(invitation)
    (known,) = space.state.delegated_invitations(NOW).values()
    assert (known.role, known.multi_use, known.guest_key) == (SpaceRole.EDITOR, False, PublicKey(b"g" * 32))
    space.process(space.admit(Person(space.ring)))
    assert space.state.delegated_invitations(NOW)
    space.process(space.redeem(space.bob, invitation))
    assert not space.state.delegated_invitations(NOW)


def test_a_delegated_invitation_redeemed_before_it_is_known_is_used(space: World) -> None:
    invitation = space.delegate()
    space.process(space.redeem(space.bob, invitation), invitation)
    assert not space.state.delegated_invitations(NOW)


def test_a_delegated_invitation_for_many_stays(space: World) -> None:
    invitation = space.delegate(multi_use=True)
    space.process(invitation, space.redeem(space.bob, invitation))
    assert space.state.delegated_invitations(NOW)


def test_a_delegated_invitation_expires(space: World) -> None:
    space.process(space.delegate(expires_ms=NOW + 1))
    assert space.state.delegated_invitations(NOW)
    assert not space.state.delegated_invitations(NOW + 1)


def test_a_delegated_invitation_is_cancelled_in_any_order_but_not_by_a_stranger(space: World) -> None:
    invitation = space.delegate()
    invitation_id = PublicKey(invitation.id.data)
    space.process(space.bob.issuer.cancel_delegated_invitation(space.space_key, invitation_id, now_ms=NOW), invitation)
    assert space.state.delegated_invitations(NOW)
    space.process(space.alice.issuer.cancel_delegated_invitation(space.space_key, invitation_id, now_ms=NOW))
    assert not space.state.delegated_invitations(NOW)


def test_a_stranger_cannot_delegate(space: World) -> None:
    space.process(space.delegate(by=space.bob))
    assert not space.state.delegated_invitations(NOW)


def test_an_identity_begins_with_its_own_space() -> None:
    ring = Ring()
    space_key, identity_key, first, second, control, data = (ring.create() for _ in range(6))
    credentials = halo_space_genesis(
        ring,
        space_key=space_key,
        identity_key=identity_key,
        device_key=first,
        control_feed_key=control,
        data_feed_key=data,
        now_ms=NOW,
        profile=ProfileDocument(display_name="alice"),
        device_profile=DeviceProfileDocument(label="desk"),
    )
    space, devices, profile = SpaceState(space_key), DeviceState(identity_key), ProfileState(identity_key)

    def process(*credentials: Credential) -> None:
        for credential in credentials:
            for event in space.process(credential, control):
                devices.process(event.credential)
                profile.process(event.credential)

    process(*credentials)
    assert [credential.subject.assertion.type_url.rpartition(".")[2] for credential in credentials] == [
        "SpaceGenesis",
        "SpaceMember",
        "AdmittedFeed",
        "AdmittedFeed",
        "IdentityProfile",
        "AuthorizedDevice",
        "DeviceProfile",
    ]
    assert profile.profile is not None
    assert profile.profile.display_name == "alice"
    chain = devices.chain(first)
    assert chain is not None
    issuer = Issuer.by_device(ring, chain)
    process(
        *device_admission(
            issuer,
            space_key=space_key,
            device_key=second,
            control_feed_key=ring.create(),
            data_feed_key=ring.create(),
            now_ms=NOW,
        )
    )
    assert [device.device_key for device in devices.devices] == [first, second]
    assert devices.devices[0].profile.label == "desk"
    # The second device speaks for the identity too, by a chain of two links.
    chain = devices.chain(second)
    assert chain is not None
    process(Issuer.by_device(ring, chain).default_space("B" + "A" * 32, now_ms=NOW))
    assert profile.default_space_id == "B" + "A" * 32
    stranger = ring.create()
    process(Issuer(ring, stranger).authorized_device(stranger, now_ms=NOW))
    assert not devices.is_authorized(stranger)
    assert len(space.feeds) == 4
