"""Bad input and failure, met through the public interface: each has its class, its code, and a sentence that helps."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace
from process_people import NOWHERE, WAIT_S, join, person, raised, settings, shown, signalling, wrong

from dxos import AuthMethod, Client, Invitation, InvitationEncoder, InvitationKind, InvitationState
from dxos.errors import (
    AlreadyJoinedError,
    AuthenticationError,
    DeadlineError,
    DxosError,
    IdentityMissingError,
    InvitationCancelledError,
    InvitationCodeError,
    InvitationExpiredError,
    InvitationTimeoutError,
    InvitationUsedError,
    UsageError,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.filterwarnings("error::ResourceWarning")]
State = InvitationState


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def says(error: DxosError | None, kind: type[DxosError], code: str, gist: str) -> None:
    """The error is exactly of this class and code, and one sentence with this gist, which ends with what to do."""
    assert type(error) is kind, repr(error)
    assert error.code == code
    assert re.search(gist, str(error)), str(error)
    assert "\n" not in str(error)


# --- Invitation codes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "gist"),
    [
        (lambda code: "", "empty.*paste the whole code"),
        (lambda code: "milk and bread", "letters and digits only.*copy the code once more"),
        (lambda code: code[: len(code) // 2], "[Cc]opy it once more"),
        (lambda code: code[:-1], "[Cc]opy it once more"),
        (lambda code: code[1:], "[Cc]opy it once more"),
        (lambda code: code * 40, "too long.*copy the code once more"),
        (lambda code: "https://example.org/?milk=2", "carries no invitation code.*copy"),
        (lambda code: "0" * 50, "[Cc]opy it once more"),
        (lambda code: "\x00\ud800", "letters and digits only"),
    ],
)
async def test_a_code_that_is_none_is_refused_at_once(damage: Callable[[str], str], gist: str) -> None:
    async with person(None) as alice:
        space = await alice.create_space(name="Groceries")
        invitation = space.create_invitation()
        code, _ = await shown(invitation)
        with pytest.raises(InvitationCodeError) as caught:
            alice.accept_invitation(damage(code))
        says(caught.value, InvitationCodeError, "invitation.code", gist)


async def test_a_code_for_something_else_is_refused() -> None:
    async with person(None) as alice, person(None, name="Bob") as bob:
        space = await alice.create_space(name="Groceries")
        invitation = space.create_invitation(auth_method=AuthMethod.NONE)
        await invitation.wait_for(lambda one: one.state is State.CONNECTING, timeout_s=WAIT_S)
        device = replace(invitation.get(), kind=InvitationKind.DEVICE)
        guest = bob.accept_invitation(InvitationEncoder.encode(device))
        with pytest.raises(UsageError) as caught:
            await raised(guest)
        says(caught.value, UsageError, "usage", "device.*not supported.*ask for an invitation to a space")


async def test_an_expired_invitation_is_dead_on_both_sides(tmp_path: Path) -> None:
    async with signalling() as server, person(None, server) as alice, person(None, server, name="Bob") as bob:
        space = await alice.create_space(name="Groceries")
        invitation = space.create_invitation(lifetime_s=1)
        code, _ = await shown(invitation)
        with pytest.raises(InvitationExpiredError) as caught:
            await raised(invitation)
        says(caught.value, InvitationExpiredError, "invitation.expired", "expired.*new one")
        assert invitation.state is State.EXPIRED
        guest = bob.accept_invitation(code)
        with pytest.raises(InvitationExpiredError) as caught:
            await raised(guest)
        says(caught.value, InvitationExpiredError, "invitation.expired", "expired.*ask for a new one")
        assert guest.state is State.EXPIRED


async def test_an_invitation_that_expires_while_its_guest_waits_ends_there_too() -> None:
    async with signalling() as server, person(None, server) as alice, person(None, server, name="Bob") as bob:
        space = await alice.create_space(name="Groceries")
        invitation = space.create_invitation(lifetime_s=2)
        code, _ = await shown(invitation)
        guest = bob.accept_invitation(code)
        await guest.wait_for(lambda one: one.state is State.READY_FOR_AUTHENTICATION, timeout_s=WAIT_S)
        with pytest.raises(InvitationExpiredError) as caught:
            await raised(guest)
        says(caught.value, InvitationExpiredError, "invitation.expired", "expired.*new one")
        with pytest.raises(InvitationExpiredError):
            await raised(invitation)


async def test_a_cancelled_invitation_ends_on_both_sides_and_admits_nobody_later(tmp_path: Path) -> None:
    async with signalling() as server, person(None, server, name="Bob") as bob:
        async with person(tmp_path / "alice", server) as alice:
            space = await alice.create_space(name="Groceries")
            invitation = space.create_invitation()
            code, auth_code = await shown(invitation)
            guest = bob.accept_invitation(code)
            await guest.wait_for(lambda one: one.state is State.READY_FOR_AUTHENTICATION, timeout_s=WAIT_S)
            await invitation.cancel()
            for side in (invitation, guest):
                with pytest.raises(InvitationCancelledError) as caught:
                    await raised(side)
                says(caught.value, InvitationCancelledError, "invitation.cancelled", "cancelled.*ask for a new one")
            assert invitation.state is State.CANCELLED
        async with person(tmp_path / "alice", server) as alice:
            assert alice.spaces.get()[0].invitations.get() == ()
            late = bob.accept_invitation(code)
            with anyio.move_on_after(0.5):
                await late.authenticate(auth_code)
            assert late.state is State.CONNECTING
            await late.cancel()
            with pytest.raises(InvitationCancelledError):
                await raised(late)


async def test_a_code_that_was_used_admits_nobody_else(tmp_path: Path) -> None:
    async with (
        signalling() as server,
        person(None, server) as alice,
        person(None, server, name="Bob") as bob,
        person(None, server, name="Carol") as carol,
    ):
        space = await alice.create_space(name="Groceries")
        invitation = space.create_invitation(timeout_s=2)
        code, auth_code = await shown(invitation)
        await join(bob, code, auth_code)
        await raised(invitation)
        late = carol.accept_invitation(hurried(code, 1_000))
        with pytest.raises((InvitationUsedError, InvitationTimeoutError)) as caught:
            await raised(late)
        says(caught.value, InvitationTimeoutError, "invitation.timeout", "did not appear.*online.*new code.*used")
        assert len(space.members.get()) == 2


def hurried(code: str, timeout_ms: int) -> Invitation:
    """The invitation in a code, with less patience."""
    return replace(InvitationEncoder.decode(code), timeout_ms=timeout_ms)


async def test_of_two_guests_who_race_the_loser_is_told_why() -> None:
    async with (
        signalling() as server,
        person(None, server) as alice,
        person(None, server, name="Bob") as bob,
        person(None, server, name="Carol") as carol,
    ):
        space = await alice.create_space(name="Groceries")
        invitation = space.create_invitation(timeout_s=2)
        code, auth_code = await shown(invitation)
        guests = [bob.accept_invitation(code), carol.accept_invitation(code)]
        results: list[Invitation | DxosError] = []

        async def take(index: int) -> None:
            try:
                await guests[index].authenticate(auth_code)
                results.append(await guests[index])
            except DxosError as error:
                results.append(error)

        with anyio.fail_after(WAIT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take, 0)
                tasks.start_soon(take, 1)
        assert sum(isinstance(one, Invitation) for one in results) == 1
        (error,) = [one for one in results if isinstance(one, DxosError)]
        assert isinstance(error, InvitationUsedError | InvitationTimeoutError), repr(error)
        await raised(invitation)
        assert len(space.members.get()) == 2


# --- Authentication codes ---------------------------------------------------------------------------------------------


async def test_a_wrong_code_goes_back_and_the_third_ends_it_on_both_sides() -> None:
    async with signalling() as server, person(None, server) as alice, person(None, server, name="Bob") as bob:
        space = await alice.create_space(name="Groceries")
        invitation = space.create_invitation()
        code, auth_code = await shown(invitation)
        host_states: list[State] = []
        invitation.subscribe(lambda one: host_states.append(one.state), lambda _: None)
        guest = bob.accept_invitation(code)
        guest_states: list[State] = []
        guest.subscribe(lambda one: guest_states.append(one.state), lambda _: None)
        for _ in range(2):
            answer = await guest.authenticate(wrong(auth_code))
            assert answer.state is State.READY_FOR_AUTHENTICATION
        assert guest.failures == 2
        with pytest.raises(AuthenticationError) as caught:
            await guest.authenticate(wrong(auth_code))
        says(caught.value, AuthenticationError, "invitation.authentication", "wrong too often.*new")
        tried = [State.READY_FOR_AUTHENTICATION, State.AUTHENTICATING]
        assert guest_states[-7:] == [*tried, *tried, *tried, State.ERROR]
        with pytest.raises(AuthenticationError) as caught:
            await raised(invitation)
        says(caught.value, AuthenticationError, "invitation.authentication", "wrong too often.*make a new one")
        assert invitation.state is State.ERROR
        assert invitation.failures == 3
        assert State.READY_FOR_AUTHENTICATION in host_states
        assert len(space.members.get()) == 1


async def test_failures_are_counted_over_reconnecting_guests_and_a_restart_of_the_host(tmp_path: Path) -> None:
    async with signalling() as server:
        async with person(tmp_path / "alice", server) as alice:
            space = await alice.create_space(name="Groceries")
            invitation = space.create_invitation()
            code, auth_code = await shown(invitation)
            async with person(None, server, name="Bob") as bob:
                guest = bob.accept_invitation(code)
                await guest.authenticate(wrong(auth_code))
            await invitation.wait_for(lambda one: one.state is State.CONNECTING, timeout_s=WAIT_S)
            assert invitation.failures == 1
        async with person(tmp_path / "alice", server) as alice:
            space = await alice.spaces.get()[0].wait_until_ready(WAIT_S)
            (invitation,) = space.invitations.get()
            async with person(None, server, name="Bob") as bob:
                guest = bob.accept_invitation(code)
                await guest.authenticate(wrong(auth_code))
                assert invitation.failures == 2
            async with person(None, server, name="Bob") as bob:
                guest = bob.accept_invitation(code)
                with pytest.raises(AuthenticationError):
                    await guest.authenticate(wrong(auth_code))
            with pytest.raises(AuthenticationError) as caught:
                await raised(invitation)
            says(caught.value, AuthenticationError, "invitation.authentication", "wrong too often.*make a new one")
        async with person(tmp_path / "alice", server) as alice, person(None, server, name="Bob") as bob:
            assert alice.spaces.get()[0].invitations.get() == ()
            guest = bob.accept_invitation(hurried(code, 700))
            with pytest.raises(InvitationTimeoutError):
                await guest.authenticate(auth_code)


# --- Identity and membership ------------------------------------------------------------------------------------------


async def test_who_is_in_the_space_does_not_join_it_again() -> None:
    async with signalling() as server, person(None, server) as alice, person(None, server, name="Bob") as bob:
        space = await alice.create_space(name="Groceries")
        code, auth_code = await shown(space.create_invitation())
        own = alice.accept_invitation(code)
        with pytest.raises(AlreadyJoinedError) as caught:
            await raised(own)
        says(caught.value, AlreadyJoinedError, "usage.already-joined", "member of the space already.*open it")
        await join(bob, code, auth_code)
        again, _ = await shown(space.create_invitation())
        with pytest.raises(AlreadyJoinedError) as caught:
            await raised(bob.accept_invitation(again))
        says(caught.value, AlreadyJoinedError, "usage.already-joined", "member of the space already.*open it")


async def test_without_an_identity_nothing_is_created_or_joined() -> None:
    async with person(None) as alice, Client(settings(None)) as bob:
        space = await alice.create_space(name="Groceries")
        code, _ = await shown(space.create_invitation())
        with pytest.raises(IdentityMissingError) as caught:
            await bob.create_space(name="Mine")
        says(caught.value, IdentityMissingError, "usage.identity-missing", "no identity yet.*create")
        with pytest.raises(IdentityMissingError) as caught:
            await raised(bob.accept_invitation(code))
        says(caught.value, IdentityMissingError, "usage.identity-missing", "no identity yet.*create")
        await bob.halo.create_identity(display_name="Bob")
        await bob.create_space(name="Mine")


# --- No signalling server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("servers", [(), (NOWHERE,)])
async def test_without_a_signalling_server_one_works_alone_and_invitations_wait(
    tmp_path: Path, servers: tuple[str, ...]
) -> None:
    started = time.monotonic()
    async with person(tmp_path / "alice", *servers) as alice, person(None, *servers, name="Bob") as bob:
        space = await alice.create_space(name="Groceries")
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        milk.title = "Oat milk"
        await space.db.flush()
        if servers:
            status = await alice.mesh.network_status.wait_for(
                lambda one: any(server.state.name in ("ERROR", "RECONNECTING") for server in one.signaling),
                timeout_s=WAIT_S,
            )
            assert [one.server for one in status.signaling] == list(servers)
        invitation = space.create_invitation(timeout_s=1)
        code, _ = await shown(invitation)
        guest = bob.accept_invitation(code)
        with pytest.raises(InvitationTimeoutError) as caught:
            await raised(guest)
        says(caught.value, InvitationTimeoutError, "invitation.timeout", "did not appear.*online")
        assert caught.value.retryable
        assert guest.state is State.TIMEOUT
        assert not invitation.state.is_final
        with pytest.raises(DeadlineError):
            await invitation.wait_for(lambda one: one.state is State.SUCCESS, timeout_s=0.05)
    assert time.monotonic() - started < 10
