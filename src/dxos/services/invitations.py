"""The invitations service: inviting and joining."""

from typing import final

import anyio

from dxos.halo.invitation import Invitation
from dxos.services.contract import InvitationsState, InvitationUpdate, Next, Subscription
from dxos.spaces import invitation_handshake, invitations
from dxos.spaces.peer import Peer


@final
class InvitationsServiceHost:
    """Implements `InvitationsService`."""

    def __init__(self, peer: Peer) -> None:
        self._invitations = peer.invitations

    def create_invitation(self, invitation: Invitation, next: Next[InvitationUpdate]) -> Subscription:
        return self._invitations.create(invitation, lambda update: next(_update(update)))

    def accept_invitation(self, invitation: Invitation, next: Next[InvitationUpdate]) -> Subscription:
        return self._invitations.accept(invitation, lambda update: next(_update(update)))

    async def authenticate(self, invitation_id: str, auth_code: str) -> None:
        await anyio.lowlevel.checkpoint()
        self._invitations.authenticate(invitation_id, auth_code)

    async def cancel_invitation(self, invitation_id: str) -> None:
        await self._invitations.cancel(invitation_id)

    def query_invitations(self, next: Next[InvitationsState]) -> Subscription:
        return self._invitations.subscribe(lambda state: next(_state(state)))


def _update(update: invitation_handshake.InvitationUpdate) -> InvitationUpdate:
    return InvitationUpdate(update.invitation, update.error, update.done, update.failures)


def _state(state: invitations.InvitationsState) -> InvitationsState:
    return InvitationsState(state.created, state.accepted)
