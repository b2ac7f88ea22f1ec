"""`dx space join`: the guest's side of an invitation, from the code to a space with all that is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from dxos.cli.connection import network_watched, wait_until_synced
from dxos.cli.output import Output, plural
from dxos.cli.prompt import LineReader
from dxos.cli.session import Session
from dxos.errors import AuthenticationError
from dxos.limits import INVITATION_ATTEMPTS_MAX

if TYPE_CHECKING:
    from dxos.client.client import Client
    from dxos.client.invitations import AuthenticatingInvitation
    from dxos.client.space import Space

_FETCH_S_MAX: Final = 60.0
_SENTENCES: Final = {
    "CONNECTING": "Looking for the host of the invitation …",
    "CONNECTED": "Connected to the host.",
    "AUTHENTICATING": "The host checks the code …",
    "SUCCESS": "Admitted.",
}


async def join(session: Session, client: Client, code: str, auth_code: str | None) -> Space:
    """Redeem an invitation; cancelling gives it up.

    Returns:
        The space, ready.

    Raises:
        InvitationError: It is malformed, or did not work; the message says why.
        AuthenticationError: The given code was wrong, or three typed ones were.
    """
    from dxos.halo.invitation import InvitationEncoder

    output = session.output
    async with network_watched(session, client):
        guest = client.accept_invitation(InvitationEncoder.decode(code))
        reporting = guest.subscribe(lambda it: _say_state(output, it.state.name), _ignore)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_answer, output, guest, auth_code)
                joined = await guest
                tasks.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await guest.cancel()
            raise
        finally:
            reporting.unsubscribe()
    assert joined.space_key is not None, "an accepted invitation names its space"
    space = client.get_space(joined.space_key)
    assert space is not None, "a space that was joined is there"
    with output.progress() as progress:
        progress("Fetching the space's content …")
        with anyio.move_on_after(_FETCH_S_MAX) as waiting:
            await space.wait_until_ready()
            await wait_until_synced(client, space, _FETCH_S_MAX)
    if waiting.cancelled_caught:
        output.say("The host went away before everything was here; it will come when a member is online.")
    return space


async def _answer(output: Output, guest: AuthenticatingInvitation, given: str | None) -> None:
    """Hand in authentication codes whenever the host wants one."""
    reader, left = LineReader(), INVITATION_ATTEMPTS_MAX
    while True:
        await guest.wait_for(lambda it: it.state.name == "READY_FOR_AUTHENTICATION")
        typed = given
        if typed is None:
            output.prompt("Authentication code: ")
            typed = await reader.read()
        if typed is None:
            await guest.cancel()
            raise AuthenticationError("The invitation wants an authentication code: give it with --auth-code.")
        if not typed.strip():
            continue
        await guest.authenticate(typed)
        if guest.state.name == "READY_FOR_AUTHENTICATION":
            left -= 1
            if given is not None:
                await guest.cancel()
                raise AuthenticationError(f"The authentication code is wrong; {plural(left, 'attempt')} left.")
            output.say(f"That code is wrong; {plural(left, 'attempt')} left.")


def _say_state(output: Output, state: str) -> None:
    if state in _SENTENCES:
        output.say(_SENTENCES[state])


def _ignore(_: object) -> None:
    """Whoever awaits the invitation hears of its error."""
