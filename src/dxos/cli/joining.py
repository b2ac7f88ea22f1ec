"""`dx space join`: the guest's side of an invitation, from the code to a space with all that is in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import anyio

from dxos.aio import unwrap_group
from dxos.cli.connection import network_watched
from dxos.cli.output import Output, plural
from dxos.cli.prompt import LineReader
from dxos.cli.session import Session
from dxos.errors import AuthenticationError, DxosError, InvitationCancelledError
from dxos.limits import INVITATION_ATTEMPTS_MAX

if TYPE_CHECKING:
    from dxos.client.client import Client
    from dxos.client.invitations import AuthenticatingInvitation
    from dxos.client.progress import Activity
    from dxos.client.space import Space
    from dxos.halo.invitation import Invitation

_FETCHING: Final = "Fetching the space's content"
_FETCH_S_MAX: Final = 60.0  # Since something last came.
_SILENCE_S: Final = 10.0  # A host that is there answers within a second or two.
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
        reporting = guest.subscribe(_state_teller(output), _ignore)
        answerer = _Answerer(output, guest, auth_code, LineReader(session.surroundings.stdin))
        try:
            with unwrap_group():
                async with anyio.create_task_group() as tasks:
                    if guest.get().auth_method.name != "NONE":
                        tasks.start_soon(answerer.run)
                    tasks.start_soon(_warn_of_silence, output, guest)
                    joined = await _outcome(guest, answerer)
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
        progress(_FETCHING + " …")
        with anyio.move_on_after(_FETCH_S_MAX) as waiting:

            def show(activities: tuple[Activity, ...]) -> None:
                for one in activities:
                    if one.kind == "sync" and one.space_id == space.id:
                        waiting.deadline = anyio.current_time() + _FETCH_S_MAX  # Something comes, so waiting pays.
                        of = f"{one.progress.done} of {one.progress.total}"
                        progress(f"{_FETCHING}: {of} …", one.progress.fraction)

            arriving = client.progress.subscribe(show)
            try:
                await space.wait_until_ready()
                await space.wait_until_synced()
            finally:
                arriving.unsubscribe()
    if waiting.cancelled_caught:
        output.say("The host went away before everything was here; it will come when a member is online.")
    return space


@final
class _Answerer:
    """Hands in authentication codes whenever the host wants one."""

    def __init__(self, output: Output, guest: AuthenticatingInvitation, given: str | None, reader: LineReader) -> None:
        self._output, self._guest, self._given, self._reader = output, guest, given, reader
        self._left = INVITATION_ATTEMPTS_MAX
        self.refusal: DxosError | None = None  # Why this side gave the invitation up.

    async def run(self) -> None:
        """Answer until the invitation ends; why it ended is for whoever awaits it to say."""
        try:
            while self.refusal is None:
                await self._guest.wait_for(lambda it: it.state.name == "READY_FOR_AUTHENTICATION")
                await self._answer()
        except DxosError:
            if self._guest.error is None and self._guest.state.name != "SUCCESS":
                raise

    async def _answer(self) -> None:
        code = await self._ask() if self._given is None else self._given
        if code is None:
            await self._give_up("The invitation wants an authentication code: give it with --auth-code.")
            return
        if not code.strip():
            return
        await self._guest.authenticate(code)
        if self._guest.state.name != "READY_FOR_AUTHENTICATION":
            return
        self._left -= 1
        sentence = f"The authentication code is wrong; {plural(self._left, 'attempt')} left."
        if self._given is None:
            self._output.say(sentence)
        else:
            await self._give_up(sentence)

    async def _ask(self) -> str | None:
        self._output.prompt("Authentication code: ")
        try:
            return await self._reader.read()
        except anyio.get_cancelled_exc_class():
            self._output.say("")  # What comes next begins on a line of its own.
            raise

    async def _give_up(self, sentence: str) -> None:
        self.refusal = AuthenticationError(sentence)
        await self._guest.cancel()


async def _outcome(guest: AuthenticatingInvitation, answerer: _Answerer) -> Invitation:
    try:
        return await guest
    except InvitationCancelledError:
        raise answerer.refusal or InvitationCancelledError("The invitation was cancelled; ask for a new one.") from None


async def _warn_of_silence(output: Output, guest: AuthenticatingInvitation) -> None:
    await anyio.sleep(_SILENCE_S)
    if guest.get().state.name in ("INIT", "CONNECTING"):
        output.say(
            "The host does not answer yet. Is its command still running, and is the invitation neither used nor over? "
            "Waiting on; Ctrl-C gives it up."
        )


def _state_teller(output: Output) -> Callable[[Invitation], None]:
    """Says what a state means, once while it lasts: an invitation may also change in other things."""
    last = ""

    def tell(invitation: Invitation) -> None:
        nonlocal last
        state = invitation.state.name
        if state != last and state in _SENTENCES:
            output.say(_SENTENCES[state])
        last = state

    return tell


def _ignore(_: object) -> None:
    """Whoever awaits the invitation hears of its error."""
