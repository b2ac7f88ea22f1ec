"""`dx space share`: the host's side of an invitation, from the code to the guest who has everything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, final

import anyio

from dxos.cli.connection import network_watched, wait_until_synced
from dxos.cli.output import Output, plural
from dxos.cli.session import Session
from dxos.errors import DeadlineError, InvitationExpiredError
from dxos.limits import INVITATION_ATTEMPTS_MAX

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dxos.client.client import Client
    from dxos.client.invitations import CancellableInvitation
    from dxos.client.space import Space
    from dxos.halo.invitation import Invitation
    from dxos.keys import PublicKey
    from dxos.services.contract import SpaceMember

# How long we stay for a guest who was admitted: without us, nobody could give it the space's content.
_HAND_OVER_S_MAX: Final = 60.0
_LINGER_S: Final = 1.0
_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600


class Role(StrEnum):
    """The roles a guest may be given."""

    ADMIN = "admin"
    EDITOR = "editor"
    READER = "reader"


@final
@dataclass(frozen=True, slots=True)
class Terms:
    """What an invitation is to be like."""

    authenticated: bool  # Whether the guest needs an authentication code.
    multi_use: bool
    lifetime_s: int
    timeout_s: float
    role: Role


async def share(session: Session, client: Client, space: Space, terms: Terms, *, qr: bool | None) -> None:
    """Host an invitation until its guest is admitted and has the space's content; cancelling cancels it."""
    from dxos.halo.invitation import AuthMethod
    from dxos.halo.roles import SpaceRole

    known = {one.identity_key for one in space.members.get()}
    invitation = space.create_invitation(
        auth_method=AuthMethod.SHARED_SECRET if terms.authenticated else AuthMethod.NONE,
        multi_use=terms.multi_use,
        lifetime_s=terms.lifetime_s,
        timeout_s=terms.timeout_s,
        # Whoever sees that the command was killed takes the code for dead.
        persistent=False,
        role=SpaceRole[terms.role.name],
    )
    try:
        await invitation.wait_for(lambda it: it.state.name != "INIT")
        if invitation.error is not None:
            raise invitation.error  # Before anything is shown that would admit nobody.
        _print_code(session.output, space, invitation.get(), invitation.code, qr=qr)
        async with network_watched(session, client):
            await _host(session, client, space, invitation, known)
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True):
            await invitation.cancel()
        session.output.say("The invitation is cancelled; its code admits nobody.")
        raise


@final
class _Guests:
    """Those who became members since the invitation was made."""

    def __init__(self, output: Output, known: set[PublicKey]) -> None:
        self._output, self._known = output, known
        self.admitted: list[PublicKey] = []

    def greet(self, members: tuple[SpaceMember, ...]) -> None:
        """Print who is new."""
        for one in members:
            if one.identity_key not in self._known and one.role.is_member:
                self._known.add(one.identity_key)
                self.admitted.append(one.identity_key)
                _print_admitted(self._output, one)


async def _host(
    session: Session, client: Client, space: Space, invitation: CancellableInvitation, known: set[PublicKey]
) -> None:
    """Tell of an invitation's states to its end, and see to it that the last guest gets the space's content."""
    output, guests = session.output, _Guests(session.output, known)
    subscription = space.members.subscribe(guests.greet)
    try:
        with output.progress() as progress:
            try:
                await _follow(output, invitation, progress)
            except InvitationExpiredError:
                if not guests.admitted:
                    raise
                output.say("The invitation's lifetime is over.")  # One for many guests can end no other way.
            progress("Handing over the space's content …")
            await space.members.wait_for(lambda _: bool(guests.admitted), timeout_s=_HAND_OVER_S_MAX)
            guest = guests.admitted[-1]
            handed_over = await wait_until_synced(space, _HAND_OVER_S_MAX, member=guest)
            if handed_over:  # The guest must hear of it too, and then ends or stays.
                with contextlib.suppress(DeadlineError):
                    await space.members.wait_for(lambda members: not _is_online(members, guest), timeout_s=_LINGER_S)
    finally:
        subscription.unsubscribe()
    if handed_over:
        output.say("The guest has the space's content.")
    else:
        output.say("The guest went offline before it had everything; keep this profile online: dx space watch")


def _is_online(members: Sequence[SpaceMember], key: PublicKey) -> bool:
    return any(one.identity_key == key and one.presence.name == "ONLINE" for one in members)


async def _follow(output: Output, invitation: CancellableInvitation, progress: Callable[[str], None]) -> None:
    failures = 0
    progress(_waiting_sentence("CONNECTING"))
    async for value in invitation:
        if output.json:
            output.result({"event": "state", "state": value.state.name}, repr)
        progress(_waiting_sentence(value.state.name))
        if invitation.failures > failures:
            failures = invitation.failures
            output.say(f"The guest gave a wrong code; {plural(INVITATION_ATTEMPTS_MAX - failures, 'attempt')} left.")
    await invitation


def _print_code(output: Output, space: Space, invitation: Invitation, code: str, *, qr: bool | None) -> None:
    command = f"dx space join {code}"
    document = {
        "event": "invitation",
        "space": space.id,
        "code": code,
        "auth_code": invitation.auth_code,
        "command": command,
    }
    if qr or (qr is None and output.is_terminal and not output.json):
        _print_qr_code(output, code)

    def render(_: object) -> RenderableType:
        from rich.text import Text

        text = Text.assemble("On the other side, type:\n\n", (command, "cyan"), "\n")
        if invitation.auth_code is not None:
            text.append("\nand there, when asked, the authentication code: ")
            text.append(invitation.auth_code, "bold green")
            text.append("\nTell it by another way than the invitation: by voice, for instance.\n")
        if invitation.lifetime_s:
            text.append(f"The invitation is good for {_duration(invitation.lifetime_s)}; Ctrl-C cancels it.")
        return text

    output.result(document, render)


def _print_qr_code(output: Output, code: str) -> None:
    import io
    import shutil

    import segno

    drawn = io.StringIO()
    picture = segno.make(code, error="l", micro=False)
    width, _ = picture.symbol_size()
    if width > shutil.get_terminal_size().columns:
        output.say("(The terminal is too narrow for the QR code.)")
        return
    picture.terminal(out=drawn, compact=True)
    output.draw(drawn.getvalue())


def _print_admitted(output: Output, member: SpaceMember) -> None:
    from dxos.cli.output import line

    output.result(
        {
            "event": "admitted",
            "name": member.profile.display_name,
            "role": member.role.name,
            "did": member.did,
            "key": member.identity_key.hex,
        },
        line(lambda it: f"{it['name'] or it['did']} is in the space, as {it['role']}."),
    )


def _waiting_sentence(state: str) -> str:
    return {
        "CONNECTED": "A guest is connecting …",
        "READY_FOR_AUTHENTICATION": "A guest is here; waiting for the authentication code …",
        "AUTHENTICATING": "Checking the authentication code …",
        "SUCCESS": "Admitted.",
    }.get(state, "Waiting for a guest …")


def _duration(seconds: int) -> str:
    if seconds >= 2 * _HOUR_S:
        return plural(round(seconds / _HOUR_S), "hour")
    return plural(round(seconds / _MINUTE_S), "minute") if seconds >= 2 * _MINUTE_S else plural(seconds, "second")
