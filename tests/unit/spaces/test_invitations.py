"""Hosts and guests over a network in memory, with real storage, machines, connections and swarms."""

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from invitation_people import BEGINNING_MS, Person, Phone, Watch, other, wanted

from dxos.errors import (
    AlreadyJoinedError,
    AuthenticationError,
    BrokenError,
    DxosError,
    IdentityMissingError,
    InvitationCancelledError,
    InvitationError,
    InvitationExpiredError,
    InvitationTimeoutError,
    NotAllowedError,
    ProofError,
    StorageError,
    UsageError,
)
from dxos.halo.invitation import AdmissionKeypair, AuthMethod, InvitationEncoder, InvitationKind, InvitationState
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.limits import INVITATION_ATTEMPTS_MAX, INVITATION_LIFETIME_S, INVITATION_TIMEOUT_S
from dxos.spaces.invitations import InvitationsState
from dxos.testing.network import MemoryNetwork
from dxos.wire.proto.credentials_pb2 import Credential

pytestmark = pytest.mark.anyio
State = InvitationState
LIVE = [State.CONNECTING, State.CONNECTED, State.READY_FOR_AUTHENTICATION, State.AUTHENTICATING]


class World:
    """A network and the people in it."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.fabric = MemoryNetwork(seed=7, latency_s=0.01, link_latency_s=0.01)
        self._stack = stack

    async def online(self, person: Person) -> Phone:
        return await self._stack.enter_async_context(person.online(self.fabric))


@pytest.fixture
async def alice() -> Person:
    return Person("alice")


@pytest.fixture
async def bob() -> Person:
    return Person("bob")


# --- Success ---------------------------------------------------------------------------------------------------------


async def test_a_guest_with_the_code_becomes_a_member(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        space = alice.create_space()
        invited = host.invite(wanted(space, target="doc/1"))
        joined = guest.accept(invited.invitation)
        assert invited.invitation.auth_code is not None
        await guest.answer(joined, other(invited.invitation.auth_code))
        await guest.answer(joined, invited.invitation.auth_code)
        await joined.wait_done()
        await invited.wait_done()
        assert joined.states == [
            *("CONNECTING", "CONNECTED", "READY_FOR_AUTHENTICATION", "AUTHENTICATING"),
            *("READY_FOR_AUTHENTICATION", "AUTHENTICATING", "SUCCESS"),
        ]
        assert invited.states == ["INIT", *joined.states]
        assert (invited.last.error, invited.last.failures) == (None, 1)
        assert (joined.last.error, joined.last.failures) == (None, 1)
        assert joined.invitation.space_key == space
        assert joined.invitation.space_id == invited.invitation.space_id
        assert joined.invitation.target == "doc/1"
        assert alice.spaces[space][bob.identity_key] is SpaceRole.EDITOR
        assert alice.guests[0] is not None
        assert alice.guests[0].display_name == "bob"
        assert host.invitations.state() == guest.invitations.state() == InvitationsState()
        assert not host.network.swarms
        assert not guest.network.swarms


async def test_an_invitation_without_code_asks_the_guest_for_nothing(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        invited = host.invite(wanted(alice.create_space(), AuthMethod.NONE, role=SpaceRole.READER))
        joined = await guest.join(invited.invitation)
        await invited.wait_done()
        assert joined.states == ["CONNECTING", "CONNECTED", "SUCCESS"]
        assert invited.states == ["INIT", "CONNECTING", "CONNECTED", "READY_FOR_AUTHENTICATION", "SUCCESS"]
        assert invited.invitation.auth_code is None


async def test_a_code_may_be_handed_in_before_it_is_asked_for(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        invited = host.invite(wanted(alice.create_space()))
        joined = await guest.join(invited.invitation, invited.invitation.auth_code)
        assert joined.state is State.SUCCESS


async def test_a_key_pair_in_the_code_admits_its_holder_only(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        invited = host.invite(wanted(alice.create_space(), AuthMethod.KNOWN_PUBLIC_KEY))
        whole = InvitationEncoder.decode(InvitationEncoder.encode(invited.invitation))
        assert whole.guest_keypair is not None
        for pair in (AdmissionKeypair(whole.guest_keypair.public_key), AdmissionKeypair(PublicKey(b"x"), bytes(64))):
            thief = Watch()
            guest.invitations.accept(
                wanted(
                    alice.create_space(),
                    AuthMethod.KNOWN_PUBLIC_KEY,
                    invitation_id=whole.invitation_id,
                    swarm_key=whole.swarm_key,
                    guest_keypair=pair,
                ),
                thief,
            )
            await thief.wait_done()
            assert thief.state is State.ERROR
            assert isinstance(thief.last.error, AuthenticationError)
            await invited.wait_state(State.CONNECTING)
        assert (await guest.join(invited.invitation)).state is State.SUCCESS


async def test_a_multi_use_invitation_admits_one_after_another(alice: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host = await world.online(alice)
        space = alice.create_space()
        invited = host.invite(wanted(space, multi_use=True))
        for name in ("bob", "carol"):
            guest = await world.online(Person(name))
            joined = await guest.join(invited.invitation, invited.invitation.auth_code)
            assert joined.state is State.SUCCESS
            await invited.wait_state(State.CONNECTING)
        assert len(alice.spaces[space]) == 3
        assert invited.states.count("SUCCESS") == 2
        assert not invited.done


async def test_of_two_guests_at_once_a_single_use_invitation_admits_one(alice: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host = await world.online(alice)
        space = alice.create_space()
        alice.admit_s = 1.0
        invited = host.invite(wanted(space, AuthMethod.NONE, timeout_ms=20_000))
        guests = [await world.online(Person(name)) for name in ("bob", "carol")]
        watches = [guest.accept(invited.invitation) for guest in guests]
        for watch in watches:
            await watch.wait_done()
        assert sorted(watch.state.name for watch in watches) == ["SUCCESS", "TIMEOUT"]
        assert len(alice.spaces[space]) == 2


# --- Wrong codes -----------------------------------------------------------------------------------------------------


async def test_the_third_wrong_code_ends_the_invitation_on_both_sides(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        invited = host.invite(wanted(alice.create_space()))
        code = invited.invitation.auth_code
        joined = guest.accept(invited.invitation)
        for _ in range(INVITATION_ATTEMPTS_MAX):
            await guest.answer(joined, other(code))
        await invited.wait_done()
        for watch in (invited, joined):
            assert watch.state is State.ERROR
            assert isinstance(watch.last.error, AuthenticationError)
            assert watch.last.failures == INVITATION_ATTEMPTS_MAX
        late = await guest.join(invited.invitation, code)
        assert isinstance(late.last.error, InvitationTimeoutError)


async def test_wrong_codes_are_counted_over_connections_and_restarts(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        guest = await world.online(bob)
        space = alice.create_space()
        async with alice.online(world.fabric) as host:
            invited = host.invite(wanted(space))
            whole = invited.invitation
            for failures in (1, 2):
                joined = guest.accept(whole)
                await guest.answer(joined, other(whole.auth_code))
                assert joined.last.failures == 1
                await guest.invitations.cancel(whole.invitation_id)
                await invited.wait_state(State.CONNECTING)
                assert invited.last.failures == failures
        async with alice.online(world.fabric) as host:
            invited = host.invite(whole)
            assert invited.last.failures == 2
            joined = guest.accept(whole)
            await guest.answer(joined, other(whole.auth_code))
            assert isinstance(joined.last.error, AuthenticationError)
            await invited.wait_done()
            assert isinstance(invited.last.error, AuthenticationError)
        async with alice.online(world.fabric) as host:
            assert host.invitations.state().created == ()
            assert not host.network.swarms
            dead = host.invite(whole)
            assert dead.states == ["ERROR"]
            assert isinstance(dead.last.error, AuthenticationError)
            assert dead.invitation.auth_code is None
        assert alice.spaces[space].keys() == {alice.identity_key}


async def test_a_failure_that_cannot_be_counted_ends_the_invitation(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        invited = host.invite(wanted(alice.create_space()))
        alice.database.run("PRAGMA query_only = 1")
        joined = guest.accept(invited.invitation)
        await guest.answer(joined, other(invited.invitation.auth_code))
        await invited.wait_done()
        assert isinstance(invited.last.error, StorageError)
        assert joined.state is State.ERROR


# --- Cancelling, expiring, giving up ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", LIVE[:3])  # A code is checked in no time; what follows has a test of its own.
async def test_a_host_can_cancel_in_every_state(alice: Person, bob: Person, state: InvitationState) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host = await world.online(alice)
        space = alice.create_space()
        invited = host.invite(wanted(space))
        whole = invited.invitation
        await invited.wait_state(State.CONNECTING)
        if state is not State.CONNECTING:
            guest = await world.online(bob)
            joined = guest.accept(whole)
            await invited.wait_state(state)
        await host.invitations.cancel(whole.invitation_id)
        assert invited.state is State.CANCELLED
        assert isinstance(invited.last.error, InvitationCancelledError)
        assert not host.network.swarms
        if state is not State.CONNECTING:
            await joined.wait_done()
            assert joined.state is State.ERROR
            assert isinstance(joined.last.error, InvitationCancelledError)
        assert host.invite(whole).states == ["CANCELLED"]
        assert alice.spaces[space].keys() == {alice.identity_key}


@pytest.mark.parametrize("state", LIVE)
async def test_a_guest_can_cancel_in_every_state(alice: Person, bob: Person, state: InvitationState) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        guest = await world.online(bob)
        host = await world.online(alice)
        invited = host.invite(wanted(alice.create_space()))
        whole = invited.invitation
        joined = guest.accept(whole)
        if state is State.AUTHENTICATING:
            guest.invitations.authenticate(whole.invitation_id, other(whole.auth_code))
        await joined.wait_state(state)
        await guest.invitations.cancel(whole.invitation_id)
        assert joined.state is State.CANCELLED
        assert not guest.network.swarms
        await invited.wait_state(State.CONNECTING)
        assert (await guest.join(whole, whole.auth_code)).state is State.SUCCESS


async def test_a_cancelled_invitation_is_dead_after_a_restart(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        guest = await world.online(bob)
        async with alice.online(world.fabric) as host:
            whole = host.invite(wanted(alice.create_space())).invitation
            await host.invitations.cancel(whole.invitation_id)
        async with alice.online(world.fabric) as host:
            assert host.invitations.state().created == ()
            dead = host.invite(whole)
            assert dead.state is State.CANCELLED
            joined = await guest.join(whole, whole.auth_code)
            assert joined.state is State.TIMEOUT
            assert isinstance(joined.last.error, InvitationTimeoutError)


async def test_cancelling_while_a_guest_is_being_admitted_is_too_late(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        alice.admit_s = 1.0
        invited = host.invite(wanted(alice.create_space()))
        joined = guest.accept(invited.invitation)
        guest.invitations.authenticate(invited.invitation.invitation_id, invited.invitation.auth_code or "")
        await joined.wait_state(State.AUTHENTICATING)
        await anyio.sleep(0.5)
        await host.invitations.cancel(invited.invitation.invitation_id)
        await joined.wait_done()
        assert (invited.state, joined.state) == (State.SUCCESS, State.SUCCESS)


async def test_an_invitation_expires_by_the_clock(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        invited = host.invite(wanted(alice.create_space(), lifetime_s=3))
        joined = guest.accept(invited.invitation)
        await joined.wait_state(State.READY_FOR_AUTHENTICATION)
        await invited.wait_done()
        await joined.wait_done()
        assert (invited.state, joined.state) == (State.EXPIRED, State.EXPIRED)
        assert anyio.current_time() == pytest.approx(3, abs=0.2)
        for watch in (invited, joined, await guest.join(invited.invitation)):
            assert isinstance(watch.last.error, InvitationExpiredError)
        assert not host.network.swarms


async def test_an_invitation_expires_while_its_host_is_away(alice: Person) -> None:
    world = World(AsyncExitStack())
    async with alice.online(world.fabric) as host:
        whole = host.invite(wanted(alice.create_space(), lifetime_s=60)).invitation
    await anyio.sleep(61)
    for _ in range(2):
        async with alice.online(world.fabric) as host:
            assert host.invitations.state().created == ()
            assert host.invite(whole).states == ["EXPIRED"]
    await anyio.sleep(40 * 24 * 3600)
    async with alice.online(world.fabric):
        assert alice.store.ids() == []


async def test_a_guest_gives_up_on_a_host_that_never_appears(bob: Person) -> None:
    world = World(AsyncExitStack())
    async with bob.online(world.fabric) as guest:
        joined = await guest.join(wanted(PublicKey(b"s"), invitation_id="1", swarm_key=PublicKey(b"t")))
        assert joined.states == ["CONNECTING", "TIMEOUT"]
        assert isinstance(joined.last.error, InvitationTimeoutError)
        assert anyio.current_time() == pytest.approx(INVITATION_TIMEOUT_S)


async def test_a_guest_without_code_times_out_and_the_host_waits_on(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        invited = host.invite(wanted(alice.create_space(), timeout_ms=5_000))
        joined = guest.accept(invited.invitation)
        await joined.wait_done()
        assert joined.state is State.TIMEOUT
        assert isinstance(joined.last.error, InvitationTimeoutError)
        await invited.wait_state(State.CONNECTING)
        assert (await guest.join(invited.invitation, invited.invitation.auth_code)).state is State.SUCCESS


# --- Failing networks and processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", LIVE[1:])
async def test_a_guest_that_goes_offline_fails_and_the_host_waits_on(
    alice: Person, bob: Person, state: InvitationState
) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        invited = host.invite(wanted(alice.create_space()))
        whole = invited.invitation
        joined = guest.accept(whole)
        if state is State.AUTHENTICATING:
            guest.invitations.authenticate(whole.invitation_id, other(whole.auth_code))
        await joined.wait_state(state)
        await guest.network.set_online(False)
        await joined.wait_done()
        assert joined.state is State.ERROR
        assert isinstance(joined.last.error, BrokenError)
        await invited.wait_state(State.CONNECTING)
        await guest.network.set_online(True)
        assert (await guest.join(whole, whole.auth_code)).state is State.SUCCESS


async def test_a_guest_whose_cable_is_cut_makes_room_for_the_next(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest, carol = [await world.online(one) for one in (alice, bob, Person("carol"))]
        invited = host.invite(wanted(alice.create_space()))
        whole = invited.invitation
        joined = guest.accept(whole)
        await joined.wait_state(State.READY_FOR_AUTHENTICATION)
        assert world.fabric.cut(alice.peer_key, bob.peer_key)
        assert (await carol.join(whole, whole.auth_code)).state is State.SUCCESS
        await joined.wait_done()
        assert isinstance(joined.last.error, DxosError)


async def test_a_guest_that_vanishes_while_it_is_admitted_is_a_member_all_the_same(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        alice.admit_s = 1.0
        space = alice.create_space()
        invited = host.invite(wanted(space, AuthMethod.NONE))
        joined = guest.accept(invited.invitation)
        await invited.wait_state(State.READY_FOR_AUTHENTICATION)
        await anyio.sleep(0.5)
        assert world.fabric.reset(alice.peer_key, bob.peer_key)
        await joined.wait_done()
        await invited.wait_done()
        assert isinstance(joined.last.error, BrokenError)
        assert invited.state is State.SUCCESS
        assert bob.identity_key in alice.spaces[space]


async def test_a_host_that_vanishes_fails_the_guest(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        guest = await world.online(bob)
        async with alice.online(world.fabric) as host:
            invited = host.invite(wanted(alice.create_space()))
            whole = invited.invitation
            joined = guest.accept(whole)
            await joined.wait_state(State.READY_FOR_AUTHENTICATION)
        await joined.wait_done()
        assert joined.state is State.ERROR
        assert isinstance(joined.last.error, BrokenError)
        async with alice.online(world.fabric) as host:
            (again,) = host.invitations.state().created
            assert (again.invitation_id, again.auth_code, again.swarm_key) == (
                whole.invitation_id,
                whole.auth_code,
                whole.swarm_key,
            )
            assert (await guest.join(whole, whole.auth_code)).state is State.SUCCESS


async def test_a_guest_that_came_before_its_host_waits_for_it(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        guest = await world.online(bob)
        async with alice.online(world.fabric) as host:
            whole = host.invite(wanted(alice.create_space())).invitation
        joined = guest.accept(whole)
        await anyio.sleep(60)
        await world.online(alice)
        await guest.answer(joined, whole.auth_code or "")
        assert joined.state is State.SUCCESS


async def test_what_shall_not_be_kept_is_hosted_after_a_restart_only_if_somebody_still_wants_it(alice: Person) -> None:
    world = World(AsyncExitStack())
    async with alice.online(world.fabric) as host:
        whole = host.invite(wanted(alice.create_space(), persistent=False)).invitation
        ended = host.invite(wanted(alice.create_space(), persistent=False)).invitation
        await host.invitations.cancel(ended.invitation_id)
        assert host.invite(ended).state is State.CANCELLED
    async with alice.online(world.fabric) as host:
        assert host.invitations.state().created == ()
        assert host.invite(ended).state is State.CANCELLED
        assert host.invite(whole).invitation.auth_code == whole.auth_code
    assert whole.persistent is False


async def test_a_use_that_was_taken_when_the_host_died_stays_taken(alice: Person) -> None:
    world = World(AsyncExitStack())
    async with alice.online(world.fabric) as host:
        whole = host.invite(wanted(alice.create_space())).invitation
        assert alice.store.claim(whole.invitation_id)
    async with alice.online(world.fabric) as host:
        assert host.invitations.state().created == ()
        assert host.invite(whole).state is State.ERROR


async def test_a_damaged_invitation_keeps_no_other_from_being_hosted_again(
    alice: Person, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(AsyncExitStack())
    async with alice.online(world.fabric) as host:
        space = alice.create_space()
        damaged, whole = (host.invite(wanted(space)).invitation.invitation_id for _ in range(2))
    alice.database.run("UPDATE invitations SET check_sum = check_sum + 1 WHERE id = ?", (damaged,))
    async with alice.online(world.fabric) as host:
        assert [one.invitation_id for one in host.invitations.state().created] == [whole]
    (said,) = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert said.startswith(f"invitation {damaged[:8]} admits nobody any more; see `dx doctor`")


# --- Refusals --------------------------------------------------------------------------------------------------------


async def test_the_host_refuses_a_member_and_says_so(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        space = alice.create_space()
        alice.spaces[space][bob.identity_key] = SpaceRole.READER
        invited = host.invite(wanted(space))
        joined = await guest.join(invited.invitation, invited.invitation.auth_code)
        assert joined.state is State.ERROR
        assert "member of the space already" in str(joined.last.error)
        assert alice.spaces[space][bob.identity_key] is SpaceRole.READER
        # The use was given back.
        carol = await world.online(Person("carol"))
        assert (await carol.join(invited.invitation, invited.invitation.auth_code)).state is State.SUCCESS


async def test_a_member_does_not_join_again(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        space = alice.create_space()
        bob.spaces[space] = {}
        joined = guest.accept(host.invite(wanted(space)).invitation)
        assert joined.states == ["ERROR"]
        assert isinstance(joined.last.error, AlreadyJoinedError)


async def test_without_an_identity_nothing_is_joined(bob: Person) -> None:
    world = World(AsyncExitStack())
    bob.identity = None
    async with bob.online(world.fabric) as guest:
        joined = guest.accept(wanted(PublicKey(b"s"), invitation_id="1", swarm_key=PublicKey(b"t")))
        assert isinstance(joined.last.error, IdentityMissingError)


async def test_who_may_not_admit_cannot_invite(alice: Person) -> None:
    world = World(AsyncExitStack())
    async with alice.online(world.fabric) as host:
        alice.may_admit = False
        invited = host.invite(wanted(alice.create_space()))
        assert invited.states == ["ERROR"]
        assert isinstance(invited.last.error, NotAllowedError)
        assert alice.store.ids() == []


@pytest.mark.parametrize(
    "changes", [{"lifetime_s": 0}, {"lifetime_s": 10**9}, {"kind": InvitationKind.DEVICE}, {"role": SpaceRole.OWNER}]
)
async def test_an_invitation_that_cannot_be_is_an_error(alice: Person, changes: dict[str, Any]) -> None:
    world = World(AsyncExitStack())
    async with alice.online(world.fabric) as host:
        invited = host.invite(wanted(alice.create_space(), **changes))
        assert isinstance(invited.last.error, UsageError)


def _another_space(credential: Credential) -> None:
    credential.subject.assertion.value = bytes(Person("eve").create_space())


def _no_signature(credential: Credential) -> None:
    credential.proof.value = bytes(64)


@pytest.mark.parametrize("forge", [_another_space, _no_signature])
async def test_a_forged_admission_is_refused(alice: Person, bob: Person, forge: Callable[[Credential], None]) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        alice.forge = forge
        joined = await guest.join(host.invite(wanted(alice.create_space(), AuthMethod.NONE)).invitation)
        assert joined.state is State.ERROR
        assert isinstance(joined.last.error, DxosError)
        assert bob.spaces == {}


async def test_an_admission_replayed_to_another_guest_or_for_another_space_is_refused(
    alice: Person, bob: Person
) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest, carol = [await world.online(one) for one in (alice, bob, Person("carol"))]
        first = host.invite(wanted(alice.create_space(), AuthMethod.NONE))
        assert (await guest.join(first.invitation)).state is State.SUCCESS
        alice.replayed = alice.answered[0]
        for phone in (carol, guest):
            invited = host.invite(wanted(alice.create_space(), AuthMethod.NONE))
            joined = await phone.join(invited.invitation)
            assert isinstance(joined.last.error, ProofError)
        assert carol.person.spaces == {}


async def test_an_unknown_invitation_is_not_authenticated_and_cancelling_it_is_harmless(bob: Person) -> None:
    world = World(AsyncExitStack())
    async with bob.online(world.fabric) as guest:
        with pytest.raises(UsageError):
            guest.invitations.authenticate("unknown", "123456")
        await guest.invitations.cancel("unknown")


# --- What observers see ----------------------------------------------------------------------------------------------


async def test_an_invitation_is_on_the_disk_with_its_defaults_before_it_is_shown(alice: Person) -> None:
    world = World(AsyncExitStack())
    async with alice.online(world.fabric) as host:
        invited = host.invite(wanted(alice.create_space()))
        whole = invited.updates[0].invitation
        assert alice.store.get(whole.invitation_id) is not None
        assert len(bytes.fromhex(whole.invitation_id)) == len(whole.swarm_key) == 32
        assert whole.auth_code is not None
        assert (len(whole.auth_code), whole.auth_code.isdecimal()) == (6, True)
        assert (whole.role, whole.persistent, whole.multi_use) == (SpaceRole.EDITOR, True, False)
        assert whole.lifetime_s == INVITATION_LIFETIME_S
        assert whole.timeout_ms == INVITATION_TIMEOUT_S * 1000
        assert whole.created_ms == BEGINNING_MS


async def test_one_id_is_one_invitation_for_all_who_follow(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        one = host.invite(wanted(alice.create_space()))
        another = host.invite(one.invitation)
        assert another.invitation.auth_code == one.invitation.auth_code
        lists: list[InvitationsState] = []
        host.invitations.subscribe(lists.append)
        watches = [guest.accept(one.invitation) for _ in range(2)]
        assert (await guest.join(one.invitation, one.invitation.auth_code)).state is State.SUCCESS
        await one.wait_done()
        for watch in (another, *watches):
            assert watch.state is State.SUCCESS
        assert [len(state.created) for state in (lists[0], lists[-1])] == [1, 0]
        assert not host.invitations.state().created


async def test_no_secret_is_logged_or_shown(alice: Person, bob: Person, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        invited = host.invite(wanted(alice.create_space()))
        code = invited.invitation.auth_code
        assert code is not None
        shown = [
            repr(invited.last),
            repr(host.invitations),
            repr(host.invitations._created),
            repr(alice.store.get(invited.invitation.invitation_id)),
        ]
        joined = guest.accept(invited.invitation)
        await guest.answer(joined, other(code))
        await guest.answer(joined, code)
        shown += [repr(joined.updates), repr(guest.invitations), caplog.text]
    assert not any(code in text or other(code) in text for text in shown)


async def test_an_error_of_the_host_reaches_the_guest_and_the_host_waits_on(alice: Person, bob: Person) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        host, guest = await world.online(alice), await world.online(bob)
        alice.refusal = NotAllowedError("the host is no admin any more")
        invited = host.invite(wanted(alice.create_space()))
        joined = await guest.join(invited.invitation, invited.invitation.auth_code)
        assert joined.state is State.ERROR
        assert "no admin any more" in str(joined.last.error)
        assert not isinstance(joined.last.error, InvitationError)
        await invited.wait_state(State.CONNECTING)
